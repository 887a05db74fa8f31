import type { Clock } from '../src/lib/clock.ts';

/** Enough for a mean of mixed runs; a worker with 50 slots ends as many within seconds under load. */
const KEPT = 100;

/**
 * Mean time for which a run occupies a slot of this worker, over the latest `KEPT` runs. A run in progress counts with
 * its time so far once that exceeds the mean of the ended ones: when a model or a tool stops answering, the mean rises
 * before the first slow run has ended.
 */
export class RunDurations {
  readonly #clock: Pick<Clock, 'now'>;
  readonly #longestMs: number;
  readonly #ended: number[] = [];
  /** When each run in progress began. The concurrency of the worker bounds it. */
  readonly #inProgress = new Set<{ readonly startedAt: number }>();

  /** @param longestMs bound of a duration, so that a clock that is set forward cannot distort the mean */
  constructor(deps: { readonly clock: Pick<Clock, 'now'> }, options: { readonly longestMs: number }) {
    this.#clock = deps.clock;
    this.#longestMs = options.longestMs;
  }

  /** Runs in progress. */
  get executing(): number {
    return this.#inProgress.size;
  }

  /** Milliseconds; undefined before the first run. */
  get meanMs(): number | undefined {
    const mean = meanOf(this.#ended);
    const running = [...this.#inProgress].map((run) => this.#durationOf(run));
    return meanOf([...this.#ended, ...running.filter((ms) => mean === undefined || ms > mean)]);
  }

  /** Measures the work of one run, whether it succeeds or fails. */
  async measure<T>(work: () => Promise<T>): Promise<T> {
    const run = { startedAt: this.#clock.now() };
    this.#inProgress.add(run);
    try {
      return await work();
    } finally {
      this.#inProgress.delete(run);
      this.#ended.push(this.#durationOf(run));
      if (this.#ended.length > KEPT) this.#ended.shift();
    }
  }

  #durationOf({ startedAt }: { readonly startedAt: number }): number {
    return Math.min(Math.max(this.#clock.now() - startedAt, 0), this.#longestMs);
  }
}

function meanOf(values: readonly number[]): number | undefined {
  return values.length === 0 ? undefined : values.reduce((sum, value) => sum + value, 0) / values.length;
}
