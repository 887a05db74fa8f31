import { createHash, randomBytes } from 'node:crypto';
import { z } from 'zod';
import type { Redis } from '../src/redis/client.ts';
import type { Keys } from '../src/redis/keys.ts';
import { answered } from './outage.ts';
import { digestOf, sameSecret } from './secrets.ts';

/** RFC 6749 section 4.1.2 recommends at most ten minutes. A browser needs a second. */
const CODE_MS = 60_000;
/** Time for which a used code is remembered, so that its second use ends the session of the first. */
const USED_MS = 600_000;
const CODE_BYTES = 32;
const CODE = /^[\w-]{43}$/;
/** Value of a used code until its session has started, and prefix of the session id then. */
const USED = 'used:';

const CodeGrant = z.object({
  redirectUri: z.string(),
  challenge: z.string(),
  userId: z.string(),
  email: z.string(),
  scope: z.string(),
  nonce: z.string().optional(),
  /** Time of the sign-in, milliseconds since the epoch. */
  signedInAt: z.number(),
});
/** What the user granted at the sign-in page. */
export type CodeGrant = z.infer<typeof CodeGrant>;

export type Redemption =
  | { readonly result: 'redeemed'; readonly grant: CodeGrant }
  /** The code was used before; `sessionId` is the session that it started, if it has started. */
  | { readonly result: 'used'; readonly sessionId: string | undefined }
  | { readonly result: 'unknown' };

/** Authorization codes of RFC 6749 section 4.1.2 in Redis, by their digest. Each can be redeemed once. */
export class AuthorizationCodes {
  readonly #redis: Redis;
  readonly #keys: Keys;

  constructor({ redis, keys }: { readonly redis: Redis; readonly keys: Keys }) {
    this.#redis = redis;
    this.#keys = keys;
  }

  /** @throws RedisUnavailable */
  async issue(grant: CodeGrant): Promise<string> {
    const code = randomBytes(CODE_BYTES).toString('base64url');
    await answered(this.#redis.set(this.#key(code), JSON.stringify(grant), 'PX', CODE_MS));
    return code;
  }

  /**
   * Redeems a code. It is used up even if a later check of the request fails, so that several verifiers cannot be tried.
   * @throws RedisUnavailable
   */
  async redeem(code: string): Promise<Redemption> {
    if (!CODE.test(code)) return { result: 'unknown' };
    const stored = await answered(this.#redis.set(this.#key(code), USED, 'PX', USED_MS, 'XX', 'GET'));
    if (stored === null) return { result: 'unknown' };
    if (!stored.startsWith(USED)) return { result: 'redeemed', grant: CodeGrant.parse(JSON.parse(stored)) };
    return { result: 'used', sessionId: stored.slice(USED.length) || undefined };
  }

  /** Remembers the session that a code started. @throws RedisUnavailable */
  async started(code: string, sessionId: string): Promise<void> {
    await answered(this.#redis.set(this.#key(code), `${USED}${sessionId}`, 'PX', USED_MS));
  }

  #key(code: string): string {
    return this.#keys.auth(`code:${digestOf(code)}`);
  }
}

/** Checks a code verifier against its challenge with the method `S256`: RFC 7636 section 4.6. */
export function verifiesChallenge(verifier: string, challenge: string): boolean {
  return sameSecret(createHash('sha256').update(verifier, 'ascii').digest('base64url'), challenge);
}
