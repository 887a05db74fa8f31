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

type Listener = (this: WatchedEmitter, ...args: unknown[]) => void;

/** Input that occurs repeatedly, such as the reads of a socket. */
interface WatchedInput {
  readonly surface: TaskSurface;
  readonly address: string;
}

const INPUT = Symbol('watched input');

interface WatchedEmitter extends EventEmitter {
  [INPUT]?: WatchedInput;
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
  /** Measured forms of listeners. The listeners of libraries are functions of their modules, so there are few. */
  readonly #measured = new WeakMap<Listener, Listener>();

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

  /**
   * Measures each current listener of `emitter`, added with `on`, at each event. Replaces them, as two further
   * listeners would cost 250 bytes per connection, and a copy of the list per event. The replacement is shared by all
   * emitters, and `removeListener` accepts the original.
   */
  watch(emitter: WatchedEmitter, event: string, input: WatchedInput): void {
    emitter[INPUT] = input;
    for (const listener of emitter.listeners(event) as Listener[]) {
      emitter.off(event, listener).on(event, this.#measuredForm(listener));
    }
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

  #measuredForm(listener: Listener): Listener {
    const known = this.#measured.get(listener);
    if (known) return known;
    const ended = (input: WatchedInput | undefined, startedAt: number) => {
      const ms = performance.now() - startedAt;
      if (input && ms >= LONG_TASK_MS) this.#record(input, ms);
    };
    function measured(this: WatchedEmitter, ...args: unknown[]): void {
      const startedAt = performance.now();
      try {
        listener.apply(this, args);
      } finally {
        ended(this[INPUT], startedAt);
      }
    }
    // Node finds a wrapped listener by this property, as it does for `once`.
    const replacement = Object.assign(measured, { listener });
    this.#measured.set(listener, replacement);
    return replacement;
  }

  #ended({ surface, address }: Task, startedAt: number): void {
    const ms = performance.now() - startedAt;
    if (ms >= LONG_TASK_MS) this.#record({ surface, address: address() }, ms);
  }

  #record({ surface, address }: WatchedInput, ms: number): void {
    this.#deps.metrics.longTasks.inc({ surface });
    this.#deps.failures.blocked(address, ms);
  }
}
