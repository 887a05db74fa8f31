import type { Clock } from './clock.ts';

/** Retries per call: one call in five may be repeated, so that an outage increases the load by at most a fifth. */
const PER_CALL = 0.2;
/** Additional retries per second, for processes with so few calls that their share would be close to zero. */
const PER_SECOND = 2;
/** Capacity of the bucket. */
const CAPACITY = 10;

/** Limits retries with a token bucket that fills with each call and, slowly, with time. */
export class RetryBudget {
  readonly #clock: Clock;
  #tokens = CAPACITY;
  #filledAt: number;

  constructor({ clock }: { clock: Clock }) {
    this.#clock = clock;
    this.#filledAt = clock.now();
  }

  /** Records the first attempt of a call. */
  called(): void {
    this.#add(PER_CALL);
  }

  /** Consumes one retry. Returns false if the budget is exhausted. */
  consume(): boolean {
    const now = this.#clock.now();
    // If the clock was set back, no time has passed.
    this.#add((Math.max(now - this.#filledAt, 0) / 1000) * PER_SECOND);
    this.#filledAt = now;
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }

  #add(tokens: number): void {
    this.#tokens = Math.min(this.#tokens + tokens, CAPACITY);
  }
}
