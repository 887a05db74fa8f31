/** Timers of Node are exact to a millisecond; what came due between two of them begins with the time it was due. */
const TICK_MS = 2;

/**
 * An open loop: turns come at random moments of a given mean rate (a Poisson process), whether or not those before them
 * have ended. A closed loop, where a slow answer keeps the next question back, asks least while the server is slowest:
 * the omission that makes figures look good. For the same reason each turn is told the moment it was due and not the
 * moment at which somebody got around to it.
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
