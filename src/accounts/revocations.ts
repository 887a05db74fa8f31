import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import { LuaScript } from '../redis/scripts.ts';
import {
  INVALIDATIONS_KEPT,
  INVALIDATIONS_TTL_MS,
  type InvalidationDeps,
  isSubject,
  type Subject,
} from './invalidations.ts';

const revoke = LuaScript.load('revoke-2');

/**
 * For how long a revocation is known when nobody says how long what it revokes can live: as long as a refresh token of
 * the reference auth service. An issuer whose access tokens outlive that must revoke by user, which is kept for good.
 */
export const REVOCATION_MS = 7 * 86_400_000;
/** Revocations read in one round trip. */
const PAGE = 5_000;

export function subjectsOf({ tokenId, sessionId }: { tokenId: string; sessionId?: string | undefined }): Subject[] {
  return sessionId === undefined ? [`jti:${tokenId}`] : [`sid:${sessionId}`, `jti:${tokenId}`];
}

/** Revoked tokens and sessions, as Redis holds them: the truth that gateways follow and the auth service asks. */
export class Revocations {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #tracing: InvalidationDeps['tracing'];

  constructor({ redis, keys, tracing }: InvalidationDeps) {
    this.#redis = redis;
    this.#keys = keys;
    this.#tracing = tracing;
  }

  /**
   * Stores and announces, in one round trip; harmless when it is done again.
   * @param forMs until nothing can be accepted in the subject's name, and no connection lives on by it
   * @returns until when it is known, ms since the epoch on Redis's clock
   * @throws TollgateError OVERLOADED while Redis is away
   */
  async revoke(subject: Subject, forMs = REVOCATION_MS): Promise<number> {
    const keys = [this.#keys.revocations, this.#keys.invalidations];
    const args = [subject, Math.ceil(forMs), INVALIDATIONS_KEPT, INVALIDATIONS_TTL_MS, this.#keys.invalidationChannel];
    args.push(this.#tracing?.traceParent ?? '');
    return Number(await revoke.run(this.#redis, keys, args));
  }

  /** Whether any of them is revoked. @throws TollgateError OVERLOADED while Redis is away */
  async any(subjects: readonly Subject[]): Promise<boolean> {
    const scores = await mapRedisErrors(this.#redis.zmscore(this.#keys.revocations, ...subjects));
    return scores.some((score) => score !== null);
  }

  /**
   * All of them, a page a round trip, the ones that last longest first: what is added or forgotten meanwhile can show
   * one twice but hides none, save those added since, which are in the stream.
   */
  async *all(): AsyncGenerator<readonly [Subject, number]> {
    for (let from = 0; ; from += PAGE) {
      const page = await mapRedisErrors(
        this.#redis.zrange(this.#keys.revocations, from, String(from + PAGE - 1), 'REV', 'WITHSCORES'),
      );
      const pairs = scored(page);
      for (const [subject, untilMs] of pairs) if (isSubject(subject)) yield [subject, untilMs];
      if (pairs.length < PAGE) return;
    }
  }
}

/** RESP3 answers with pairs and numbers, RESP2 with one list of strings. */
function scored(reply: readonly unknown[]): (readonly [string, number])[] {
  const flat = reply.flat();
  return Array.from({ length: flat.length / 2 }, (_, at) => [String(flat[2 * at]), Number(flat[2 * at + 1])]);
}
