import { createHmac, createSecretKey, hkdfSync, type KeyObject, randomBytes } from 'node:crypto';
import { digestOf, sameSecret } from './secrets.ts';

const NONCE_BYTES = 18;
/** `rt_<session>.<nonce>.<mac>`; opaque to clients. */
const REFRESH_TOKEN = /^rt_(sess_[\w-]{20})\.([\w-]{24})\.([\w-]{43})$/;

interface FamilyKeys {
  /** Signs tokens: a forged one is refused without asking Redis, and cannot pass for a used one and end a session. */
  readonly mac: KeyObject;
  /** Derives a token's successor. */
  readonly succession: KeyObject;
}

/** A refresh token that was made here, and what follows from it. Whether it is still good is the session's to say. */
export interface PresentedRefreshToken {
  readonly sessionId: string;
  readonly digest: string;
  readonly successor: string;
  readonly successorDigest: string;
}

/**
 * Makes refresh tokens. A token's successor follows from the token and a key of the service, so that the same one can
 * be given twice although nothing but digests is stored; without the key, the holder of a token cannot tell the next.
 */
export class RefreshTokens {
  readonly #keys: readonly FamilyKeys[];
  readonly #current: FamilyKeys;

  /** @param secrets the current one first; tokens made with the others are still known */
  constructor(secrets: readonly [string, ...string[]]) {
    const [current, ...previous] = secrets;
    this.#current = deriveKeys(current);
    this.#keys = [this.#current, ...previous.map(deriveKeys)];
  }

  first(sessionId: string): string {
    return this.#make(sessionId, randomBytes(NONCE_BYTES).toString('base64url'));
  }

  /** Undefined for anything that was not made here. */
  read(token: string): PresentedRefreshToken | undefined {
    const [, sessionId, nonce, mac] = REFRESH_TOKEN.exec(token) ?? [];
    if (sessionId === undefined || nonce === undefined || mac === undefined) return undefined;
    const genuine = this.#keys.filter((keys) => sameSecret(mac, macOf(keys, sessionId, nonce)));
    if (genuine.length === 0) return undefined;
    const next = createHmac('sha256', this.#current.succession).update(token).digest().subarray(0, NONCE_BYTES);
    const successor = this.#make(sessionId, next.toString('base64url'));
    return { sessionId, digest: digestOf(token), successor, successorDigest: digestOf(successor) };
  }

  #make(sessionId: string, nonce: string): string {
    return `rt_${sessionId}.${nonce}.${macOf(this.#current, sessionId, nonce)}`;
  }
}

/** Keys of their own out of the signing secret (RFC 5869), so that no key serves two purposes. */
function deriveKeys(secret: string): FamilyKeys {
  const key = (purpose: string) =>
    createSecretKey(Buffer.from(hkdfSync('sha256', secret, '', `tollgate refresh token ${purpose}`, 32)));
  return { mac: key('mac'), succession: key('succession') };
}

function macOf(keys: FamilyKeys, sessionId: string, nonce: string): string {
  return createHmac('sha256', keys.mac).update(`${sessionId}.${nonce}`).digest('base64url');
}
