import type { Clock } from './clock.ts';

/** One call in five may be repeated, so that an outage adds a fifth to the load at most. */
const PER_CALL = 0.2;
/** And a few a second, for processes that call so rarely that a share of their calls is nothing. */
const PER_SECOND = 2;
const MOST = 10;

/** How often calls may be repeated: a token bucket that fills with the calls made and, slowly, with time. */
export class RetryBudget {
  readonly #clock: Clock;
  #tokens = MOST;
  #filledAt: number;

  constructor({ clock }: { clock: Clock }) {
    this.#clock = clock;
    this.#filledAt = clock.now();
  }

  /** A call is made for the first time. */
  called(): void {
    this.#add(PER_CALL);
  }

  /** Whether one call may be repeated now. */
  consume(): boolean {
    const now = this.#clock.now();
    // A clock that was set back adds nothing.
    this.#add((Math.max(now - this.#filledAt, 0) / 1000) * PER_SECOND);
    this.#filledAt = now;
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }

  #add(tokens: number): void {
    this.#tokens = Math.min(this.#tokens + tokens, MOST);
  }
}
