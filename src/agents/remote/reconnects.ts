import { type Clock, sleep } from '../../lib/clock.ts';
import { RemoteFault } from './fault.ts';

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 5_000;
const MAX_FAILURES = 5;
/** Faults after which a stream can be continued. */
const TRANSIENT: ReadonlySet<string> = new Set([
  'interrupted',
  'timeout',
  'unreachable',
  'unavailable',
  'rate_limited',
  'breaker_open',
]);

/** Waits between the connections to one stream, and gives up after `MAX_FAILURES` without news. */
export class Reconnects {
  readonly #clock: Clock;
  readonly #signal: AbortSignal;
  #failures = 0;
  #waits = 0;

  constructor(clock: Clock, signal: AbortSignal) {
    this.#clock = clock;
    this.#signal = signal;
  }

  /** Call it when something new arrived. */
  progress(): void {
    this.#failures = 0;
    this.#waits = 0;
  }

  /** Waits before the next connection. @throws the error if another connection cannot help */
  async after(thrown: unknown): Promise<void> {
    if (!(thrown instanceof RemoteFault) || !TRANSIENT.has(thrown.reason)) throw thrown;
    this.#failures += 1;
    if (this.#failures > MAX_FAILURES) throw thrown;
    await this.pause(thrown.details.retryAfterMs);
  }

  /** Waits; longer each time until there is progress. @throws the reason of the aborted signal */
  async pause(atLeastMs = 0): Promise<void> {
    const backOffMs = Math.min(FIRST_WAIT_MS * 2 ** this.#waits, LONGEST_WAIT_MS);
    this.#waits += 1;
    await sleep(this.#clock, Math.max(Math.min(atLeastMs, 60_000), backOffMs), this.#signal);
    this.#signal.throwIfAborted();
  }
}
