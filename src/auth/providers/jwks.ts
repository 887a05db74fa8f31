import { createPublicKey, type KeyObject } from 'node:crypto';
import { z } from 'zod';
import type { KeyAlgorithm } from './identity-provider.ts';

/** One usable key of a set. */
export interface PublishedKey {
  readonly kid: string | undefined;
  readonly key: KeyObject;
  readonly algorithms: readonly KeyAlgorithm[];
}

/** Keys of one set. Issuers publish fewer than ten. */
const MAX_KEYS = 100;
const RSA: readonly KeyAlgorithm[] = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'];
const CURVES: Readonly<Record<string, KeyAlgorithm>> = { prime256v1: 'ES256', secp384r1: 'ES384', secp521r1: 'ES512' };

const KeySetDocument = z.object({ keys: z.array(z.unknown()) });
const Row = z.looseObject({
  kty: z.enum(['RSA', 'EC']),
  kid: z.string().nullish(),
  use: z.string().nullish(),
  alg: z.string().nullish(),
});

/**
 * Reads the keys of a set (RFC 7517). RFC 7517 section 5: rows that cannot be used are ignored, so that one bad row
 * does not make the others unusable. Keys for encryption are ignored too.
 * @throws Error if the document is no key set
 */
export function readKeySet(document: unknown): { keys: readonly PublishedKey[]; ignored: number } {
  const set = KeySetDocument.safeParse(document);
  if (!set.success) throw new Error('not a key set: no list "keys"');
  const rows = set.data.keys.slice(0, MAX_KEYS);
  const keys = rows.map(readKey).filter((key) => key !== undefined);
  return { keys, ignored: set.data.keys.length - keys.length };
}

function readKey(row: unknown): PublishedKey | undefined {
  const read = Row.safeParse(row);
  if (!read.success || (read.data.use ?? 'sig') !== 'sig') return undefined;
  try {
    const key = createPublicKey({ key: { ...read.data }, format: 'jwk' });
    const algorithms = algorithmsOf(key).filter((name) => (read.data.alg ?? name) === name);
    return algorithms.length === 0 ? undefined : { kid: read.data.kid ?? undefined, key, algorithms };
  } catch {
    return undefined;
  }
}

function algorithmsOf(key: KeyObject): readonly KeyAlgorithm[] {
  if (key.asymmetricKeyType === 'rsa') return RSA;
  const algorithm = CURVES[key.asymmetricKeyDetails?.namedCurve ?? ''];
  return algorithm === undefined ? [] : [algorithm];
}
