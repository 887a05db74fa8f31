/** Node timers have millisecond resolution. An iteration that became due between two ticks keeps its exact due time. */
const TICK_MS = 2;

/**
 * Open-loop arrivals: iterations become due at random moments of a given mean rate (a Poisson process), whether or not
 * earlier ones have ended. A closed loop delays the next request while the server is slow, so it measures least when
 * latency is worst (coordinated omission). For the same reason the callback receives the time at which the iteration
 * was due, not the time of the call.
 */
export class Arrivals {
  readonly #meanGapMs: number;
  readonly #due: (dueAt: number) => void;
  #next = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(perSecond: number, due: (dueAt: number) => void) {
    this.#meanGapMs = 1_000 / perSecond;
    this.#due = due;
  }

  start(): void {
    this.#next = performance.now() + this.#gapMs();
    this.#timer = setInterval(() => this.#catchUp(), TICK_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #catchUp(): void {
    for (const now = performance.now(); this.#next <= now; this.#next += this.#gapMs()) this.#due(this.#next);
  }

  #gapMs(): number {
    return -Math.log(1 - Math.random()) * this.#meanGapMs;
  }
}
