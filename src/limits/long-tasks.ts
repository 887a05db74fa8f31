import type { EventEmitter } from 'node:events';
import type { Metrics } from '../lib/metrics.ts';

/**
 * A task that is longer than this is a long one, in milliseconds of wall time. Input is bounded to 64 KiB and 50 µs per kB
 * (docs/security.md), so that what a client can cause takes 3 ms; a garbage collection or a busy machine may double it.
 */
export const LONG_TASK_MS = 10;

/** Where a task began. */
export type TaskSurface = 'upgrade' | 'http' | 'http_body' | 'polling' | 'websocket';
export const TASK_SURFACES: readonly TaskSurface[] = ['upgrade', 'http', 'http_body', 'polling', 'websocket'];

/** A task, and the address that its input came from; the address is computed for long tasks only. */
export interface Task {
  readonly surface: TaskSurface;
  readonly address: () => string;
}

export interface LongTasksDeps {
  readonly failures: { blocked(address: string, ms: number): void };
  readonly metrics: Pick<Metrics, 'longTasks'>;
}

/**
 * Measures how long the event loop is kept by the input of one address. Only synchronous work is measured, from the event
 * that brought the input to the return of its listeners: what runs after an `await` cannot be told apart from the work for
 * others. Two readings of the clock per event, some 0.1 µs.
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

  /** Measures the listeners that `emitter` has for `event` so far, at each of its events. */
  watch(emitter: EventEmitter, event: string, task: Task): void {
    let startedAt = 0;
    emitter.prependListener(event, () => {
      startedAt = performance.now();
    });
    emitter.on(event, () => this.#ended(task, startedAt));
  }

  /**
   * Measures all listeners of the next `event`, also those that are added later: Engine.IO 6.6.13 adds its own in a
   * microtask. The measurement ends with the emission, in the tick after it.
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
