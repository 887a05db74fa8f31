import { RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible';
import type { Plan, Plans } from '../catalogue/plans.ts';
import { type Clock, sleep } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { isResponsive, type Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import { LocalLimiter, type Uncounted } from './local-limiter.ts';

const WINDOW_SECONDS = 60;

export interface MessageLimiterDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly plans: Plans;
  /** Who shares the limit while Redis cannot count it. */
  readonly nodes: { readonly alive: number };
  readonly clock: Clock;
  readonly logger: Logger;
}

export type RateDecision =
  | { readonly allowed: true; readonly degraded: boolean }
  | { readonly allowed: false; readonly degraded: boolean; readonly retryAfterMs: number };

/**
 * - `cluster`: Redis counts.
 * - `node`: Redis is away; this node grants its share.
 * - `both`: Redis is back, and other nodes may not have told it yet what they granted: it counts, but nobody gets more
 *   than this node's share.
 */
type CountedBy = 'cluster' | 'node' | 'both';

interface PlanLimiter {
  readonly limit: number;
  readonly shared: RateLimiterRedis;
}

interface Refusal {
  /** Refused without asking Redis until then. */
  readonly blockedUntil: number;
  readonly retryAt: number;
}

/**
 * A user who shouts costs Redis one command in this time. Not more: the refusal ends by Redis's time, and the clock of a
 * node that was set back would keep it up.
 */
const IN_MEMORY_BLOCK_MS = 1_000;
/** Users whose refusal is remembered; beyond it the oldest are asked for again. */
const MAX_BLOCKED_USERS = 10_000;
/** So often a node asks whether Redis is back, */
const PROBE_MS = 250;
/** and so long Redis has to answer. */
const ANSWER_MS = 1_000;
/** Nodes try to reach Redis once a second at least, and ask every `PROBE_MS`: after this, all that can have counted. */
const REJOIN_DELAY_MS = 2_000;
/** Counted at once on return: bounds what the end of an outage sets off. */
const COUNT_BATCH = 500;

/**
 * How many messages a user may send in a minute: one counter per user for the whole cluster, counted by Redis and its
 * clock. While Redis is away each node grants its share, the limit over the number of nodes, so that an outage neither
 * silences users nor opens the gate; when it is back, each node counts what it granted in the current minute before
 * anybody gets more than the share, so that nobody begins anew.
 */
export class MessageLimiter {
  readonly #deps: MessageLimiterDeps;
  /** By limit: plans with the same one share it. As many as there ever were limits, reloads of the plans included. */
  readonly #limiters = new Map<number, PlanLimiter>();
  readonly #perMinute: number;
  readonly #local: LocalLimiter;
  /** By plan and counter key, in the order in which they came. */
  readonly #refusals = new Map<string, Refusal>();
  readonly #closing = new AbortController();
  #countedBy: CountedBy = 'cluster';
  /** Nodes that shared the limit when Redis was last heard of. */
  #nodeCount = 1;

  constructor(deps: MessageLimiterDeps, options: { readonly perMinute: number }) {
    this.#deps = deps;
    this.#local = new LocalLimiter(deps, { windowMs: WINDOW_SECONDS * 1_000 });
    this.#perMinute = options.perMinute;
  }

  /** Messages a minute for a plan. */
  limitOf(plan: string): number {
    return this.#limiterOf(plan).limit;
  }

  /** Milliseconds for which this node knows the user to be over the limit, without asking Redis; 0 if it does not. */
  blockedInMemoryMs(userId: string, plan: string): number {
    const key = this.#deps.keys.user(userId).messageRate;
    const refusal = this.#refusals.get(refusalKey(key, plan));
    const now = this.#deps.clock.now();
    const refusedMs = clampRemaining(WINDOW_SECONDS * 1_000, (refusal?.retryAt ?? now) - now);
    // Nobody to ask: what Redis said last stands.
    if (this.#countedBy !== 'cluster')
      return Math.max(refusedMs, this.#local.refusalMs(key, this.#localAllowance(plan)));
    return clampRemaining(IN_MEMORY_BLOCK_MS, (refusal?.blockedUntil ?? now) - now) > 0 ? Math.max(1, refusedMs) : 0;
  }

  /** Counts one message of the user. One command to Redis, sent at once, or none for a user known to be over the limit. */
  async consume(userId: string, plan: string): Promise<RateDecision> {
    const blockedMs = this.blockedInMemoryMs(userId, plan);
    if (blockedMs > 0) return { allowed: false, degraded: this.#countedBy !== 'cluster', retryAfterMs: blockedMs };
    const key = this.#deps.keys.user(userId).messageRate;
    if (this.#countedBy === 'node') return this.#consumeLocally(key, plan);
    const degraded = this.#countedBy === 'both';
    if (degraded) this.#local.grant(key);
    const decision = await consumePoint(this.#limiterOf(plan).shared, key);
    if (decision instanceof Error) {
      this.#leaveCluster(decision);
      return degraded ? { allowed: true, degraded } : this.#consumeLocally(key, plan);
    }
    if (degraded) this.#local.counted(key, 1);
    if (!decision.allowed) this.#blockInMemory(refusalKey(key, plan), decision.retryAfterMs);
    return { ...decision, degraded };
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

  /** An outage is one line in the log, not one for every message. */
  #leaveCluster(failure: Error): void {
    const wasCounting = this.#countedBy === 'cluster';
    this.#countedBy = 'node';
    // Whoever failed while this node was on its way back: the way back begins anew.
    if (!wasCounting) return;
    this.#nodeCount = this.#deps.nodes.alive;
    this.#deps.logger.warn({ error: failure.message }, 'message limits are counted by this node alone');
    void this.#rejoinCluster();
  }

  /** Waits for Redis, counts there what was granted without it, and waits for the other nodes to have done the same. */
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

  /** Whether Redis counted all along; a method, since what it reads changes while `#return` waits. */
  #countedThroughout(): boolean {
    return this.#countedBy === 'both';
  }

  /** Adds to the cluster's counters what this node granted alone. */
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
    // Any of them: the counter is the user's, whatever the plan.
    const [limiter] = this.#limiters.values();
    try {
      const customDuration = Math.ceil(missed.remainingMs / 1_000);
      await limiter?.shared.penalty(missed.key, missed.messages, { customDuration });
      this.#local.counted(missed.key, missed.messages);
      return true;
    } catch (error) {
      this.#deps.logger.debug({ err: error }, 'messages of an outage were not counted yet');
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
      // No prefix of the library's own: the key is the user's, in the user's slot.
      keyPrefix: '',
      storeClient: this.#deps.redis,
      rejectIfRedisNotReady: true,
    });
    const limiter = { limit, shared };
    this.#limiters.set(limit, limiter);
    return limiter;
  }
}

/** What is left of a time of `maxMs`; nothing of more than that: then the clock was set back. */
function clampRemaining(maxMs: number, remainingMs: number): number {
  return remainingMs > maxMs ? 0 : Math.max(0, remainingMs);
}

/** A refusal is one by a plan's limit: it does not hold for the next plan. */
function refusalKey(counterKey: string, plan: string): string {
  return `${plan} ${counterKey}`;
}

export function messagesPerMinute(plan: Plan, perMinute: number): number {
  return Math.max(1, Math.floor(plan.multiplier * perMinute));
}

type Consumed = { readonly allowed: true } | { readonly allowed: false; readonly retryAfterMs: number };

/** The library rejects both for "over the limit" and for "the store failed"; here they are told apart, once. */
async function consumePoint(limiter: RateLimiterRedis, key: string): Promise<Consumed | Error> {
  try {
    await limiter.consume(key);
    return { allowed: true };
  } catch (rejection) {
    if (rejection instanceof RateLimiterRes) return { allowed: false, retryAfterMs: rejection.msBeforeNext };
    return rejection instanceof Error ? rejection : new Error(String(rejection));
  }
}
