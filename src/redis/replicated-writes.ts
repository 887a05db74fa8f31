import type { Logger } from '../lib/logger.ts';
import type { Redis } from './client.ts';
import { redisError } from './errors.ts';
import type { LuaScript, ScriptArgument, ScriptReply } from './scripts.ts';

/** Scripts of one flight; more wait for the next, which leaves when this one is answered. */
const MAX_FLIGHT = 500;

export interface ReplicatedWritesOptions {
  /** Replicas that shall have a write before it is answered. */
  readonly replicas: number;
  /** Milliseconds that are waited for them. */
  readonly timeoutMs: number;
}

/** What happened to a write, beside its answer. */
export interface ReplicationWatch {
  /** Counts writes that fewer replicas had in time. */
  readonly unreplicated: { inc(count: number): void };
  readonly logger: Logger;
}

interface Write {
  readonly script: LuaScript;
  readonly keys: readonly string[];
  readonly args: readonly ScriptArgument[];
  readonly resolve: (reply: ScriptReply) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Scripts whose writes replicas shall have before they are answered: `WAIT` goes in the same flight, behind the script, so
 * that it costs no round trip of its own, only the replicas' answer.
 *
 * It has a connection of its own, since WAIT holds back everything that is sent behind it. What comes while a flight is
 * under way leaves together with the next: a replica that does not answer makes writes late by two time-outs at most,
 * however many there are. When the time is up the write stands all the same: Redis has made it, and cannot take it back.
 *
 * For scripts that do nothing the second time: whoever gets no answer sends them again, and may find them done.
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

  /** @throws TollgateError OVERLOADED while Redis is away; Error when the script itself fails */
  run(script: LuaScript, keys: readonly string[], args: readonly ScriptArgument[]): Promise<ScriptReply> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ script, keys, args, resolve, reject });
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
    // All of them on their way before the first is awaited; every script is known to the server (see `loadScripts`).
    const sent = writes.map(({ script, keys, args }) => script.run(this.#redis, keys, args));
    const [reached, ...replies] = await Promise.allSettled([this.#redis.wait(replicas, timeoutMs), ...sent]);
    if (reached.status === 'fulfilled') this.#note(reached.value, writes.length);
    for (const [at, { resolve, reject }] of writes.entries()) {
      const reply = replies[at];
      if (reply?.status === 'rejected') reject(reply.reason);
      // Redis died while the replicas were waited for: what it had answered may be gone with it, and is made again.
      else if (reached.status === 'rejected') reject(redisError(reached.reason));
      else resolve(reply?.value ?? null);
    }
  }

  /** The log says when it begins and when it is over; the metric has each write. */
  #note(reached: number, writes: number): void {
    const { replicas } = this.#options;
    const short = reached < replicas;
    if (short) this.#watch.unreplicated.inc(writes);
    if (short && !this.#short)
      this.#watch.logger.warn({ reached, replicas }, 'writes do not reach the replicas in time');
    if (!short && this.#short) this.#watch.logger.info({ replicas }, 'writes reach the replicas again');
    this.#short = short;
  }
}
