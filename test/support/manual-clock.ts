import type { Clock } from '../../src/lib/clock.ts';

interface Timer {
  at: number;
  readonly task: () => void;
  readonly everyMs: number | undefined;
}

/** Time that stands still until a test moves it. */
export class ManualClock implements Clock {
  #now: number;
  readonly #timers = new Set<Timer>();

  constructor(now = Date.now()) {
    this.#now = now;
  }

  now(): number {
    return this.#now;
  }

  after(delayMs: number, task: () => void): () => void {
    return this.#add({ at: this.#now + Math.max(delayMs, 0), task, everyMs: undefined });
  }

  every(periodMs: number, task: () => void): () => void {
    return this.#add({ at: this.#now + periodMs, task, everyMs: periodMs });
  }

  /**
   * Moves the time, and runs what becomes due in the order of its time. What a task leaves to real sockets goes on after
   * this has returned: a test that depends on it waits for it.
   */
  advance(byMs: number): void {
    const end = this.#now + byMs;
    for (;;) {
      const next = this.#first();
      if (!next || next.at > end) break;
      this.#now = Math.max(this.#now, next.at);
      if (next.everyMs === undefined) this.#timers.delete(next);
      else next.at += next.everyMs;
      next.task();
    }
    this.#now = end;
  }

  /** Sets the clock, as somebody may set a machine's: timers go on for as long as they would have. */
  set(byMs: number): void {
    this.#now += byMs;
    for (const timer of this.#timers) timer.at += byMs;
  }

  #first(): Timer | undefined {
    let first: Timer | undefined;
    for (const timer of this.#timers) if (!first || timer.at < first.at) first = timer;
    return first;
  }

  #add(timer: Timer): () => void {
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }
}
