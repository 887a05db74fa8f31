import type { Clock } from '../../lib/clock.ts';
import type { Ledger } from './ledger.ts';

/** The ledger itself moves about twice a second. */
const LOOK_EVERY_MS = 250;

interface Waiter {
  readonly sequence: number;
  readonly wake: () => void;
}

/**
 * Readers that wait for the ledger to grow. One question every quarter of a second serves all of them, over the
 * connection that everything else uses; without readers nothing is asked.
 */
export class LedgerTail {
  readonly #ledger: Pick<Ledger, 'head'>;
  readonly #clock: Clock;
  readonly #maxWaiting: number;
  readonly #waiting = new Set<Waiter>();
  #stop: (() => void) | undefined;
  #looking = false;

  /** @param options.maxWaiting how many may wait on this node */
  constructor(
    { ledger, clock }: { readonly ledger: Pick<Ledger, 'head'>; readonly clock: Clock },
    { maxWaiting }: { readonly maxWaiting: number },
  ) {
    this.#ledger = ledger;
    this.#clock = clock;
    this.#maxWaiting = maxWaiting;
  }

  get full(): boolean {
    return this.#waiting.size >= this.#maxWaiting;
  }

  /** Resolves when the ledger has a record after `sequence`, after `patienceMs`, or when `signal` aborts. */
  beyond(sequence: number, timeoutMs: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const wake = () => {
        cancel();
        signal.removeEventListener('abort', wake);
        this.#waiting.delete(waiter);
        if (this.#waiting.size === 0) this.#rest();
        resolve();
      };
      const cancel = this.#clock.after(timeoutMs, wake);
      const waiter = { sequence, wake };
      signal.addEventListener('abort', wake, { once: true });
      this.#waiting.add(waiter);
      this.#stop ??= this.#clock.every(LOOK_EVERY_MS, () => void this.#look());
    });
  }

  async #look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    try {
      const { sequence } = await this.#ledger.head();
      for (const waiter of [...this.#waiting]) if (waiter.sequence < sequence) waiter.wake();
    } catch {
      // Redis is away: who waits reads when its time is up, and is told then.
    } finally {
      this.#looking = false;
    }
  }

  #rest(): void {
    this.#stop?.();
    this.#stop = undefined;
  }
}
