import type { EventEmitter } from 'node:events';
import type { Metrics } from '../lib/metrics.ts';

/**
 * Minimum duration of a long task, in milliseconds of wall time. Input is bounded to 64 KiB and 50 µs per kB
 * (docs/security.md), so the input of a client causes at most 3 ms; garbage collection or a busy machine may double it.
 */
export const LONG_TASK_MS = 10;

/** The event that started a task. */
export type TaskSurface = 'upgrade' | 'http' | 'http_body' | 'polling' | 'websocket';
export const TASK_SURFACES: readonly TaskSurface[] = ['upgrade', 'http', 'http_body', 'polling', 'websocket'];

/** A task and the client address of its input; `address` is called for long tasks only. */
export interface Task {
  readonly surface: TaskSurface;
  readonly address: () => string;
}

export interface LongTasksDeps {
  readonly failures: { blocked(address: string, ms: number): void };
  readonly metrics: Pick<Metrics, 'longTasks'>;
}

/**
 * Measures how long the input of one address occupies the event loop. Measures only synchronous work, from the event
 * with the input to the return of its listeners: work after an `await` cannot be attributed to an address. Costs two
 * clock readings per event, some 0.1 µs.
 */
export class LongTasks {
  readonly #deps: LongTasksDeps;

  constructor(deps: LongTasksDeps) {
    this.#deps = deps;
  }

  run<T>(task: Task, work: () => T): T {
    const startedAt = performance.now();
    try {
      return work();
    } finally {
      this.#ended(task, startedAt);
    }
  }

  /** Measures the current listeners of `emitter` for `event`, at each event. */
  watch(emitter: EventEmitter, event: string, task: Task): void {
    let startedAt = 0;
    emitter.prependListener(event, () => {
      startedAt = performance.now();
    });
    emitter.on(event, () => this.#ended(task, startedAt));
  }

  /**
   * Measures all listeners of the next `event`, including those added later: Engine.IO 6.6.13 adds its own in a
   * microtask. The measurement ends in the tick after the emission.
   */
  watchNext(emitter: EventEmitter, event: string, task: Task): void {
    emitter.prependOnceListener(event, () => {
      const startedAt = performance.now();
      process.nextTick(() => this.#ended(task, startedAt));
    });
  }

  #ended({ surface, address }: Task, startedAt: number): void {
    const ms = performance.now() - startedAt;
    if (ms < LONG_TASK_MS) return;
    this.#deps.metrics.longTasks.inc({ surface });
    this.#deps.failures.blocked(address(), ms);
  }
}
