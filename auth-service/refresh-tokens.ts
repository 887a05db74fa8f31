import { createHmac, createSecretKey, hkdfSync, type KeyObject, randomBytes } from 'node:crypto';
import { digestOf, sameSecret } from './secrets.ts';

const NONCE_BYTES = 18;
/** `rt_<session>.<nonce>.<mac>`; opaque to clients. */
const REFRESH_TOKEN = /^rt_(sess_[\w-]{20})\.([\w-]{24})\.([\w-]{43})$/;

interface FamilyKeys {
  /**
   * Signs tokens. A forged token is rejected without a round trip, and cannot end a session by looking like a used
   * one.
   */
  readonly mac: KeyObject;
  /** Derives the successor of a token. */
  readonly succession: KeyObject;
}

/** A genuine refresh token and the values derived from it. The session determines whether the token is still valid. */
export interface PresentedRefreshToken {
  readonly sessionId: string;
  readonly digest: string;
  readonly successor: string;
  readonly successorDigest: string;
}

/**
 * Creates and verifies refresh tokens. The successor of a token is derived from the token and a key of the service.
 * Therefore the same successor can be returned twice although only digests are stored. Without the key, the owner of a
 * token cannot derive the next one.
 */
export class RefreshTokens {
  readonly #keys: readonly FamilyKeys[];
  readonly #current: FamilyKeys;

  /** @param secrets the current secret first; tokens made with the others remain valid */
  constructor(secrets: readonly [string, ...string[]]) {
    const [current, ...previous] = secrets;
    this.#current = deriveKeys(current);
    this.#keys = [this.#current, ...previous.map(deriveKeys)];
  }

  first(sessionId: string): string {
    return this.#make(sessionId, randomBytes(NONCE_BYTES).toString('base64url'));
  }

  /** Returns undefined for a string that this service did not create. */
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

/** Derives separate keys from the signing secret (RFC 5869), so that no key serves two purposes. */
function deriveKeys(secret: string): FamilyKeys {
  const key = (purpose: string) =>
    createSecretKey(Buffer.from(hkdfSync('sha256', secret, '', `tollgate refresh token ${purpose}`, 32)));
  return { mac: key('mac'), succession: key('succession') };
}

function macOf(keys: FamilyKeys, sessionId: string, nonce: string): string {
  return createHmac('sha256', keys.mac).update(`${sessionId}.${nonce}`).digest('base64url');
}
