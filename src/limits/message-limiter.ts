import { RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible';
import type { Plan, Plans } from '../catalogue/plans.ts';
import { type Clock, sleep } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { isResponsive, type Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import { LocalLimiter, type Uncounted } from './local-limiter.ts';
import { type CountedBatch, MessageBatches } from './message-batches.ts';

const WINDOW_SECONDS = 60;

export interface MessageLimiterDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly plans: Plans;
  /** The nodes that share the limit while Redis is unavailable. */
  readonly nodes: { readonly alive: number };
  readonly clock: Clock;
  readonly logger: Logger;
}

export type RateDecision =
  | { readonly allowed: true; readonly degraded: boolean }
  | { readonly allowed: false; readonly degraded: boolean; readonly retryAfterMs: number };

/** A message that is being counted. */
export interface CountedMessage {
  readonly decision: Promise<RateDecision>;
  /** Largest value of the user's counter, directly after the command, with which the message is within the limit. */
  readonly counterAtMost: number;
}

/**
 * - `cluster`: Redis counts.
 * - `node`: Redis is unavailable; this node grants its local allowance.
 * - `both`: Redis is available again, but other nodes may not have added what they granted. Redis counts, and no user
 *   gets more than this node's allowance.
 */
type CountedBy = 'cluster' | 'node' | 'both';

interface PlanLimiter {
  readonly limit: number;
  readonly shared: RateLimiterRedis;
}

interface Refusal {
  /** End of the in-memory block, ms since the epoch. */
  readonly blockedUntil: number;
  readonly retryAt: number;
}

const GRANTED: RateDecision = { allowed: true, degraded: false };

/**
 * Duration of an in-memory block: a user above the limit costs Redis one command in this time. Not longer, because the
 * limit ends by the clock of Redis, and a node whose clock was set back would prolong it.
 */
const IN_MEMORY_BLOCK_MS = 1_000;
/** Maximum stored blocks; above it the limiter drops the oldest, and that user's next message queries Redis. */
const MAX_BLOCKED_USERS = 10_000;
/** Interval between probes of an unavailable Redis. */
const PROBE_MS = 250;
/** Timeout of one probe. */
const ANSWER_MS = 1_000;
/**
 * Wait for the other nodes to count their granted messages. Nodes reconnect to Redis at least once per second and probe
 * it every `PROBE_MS`, so after this delay every node that can reach Redis has counted.
 */
const REJOIN_DELAY_MS = 2_000;
/** Counters updated at once after an outage; bounds the load when it ends. */
const COUNT_BATCH = 500;

/**
 * Limits the messages per user and minute: one counter per user for the whole cluster, in Redis and on its clock. While
 * Redis is unavailable, each node grants its local allowance, the limit divided by the number of nodes. An outage thus
 * neither blocks users nor removes the limit. Afterwards each node adds what it granted in the current minute to the
 * counters. Until then no user gets more than the allowance, so an outage does not reset any limit.
 */
export class MessageLimiter {
  readonly #deps: MessageLimiterDeps;
  /** By limit; plans with the same limit share an entry. Grows by one entry per distinct limit, also across reloads. */
  readonly #limiters = new Map<number, PlanLimiter>();
  readonly #perMinute: number;
  readonly #local: LocalLimiter;
  /** By plan and counter key, in order of insertion. */
  readonly #refusals = new Map<string, Refusal>();
  readonly #batches: MessageBatches;
  readonly #closing = new AbortController();
  #countedBy: CountedBy = 'cluster';
  /** Number of live nodes at the last contact with Redis. */
  #nodeCount = 1;

  constructor(deps: MessageLimiterDeps, options: { readonly perMinute: number }) {
    this.#deps = deps;
    this.#local = new LocalLimiter(deps, { windowMs: WINDOW_SECONDS * 1_000 });
    this.#batches = new MessageBatches(deps);
    this.#perMinute = options.perMinute;
  }

  /** Returns the messages per minute of a plan. */
  limitOf(plan: string): number {
    return this.#limiterOf(plan).limit;
  }

  /** Returns the user's counter in Redis; an elapsed window counts as 0. @throws RedisUnavailable */
  async counter(userId: string): Promise<{ readonly messages: number; readonly endsAt: string | null }> {
    const { redis, keys, clock } = this.#deps;
    const key = keys.user(userId).messageRate;
    const [messages, remainingMs] = await mapRedisErrors(Promise.all([redis.get(key), redis.pttl(key)]));
    if (messages === null || remainingMs <= 0) return { messages: 0, endsAt: null };
    return { messages: Number(messages), endsAt: new Date(clock.now() + remainingMs).toISOString() };
  }

  /** Returns the remaining block in milliseconds, without a command to Redis; 0 when the user is not blocked. */
  blockedInMemoryMs(userId: string, plan: string): number {
    const isCluster = this.#countedBy === 'cluster';
    if (isCluster && this.#refusals.size === 0) return 0;
    const key = this.#deps.keys.user(userId).messageRate;
    const refusal = this.#refusals.get(refusalKey(key, plan));
    const now = this.#deps.clock.now();
    const refusedMs = clampRemaining(WINDOW_SECONDS * 1_000, (refusal?.retryAt ?? now) - now);
    // Redis cannot be queried, so its last refusal stays valid in full.
    if (!isCluster) return Math.max(refusedMs, this.#local.refusalMs(key, this.#localAllowance(plan)));
    return clampRemaining(IN_MEMORY_BLOCK_MS, (refusal?.blockedUntil ?? now) - now) > 0 ? Math.max(1, refusedMs) : 0;
  }

  /** Takes a message that Redis has counted already, without a command; false if there is none. */
  takeCounted(userId: string, plan: string): boolean {
    return this.#countedBy === 'cluster' && this.#batches.take(userId, this.limitOf(plan));
  }

  /** Counts one message of the user: at most one command to Redis, sent at once, and none for a blocked user. */
  consume(userId: string, plan: string): CountedMessage {
    const limiter = this.#limiterOf(plan);
    const counterAtMost = limiter.limit;
    const blockedMs = this.blockedInMemoryMs(userId, plan);
    const degraded = this.#countedBy !== 'cluster';
    if (blockedMs > 0) {
      const decision = Promise.resolve({ allowed: false, degraded, retryAfterMs: blockedMs } as const);
      return { decision, counterAtMost };
    }
    const key = this.#deps.keys.user(userId).messageRate;
    if (this.#countedBy === 'node')
      return { decision: Promise.resolve(this.#consumeLocally(key, plan)), counterAtMost };
    if (degraded) return { decision: this.#consumeDegraded(key, plan), counterAtMost };
    const count = (size: number) => countPoints(limiter, key, size);
    const { position, size, counting } = this.#batches.join(userId, limiter.limit, count);
    const decision = counting.then((counted) => this.#decide(key, plan, { position, counted }));
    return { decision, counterAtMost: limiter.limit + size - position };
  }

  #decide(
    key: string,
    plan: string,
    { position, counted }: { readonly position: number; readonly counted: CountedBatch | Error },
  ): RateDecision {
    if (counted instanceof Error) {
      this.#leaveCluster(counted);
      return this.#consumeLocally(key, plan);
    }
    if (position <= counted.granted) return GRANTED;
    this.#blockInMemory(refusalKey(key, plan), counted.remainingMs);
    return { allowed: false, degraded: false, retryAfterMs: counted.remainingMs };
  }

  /** Counts a message in Redis and by this node. */
  async #consumeDegraded(key: string, plan: string): Promise<RateDecision> {
    this.#local.grant(key);
    const counted = await countPoints(this.#limiterOf(plan), key, 1);
    if (counted instanceof Error) {
      this.#leaveCluster(counted);
      return { allowed: true, degraded: true };
    }
    this.#local.counted(key, 1);
    if (counted.granted > 0) return { allowed: true, degraded: true };
    this.#blockInMemory(refusalKey(key, plan), counted.remainingMs);
    return { allowed: false, degraded: true, retryAfterMs: counted.remainingMs };
  }

  close(): void {
    this.#closing.abort();
  }

  #consumeLocally(key: string, plan: string): RateDecision {
    const retryAfterMs = this.#local.refusalMs(key, this.#localAllowance(plan));
    if (retryAfterMs > 0) return { allowed: false, degraded: true, retryAfterMs };
    this.#local.grant(key);
    return { allowed: true, degraded: true };
  }

  #blockInMemory(key: string, retryAfterMs: number): void {
    const now = this.#deps.clock.now();
    const blockedUntil = now + Math.min(IN_MEMORY_BLOCK_MS, retryAfterMs);
    this.#refusals.delete(key);
    this.#refusals.set(key, { blockedUntil, retryAt: now + retryAfterMs });
    if (this.#refusals.size <= MAX_BLOCKED_USERS) return;
    const [oldest] = this.#refusals.keys();
    if (oldest !== undefined) this.#refusals.delete(oldest);
  }

  /** Starts the local fallback. Logs once per outage, not once per message. */
  #leaveCluster(failure: Error): void {
    const wasCounting = this.#countedBy === 'cluster';
    this.#countedBy = 'node';
    // Redis may come back without the counters that contain them.
    this.#batches.clear();
    // During a rejoin, `#rejoinCluster` is still running and starts over.
    if (!wasCounting) return;
    this.#nodeCount = this.#deps.nodes.alive;
    this.#deps.logger.warn({ error: failure.message }, 'message limits are counted by this node alone');
    void this.#rejoinCluster();
  }

  /** Waits for Redis, counts there what this node granted, and waits until the other nodes have done the same. */
  async #rejoinCluster(): Promise<void> {
    const { clock, redis, logger } = this.#deps;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      await sleep(clock, PROBE_MS, signal);
      if (!(await isResponsive(redis, ANSWER_MS))) continue;
      this.#countedBy = 'both';
      const counted = await this.#countMissed();
      if (counted) await sleep(clock, REJOIN_DELAY_MS, signal);
      if (counted && this.#countedThroughout()) break;
      this.#countedBy = 'node';
    }
    if (signal.aborted) return;
    this.#countedBy = 'cluster';
    logger.info('message limits are counted by the cluster again');
  }

  /** Whether Redis counted without a failure. A method, because the field changes while `#rejoinCluster` waits. */
  #countedThroughout(): boolean {
    return this.#countedBy === 'both';
  }

  /** Adds the locally granted messages to the counters in Redis. Returns false if a command failed. */
  async #countMissed(): Promise<boolean> {
    const missed = this.#local.uncounted;
    for (let from = 0; from < missed.length; from += COUNT_BATCH) {
      const batch = missed.slice(from, from + COUNT_BATCH);
      const done = await Promise.all(batch.map((one) => this.#countOne(one)));
      if (done.includes(false)) return false;
    }
    return true;
  }

  async #countOne(missed: Uncounted): Promise<boolean> {
    // Any limiter will do: the counter belongs to the user and is independent of the plan.
    const [limiter] = this.#limiters.values();
    try {
      const customDuration = Math.ceil(missed.remainingMs / 1_000);
      await limiter?.shared.penalty(missed.key, missed.messages, { customDuration });
      this.#local.counted(missed.key, missed.messages);
      return true;
    } catch (error) {
      this.#deps.logger.debug({ err: error }, 'counting the messages of an outage failed, retrying');
      return false;
    }
  }

  #localAllowance(plan: string): number {
    return Math.max(1, Math.floor(this.limitOf(plan) / this.#nodeCount));
  }

  #limiterOf(plan: string): PlanLimiter {
    const limit = messagesPerMinute(this.#deps.plans.effective(plan), this.#perMinute);
    const existing = this.#limiters.get(limit);
    if (existing) return existing;
    const shared = new RateLimiterRedis({
      points: limit,
      duration: WINDOW_SECONDS,
      // No prefix by the library: the key is complete and hashes to the user's slot.
      keyPrefix: '',
      storeClient: this.#deps.redis,
      rejectIfRedisNotReady: true,
    });
    const limiter = { limit, shared };
    this.#limiters.set(limit, limiter);
    return limiter;
  }
}

/** Returns the remaining part of a duration of `maxMs`; 0 if more remains, because then the clock was set back. */
function clampRemaining(maxMs: number, remainingMs: number): number {
  return remainingMs > maxMs ? 0 : Math.max(0, remainingMs);
}

/** Includes the plan, because a refusal by one plan's limit does not apply after a plan change. */
function refusalKey(counterKey: string, plan: string): string {
  return `${plan} ${counterKey}`;
}

export function messagesPerMinute(plan: Plan, perMinute: number): number {
  return Math.max(1, Math.floor(plan.multiplier * perMinute));
}

/**
 * Counts messages. The library rejects both for "over the limit" and for "the store failed"; this function separates
 * the two.
 */
async function countPoints({ shared, limit }: PlanLimiter, key: string, points: number): Promise<CountedBatch | Error> {
  try {
    const { msBeforeNext } = await shared.consume(key, points);
    return { granted: points, remainingMs: msBeforeNext };
  } catch (rejection) {
    if (rejection instanceof RateLimiterRes) {
      const { consumedPoints, msBeforeNext } = rejection;
      return { granted: Math.max(0, limit - (consumedPoints - points)), remainingMs: msBeforeNext };
    }
    return rejection instanceof Error ? rejection : new Error(String(rejection));
  }
}
