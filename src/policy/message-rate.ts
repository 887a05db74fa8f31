import { RateLimiterMemory, RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible';
import type { Logger } from '../lib/logger.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import type { Plan, Plans } from './plans.ts';

const WINDOW_SECONDS = 60;

export interface MessageRateDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly plans: Plans;
  /** Who shares the limit while Redis cannot count it. */
  readonly nodes: { readonly alive: number };
  readonly logger: Logger;
}

export type RateDecision =
  | { readonly allowed: true; readonly degraded: boolean }
  | { readonly allowed: false; readonly degraded: boolean; readonly retryAfterMs: number };

interface KnowsBlockedKeys {
  getInMemoryBlockMsBeforeExpire(key: string): number;
}

/** The limiter and what stands in for it while Redis is away. */
interface PlanLimiter {
  readonly limit: number;
  readonly shared: RateLimiterRedis;
  readonly local: RateLimiterMemory;
}

/** Users whose messages are remembered during an outage, to be counted when it is over; beyond it the oldest are let go. */
const UNCOUNTED_USERS = 50_000;
/** Counted at once on return: bounds what the first message after an outage sets off. */
const COUNT_BATCH = 500;

/**
 * How many messages a user may send in a minute: one counter per user for the whole cluster, counted by Redis and its
 * clock. While Redis is away each node grants its share, the limit over the number of nodes, so that an outage neither
 * silences users nor opens the gate; when it is back, what was granted meanwhile is counted, so that nobody begins anew.
 */
export class MessageRate {
  readonly #keys: Keys;
  readonly #logger: Logger;
  /** By limit: plans with the same one share it. As many as there ever were limits, reloads of the plans included. */
  readonly #limiters = new Map<number, PlanLimiter>();
  readonly #redis: Redis;
  readonly #plans: Plans;
  readonly #perMinute: number;
  readonly #nodes: { readonly alive: number };
  /** Messages granted by this node alone: by counter key, with the limiter they belong to. */
  readonly #uncounted = new Map<string, { limiter: RateLimiterRedis; messages: number }>();
  #degraded = false;

  constructor(deps: MessageRateDeps, options: { readonly perMinute: number }) {
    const { redis, keys, plans, nodes, logger } = deps;
    this.#keys = keys;
    this.#logger = logger;
    this.#plans = plans;
    this.#nodes = nodes;
    this.#redis = redis;
    this.#perMinute = options.perMinute;
  }

  /** Messages a minute for a plan. */
  limitOf(plan: string): number {
    return this.#limiterOf(plan).limit;
  }

  /** Milliseconds for which this node knows the user to be over the limit, without asking Redis; 0 if it does not. */
  knownRefusalMs(userId: string, plan: string): number {
    // Public in the library, but left out of its types.
    const limiter = this.#limiterOf(plan).shared as RateLimiterRedis & KnowsBlockedKeys;
    return limiter.getInMemoryBlockMsBeforeExpire(this.#keys.user(userId).messageRate);
  }

  /** Counts one message of the user. One command to Redis, or none for a user known to be over the limit. */
  async take(userId: string, plan: string): Promise<RateDecision> {
    const limiter = this.#limiterOf(plan);
    const key = this.#keys.user(userId).messageRate;
    const decision = await consume(limiter.shared, key);
    this.#noteStore(decision instanceof Error ? decision : undefined);
    if (!(decision instanceof Error)) return { ...decision, degraded: false };
    const granted = await consume(limiter.local, key);
    if (granted instanceof Error) throw granted;
    if (granted.allowed) this.#remember(key, limiter.shared);
    return { ...granted, degraded: true };
  }

  #remember(key: string, limiter: RateLimiterRedis): void {
    const known = this.#uncounted.get(key);
    this.#uncounted.set(key, { limiter, messages: (known?.messages ?? 0) + 1 });
    if (this.#uncounted.size <= UNCOUNTED_USERS) return;
    const [oldest] = this.#uncounted.keys();
    if (oldest !== undefined) this.#uncounted.delete(oldest);
  }

  /** An outage is one line in the log, not one for every message. */
  #noteStore(failure: Error | undefined): void {
    if (this.#degraded === (failure !== undefined)) return;
    this.#degraded = failure !== undefined;
    if (!failure) {
      this.#logger.info('message limits are counted by the cluster again');
      void this.#countMissed();
      return;
    }
    this.#logger.warn({ error: failure.message }, 'message limits are counted by this node alone');
    for (const { limit, local } of this.#limiters.values()) {
      local.points = this.#localPoints(limit);
    }
  }

  /** Adds to the cluster's counters what this node granted alone; what cannot be added is tried after the next outage. */
  async #countMissed(): Promise<void> {
    const missed = [...this.#uncounted];
    for (let from = 0; from < missed.length && !this.#degraded; from += COUNT_BATCH) {
      const batch = missed.slice(from, from + COUNT_BATCH);
      await Promise.all(
        batch.map(async ([key, { limiter, messages }]) => {
          try {
            await limiter.penalty(key, messages);
            this.#uncounted.delete(key);
          } catch (error) {
            this.#logger.debug({ err: error }, 'messages of an outage were not counted yet');
          }
        }),
      );
    }
  }

  #limiterOf(plan: string): PlanLimiter {
    const limit = messagesPerMinute(this.#plans.effective(plan), this.#perMinute);
    const known = this.#limiters.get(limit);
    if (known) return known;
    // No prefix of the library's own: the key is the user's, in the user's slot.
    const window = { points: limit, duration: WINDOW_SECONDS, keyPrefix: '' };
    const shared = new RateLimiterRedis({
      ...window,
      storeClient: this.#redis,
      rejectIfRedisNotReady: true,
      // A user known to be over the limit is refused from memory: shouting louder costs Redis nothing.
      inMemoryBlockOnConsumed: limit + 1,
    });
    const limiter = { limit, shared, local: new RateLimiterMemory({ ...window, points: this.#localPoints(limit) }) };
    this.#limiters.set(limit, limiter);
    return limiter;
  }

  /** This node's share of a limit. */
  #localPoints(limit: number): number {
    return Math.max(1, Math.floor(limit / this.#nodes.alive));
  }
}

export function messagesPerMinute(plan: Plan, perMinute: number): number {
  return Math.max(1, Math.floor(plan.multiplier * perMinute));
}

type Consumed = { readonly allowed: true } | { readonly allowed: false; readonly retryAfterMs: number };

/** The library rejects both for "over the limit" and for "the store failed"; here they are told apart, once. */
async function consume(limiter: RateLimiterRedis | RateLimiterMemory, key: string): Promise<Consumed | Error> {
  try {
    await limiter.consume(key);
    return { allowed: true };
  } catch (rejection) {
    if (rejection instanceof RateLimiterRes) return { allowed: false, retryAfterMs: rejection.msBeforeNext };
    return rejection instanceof Error ? rejection : new Error(String(rejection));
  }
}
