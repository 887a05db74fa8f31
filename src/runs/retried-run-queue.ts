import type { AgentRunJob } from '../jobs.ts';
import { type Clock, elapsedSince } from '../lib/clock.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import type { RunQueue } from './run-queue.ts';

/** Jobs that are kept. Those that fail while as many are kept wait for a repeated request. */
const MAX_KEPT = 1_000;
const CHECK_EVERY_MS = 1_000;
const AT_ONCE = 100;
/** A command that this process has given up can still arrive: its bytes are with a suspended Redis, or on their way. */
const KEPT_MS = 60_000;

export interface RetriedRunQueueDeps {
  readonly queue: RunQueue;
  readonly redis: Redis;
  readonly keys: Keys;
  readonly clock: Clock;
}

interface Kept {
  readonly job: AgentRunJob;
  readonly at: number;
}

/**
 * A run queue that adds a job again if that failed and its run needs it. A run and its job are stored by two commands,
 * on a Redis Cluster in two shards, so Redis can store the run only: out of memory or disk, paused, or disconnected
 * between the two. Such a run would count as in flight and end with RUN_TIMEOUT.
 */
export class RetriedRunQueue implements RunQueue {
  readonly #deps: RetriedRunQueueDeps;
  readonly #kept = new Map<string, Kept>();
  #isChecking = false;
  #stop: () => void = () => undefined;

  constructor(deps: RetriedRunQueueDeps) {
    this.#deps = deps;
  }

  start(): void {
    this.#stop = this.#deps.clock.every(CHECK_EVERY_MS, () => void this.#check());
  }

  stop(): void {
    this.#stop();
  }

  async add(job: AgentRunJob): Promise<void> {
    try {
      await this.#deps.queue.add(job);
    } catch (error) {
      if (this.#kept.size < MAX_KEPT) this.#kept.set(job.run_id, { job, at: this.#deps.clock.now() });
      throw error;
    }
  }

  /** Never rejects. */
  async #check(): Promise<void> {
    if (this.#isChecking || this.#kept.size === 0) return;
    this.#isChecking = true;
    try {
      const all = [...this.#kept.values()];
      for (let from = 0; from < all.length; from += AT_ONCE) {
        // A failure leaves the job for the next check: Redis is still unavailable.
        await Promise.all(all.slice(from, from + AT_ONCE).map((kept) => this.#retry(kept).catch(() => undefined)));
      }
    } finally {
      this.#isChecking = false;
    }
  }

  async #retry({ job, at }: Kept): Promise<void> {
    const { queue, redis, keys, clock } = this.#deps;
    const status = await redis.hget(keys.user(job.user_id).run(job.run_id), 'status');
    // A second job of a run has no effect. A run in any other state has been received by a worker, or needs no job.
    if (status === 'queued') await queue.add(job);
    if (status !== null || elapsedSince(clock, at) > KEPT_MS) this.#kept.delete(job.run_id);
  }
}
