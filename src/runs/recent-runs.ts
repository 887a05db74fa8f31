import type { Clock } from '../lib/clock.ts';
import type { RunLog } from './run-log.ts';

/** Time that the log of an ended run is kept. Redis loses at most the writes of the last seconds. */
const KEPT_MS = 60_000;
/** Bytes of events of ended runs that are kept. */
const KEPT_BYTES = 16 * 1024 * 1024;

interface EndedRun {
  readonly log: RunLog;
  readonly at: number;
  readonly size: number;
}

/**
 * The logs of the runs that this worker executes, and of those that it ended in the last minute. After each reconnect
 * to Redis it confirms all of them, so that a Redis that lost acknowledged events has them again.
 */
export class RecentRuns {
  readonly #clock: Pick<Clock, 'now'>;
  readonly #running = new Set<RunLog>();
  readonly #ended: EndedRun[] = [];
  #bytes = 0;
  #isConfirming = false;

  constructor(clock: Pick<Clock, 'now'>) {
    this.#clock = clock;
  }

  started(log: RunLog): void {
    this.#running.add(log);
  }

  ended(log: RunLog): void {
    this.#running.delete(log);
    const { size } = log;
    this.#ended.push({ log, at: this.#clock.now(), size });
    this.#bytes += size;
    this.#removeOld();
  }

  /** @param onError called for a run that could not be confirmed: Redis is unavailable again */
  async confirmAll(onError: (error: unknown) => void): Promise<void> {
    if (this.#isConfirming) return;
    this.#isConfirming = true;
    this.#removeOld();
    const logs = [...this.#running, ...this.#ended.map(({ log }) => log)];
    for (const log of logs) await log.confirm().catch(onError);
    this.#isConfirming = false;
  }

  #removeOld(): void {
    const now = this.#clock.now();
    for (let oldest = this.#ended[0]; oldest; oldest = this.#ended[0]) {
      if (this.#bytes <= KEPT_BYTES && now - oldest.at <= KEPT_MS) return;
      this.#ended.shift();
      this.#bytes -= oldest.size;
    }
  }
}
