import { type Clock, sleep } from '../src/lib/clock.ts';
import type { Logger } from '../src/lib/logger.ts';
import type { Redis } from '../src/redis/client.ts';
import type { Keys } from '../src/redis/keys.ts';
import { integer, text, tuple } from '../src/redis/replies.ts';
import { LuaScript } from '../src/redis/scripts.ts';
import { CLOSE_TIMEOUT_MS } from './queue-workers.ts';

const takeTasks = LuaScript.load('takeTasks-1', tuple([integer], text));

/** Wait while no task can be taken: all of them run in this process, or Redis is unavailable. */
const RETRY_MS = 500;

/** Work that one of the workers does at fixed intervals. */
export interface PeriodicTask {
  readonly name: string;
  readonly everyMs: number;
  /**
   * Must be safe to run on several workers at once: a run that takes longer than the period overlaps with one on
   * another worker. One worker never runs it twice at once.
   */
  run(): Promise<unknown>;
}

interface PeriodicTasksDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Runs periodic tasks, distributed over all workers of a deployment: per period, one worker runs each task. The due
 * times are in Redis. A worker asks for them with one script when the next task is due, so an idle deployment sends a
 * script per period of its shortest task, whatever the number of tasks.
 */
export class PeriodicTasks {
  readonly #deps: PeriodicTasksDeps;
  readonly #tasks: readonly PeriodicTask[];
  readonly #running = new Map<string, Promise<void>>();
  readonly #closing = new AbortController();
  #loop: Promise<void> | undefined;

  constructor(deps: PeriodicTasksDeps, tasks: readonly PeriodicTask[]) {
    this.#deps = deps;
    this.#tasks = tasks;
  }

  start(): void {
    this.#loop ??= this.#runUntilClosed();
  }

  /** Takes no more tasks, and waits for those in progress, at most `CLOSE_TIMEOUT_MS`. Never rejects. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#loop;
    await Promise.race([Promise.all(this.#running.values()), sleep(this.#deps.clock, CLOSE_TIMEOUT_MS)]);
  }

  async #runUntilClosed(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) await sleep(this.#deps.clock, await this.#takeDue(), signal);
  }

  /** Starts the tasks that are due. Returns the milliseconds until the next one is. */
  async #takeDue(): Promise<number> {
    const { redis, keys, logger } = this.#deps;
    const free = this.#tasks.filter(({ name }) => !this.#running.has(name));
    if (free.length === 0) return RETRY_MS;
    try {
      const args = free.flatMap(({ name, everyMs }) => [name, everyMs]);
      const [waitMs, ...names] = await takeTasks.run(redis, [keys.periodicTasks], args);
      // A task that was taken during the close waits for its next period, on another worker.
      if (!this.#closing.signal.aborted) {
        for (const task of free) if (names.includes(task.name)) this.#run(task);
      }
      return Math.min(Math.max(waitMs, 1), RETRY_MS);
    } catch (error) {
      logger.debug({ err: error }, 'taking periodic tasks failed, retrying');
      return RETRY_MS;
    }
  }

  #run({ name, run }: PeriodicTask): void {
    const running = run()
      .then(
        () => undefined,
        (error: Error) => this.#deps.logger.warn({ task: name, error: error.message }, 'periodic task failed'),
      )
      .finally(() => this.#running.delete(name));
    this.#running.set(name, running);
  }
}
