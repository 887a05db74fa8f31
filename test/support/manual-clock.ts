import type { Clock } from '../../src/lib/clock.ts';

interface Timer {
  at: number;
  readonly task: () => void;
  readonly everyMs: number | undefined;
}

/** A clock that stands still until a test advances it. */
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
   * Advances the time, and runs due timers in order. Work on real sockets that a timer starts continues after this
   * returns; a test that depends on it waits for it.
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

  /** Sets the wall clock, like a change of a machine's clock: timers keep their remaining time. */
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
