import type { Clock } from '../../lib/clock.ts';
import type { Ledger } from './ledger.ts';

/** Poll interval. The ledger grows about twice per second. */
const LOOK_EVERY_MS = 250;

interface Waiter {
  readonly sequence: number;
  readonly wake: () => void;
}

export interface LedgerTailDeps {
  readonly ledger: Pick<Ledger, 'head'>;
  readonly clock: Clock;
}

/**
 * Wakes readers that wait for the ledger to grow. One request per `LOOK_EVERY_MS` serves all of them, over the shared
 * connection. Without readers no requests are sent.
 */
export class LedgerTail {
  readonly #deps: LedgerTailDeps;
  readonly #maxWaiting: number;
  readonly #waiting = new Set<Waiter>();
  #stop: (() => void) | undefined;
  #looking = false;

  /** @param options.maxWaiting maximum number of waiting readers on this node */
  constructor(deps: LedgerTailDeps, { maxWaiting }: { readonly maxWaiting: number }) {
    this.#deps = deps;
    this.#maxWaiting = maxWaiting;
  }

  get full(): boolean {
    return this.#waiting.size >= this.#maxWaiting;
  }

  /** Resolves when the ledger has a record after `sequence`, after `timeoutMs`, or when `signal` aborts. */
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
      const cancel = this.#deps.clock.after(timeoutMs, wake);
      const waiter = { sequence, wake };
      signal.addEventListener('abort', wake, { once: true });
      this.#waiting.add(waiter);
      this.#stop ??= this.#deps.clock.every(LOOK_EVERY_MS, () => void this.#look());
    });
  }

  async #look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    try {
      const { sequence } = await this.#deps.ledger.head();
      for (const waiter of [...this.#waiting]) if (waiter.sequence < sequence) waiter.wake();
    } catch {
      // Redis is unavailable. A waiting reader reads after its timeout and then receives the error.
    } finally {
      this.#looking = false;
    }
  }

  #rest(): void {
    this.#stop?.();
    this.#stop = undefined;
  }
}
