import type { Clock } from '../lib/clock.ts';
import type { RunLog } from './run-log.ts';

/** Time that the log of an ended run is kept. Redis loses at most the writes of the last seconds. */
const KEPT_MS = 60_000;
/** Bytes of events of ended runs that are kept. */
const KEPT_BYTES = 16 * 1024 * 1024;

type Log = Pick<RunLog, 'confirm' | 'size'>;

interface EndedRun {
  readonly log: Log;
  readonly at: number;
  readonly size: number;
}

/**
 * The logs of the runs that this worker executes, and of those that it ended in the last minute. After each reconnect
 * to Redis it confirms all of them, so that a Redis that lost acknowledged events has them again.
 */
export class RecentRuns {
  readonly #clock: Pick<Clock, 'now'>;
  readonly #running = new Set<Log>();
  readonly #ended: EndedRun[] = [];
  #bytes = 0;
  #isConfirming = false;
  /** Whether a reconnect has not been followed by a complete confirmation. */
  #isDue = false;

  constructor(clock: Pick<Clock, 'now'>) {
    this.#clock = clock;
  }

  started(log: Log): void {
    this.#running.add(log);
  }

  ended(log: Log): void {
    this.#running.delete(log);
    const { size } = log;
    this.#ended.push({ log, at: this.#clock.now(), size });
    this.#bytes += size;
    this.#removeOld();
  }

  /**
   * Confirms all runs. A call while another one is in progress lets that one begin again: Redis may have lost a second
   * time what is confirmed already.
   * @param onError called for a run that could not be confirmed: Redis is unavailable again
   */
  async confirmAll(onError: (error: unknown) => void): Promise<void> {
    this.#isDue = true;
    if (this.#isConfirming) return;
    this.#isConfirming = true;
    while (this.#isDue) {
      this.#isDue = false;
      this.#removeOld();
      for (const log of [...this.#running, ...this.#ended.map(({ log }) => log)]) {
        await log.confirm().catch(onError);
        if (this.#isDue) break;
      }
    }
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
