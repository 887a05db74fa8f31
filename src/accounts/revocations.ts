import { mapRedisErrors } from '../redis/errors.ts';
import { integer } from '../redis/replies.ts';
import { LuaScript } from '../redis/scripts.ts';
import {
  INVALIDATIONS_KEPT,
  INVALIDATIONS_TTL_MS,
  type InvalidationDeps,
  isSubject,
  type Subject,
} from './invalidations.ts';

const revoke = LuaScript.load('revoke-2', integer);

/**
 * Lifetime of a revocation for which the caller gives none: that of a refresh token of the reference auth service. If
 * access tokens of an issuer live longer, revoke by user instead; such a revocation does not expire.
 */
const REVOCATION_MS = 7 * 86_400_000;
/** Revocations read in one round trip. */
const PAGE = 5_000;

export function subjectsOf({ tokenId, sessionId }: { tokenId: string; sessionId?: string | undefined }): Subject[] {
  return sessionId === undefined ? [`jti:${tokenId}`] : [`sid:${sessionId}`, `jti:${tokenId}`];
}

/** The revoked tokens and sessions, stored in Redis. Gateways cache them; the auth service queries them. */
export class Revocations {
  readonly #deps: InvalidationDeps;

  constructor(deps: InvalidationDeps) {
    this.#deps = deps;
  }

  /**
   * Stores a revocation and publishes its invalidation, in one round trip. Idempotent.
   * @param forMs lifetime; must cover the remaining lifetime of the subject's tokens and connections
   * @returns expiry of the revocation, ms since the epoch on the clock of Redis
   * @throws RedisUnavailable
   */
  async revoke(subject: Subject, forMs = REVOCATION_MS): Promise<number> {
    const keys = [this.#deps.keys.revocations, this.#deps.keys.invalidations];
    const args = [
      subject,
      Math.ceil(forMs),
      INVALIDATIONS_KEPT,
      INVALIDATIONS_TTL_MS,
      this.#deps.keys.invalidationChannel,
    ];
    args.push(this.#deps.tracing?.traceParent ?? '');
    return revoke.run(this.#deps.redis, keys, args);
  }

  /** Returns whether any of the subjects is revoked. @throws RedisUnavailable */
  async any(subjects: readonly Subject[]): Promise<boolean> {
    const scores = await mapRedisErrors(this.#deps.redis.zmscore(this.#deps.keys.revocations, ...subjects));
    return scores.some((score) => score !== null);
  }

  /**
   * Yields all revocations, one page per round trip, latest expiry first. Concurrent changes can repeat a revocation
   * but hide none except those added since the start, and the invalidation stream contains these.
   */
  async *all(): AsyncGenerator<readonly [Subject, number]> {
    for (let from = 0; ; from += PAGE) {
      const page = await mapRedisErrors(
        this.#deps.redis.zrange(this.#deps.keys.revocations, from, String(from + PAGE - 1), 'REV', 'WITHSCORES'),
      );
      const pairs = scored(page);
      for (const [subject, untilMs] of pairs) if (isSubject(subject)) yield [subject, untilMs];
      if (pairs.length < PAGE) return;
    }
  }
}

/** Reads a reply with scores: RESP3 returns pairs with numbers, RESP2 one list of strings. */
function scored(reply: readonly unknown[]): (readonly [string, number])[] {
  const flat = reply.flat();
  return Array.from({ length: flat.length / 2 }, (_, at) => [String(flat[2 * at]), Number(flat[2 * at + 1])]);
}
