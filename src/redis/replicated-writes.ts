import type { Logger } from '../lib/logger.ts';
import type { Redis } from './client.ts';
import { redisError } from './errors.ts';
import type { LuaScript, ScriptArgument } from './scripts.ts';

/**
 * Maximum number of scripts per batch. Further scripts wait for the next batch, which is sent after the current one is
 * answered.
 */
const MAX_FLIGHT = 500;

export interface ReplicatedWritesOptions {
  /** Number of replicas that must acknowledge a write before the caller receives the reply. */
  readonly replicas: number;
  /** Milliseconds to wait for the replicas. */
  readonly timeoutMs: number;
}

/** Reports writes that were not replicated in time. */
export interface ReplicationWatch {
  /** Counts the writes that too few replicas acknowledged in time. */
  readonly unreplicated: { inc(count: number): void };
  readonly logger: Logger;
}

/** A script to run, and its caller. */
interface Write {
  /** Sends the script and returns its reply. */
  readonly send: () => Promise<unknown>;
  /** Passes the reply or the error of the script to the caller. */
  readonly complete: () => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Runs scripts and waits until replicas have acknowledged their writes. `WAIT` is sent together with the scripts,
 * behind them, so it adds no round trip, only the latency of the replicas.
 *
 * `WAIT` blocks every command behind it on the same connection, so this class needs a dedicated connection. Scripts
 * that arrive while a batch is pending are sent together in the next batch. An unresponsive replica therefore delays a
 * write by at most two timeouts, however many writes there are. After the timeout the write remains valid: Redis has
 * executed it and cannot undo it.
 *
 * The scripts must be idempotent: a caller without a reply sends the script again, and the first attempt may have
 * succeeded.
 */
export class ReplicatedWrites {
  readonly #redis: Redis;
  readonly #watch: ReplicationWatch;
  readonly #options: ReplicatedWritesOptions;
  #waiting: Write[] = [];
  #flying = false;
  #short = false;

  constructor(redis: Redis, watch: ReplicationWatch, options: ReplicatedWritesOptions) {
    this.#redis = redis;
    this.#watch = watch;
    this.#options = options;
  }

  /** @throws RedisUnavailable; Error when the script itself fails */
  run<Reply>(script: LuaScript<Reply>, keys: readonly string[], args: readonly ScriptArgument[]): Promise<Reply> {
    return new Promise((resolve, reject) => {
      let reply: Promise<Reply>;
      const send = () => {
        reply = script.run(this.#redis, keys, args);
        return reply;
      };
      this.#waiting.push({ send, complete: () => resolve(reply), reject });
      if (!this.#flying) void this.#fly();
    });
  }

  /** Never rejects. */
  async #fly(): Promise<void> {
    this.#flying = true;
    while (this.#waiting.length > 0) await this.#send(this.#waiting.splice(0, MAX_FLIGHT));
    this.#flying = false;
  }

  async #send(writes: readonly Write[]): Promise<void> {
    const { replicas, timeoutMs } = this.#options;
    // All scripts are sent before the first reply is awaited. Every script is loaded on the server (see `loadScripts`).
    const sent = writes.map(({ send }) => send());
    const [reached, ...replies] = await Promise.allSettled([this.#redis.wait(replicas, timeoutMs), ...sent]);
    if (reached.status === 'fulfilled') this.#note(reached.value, writes.length);
    for (const [at, { complete, reject }] of writes.entries()) {
      // Redis failed while it waited for the replicas. Its writes may be lost, so the caller has to repeat them.
      const isUnconfirmed = reached.status === 'rejected' && replies[at]?.status === 'fulfilled';
      if (isUnconfirmed) reject(redisError(reached.reason));
      else complete();
    }
  }

  /** Logs only the begin and the end of a period without replication. The metric counts each write. */
  #note(reached: number, writes: number): void {
    const { replicas } = this.#options;
    const short = reached < replicas;
    if (short) this.#watch.unreplicated.inc(writes);
    if (short && !this.#short)
      this.#watch.logger.warn({ reached, replicas }, 'replicas do not acknowledge writes in time');
    if (!short && this.#short) this.#watch.logger.info({ replicas }, 'replicas acknowledge writes again');
    this.#short = short;
  }
}
