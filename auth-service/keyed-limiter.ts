import { TollgateError } from '../src/protocol/errors.ts';

export interface KeyedLimiterOptions {
  /** Maximum number of running tasks. */
  readonly concurrency: number;
  /** Maximum number of waiting tasks; further ones are rejected. */
  readonly waiting: number;
}

/** Runs tasks in order of arrival, but never two with the same key at once. Running and waiting tasks are bounded. */
export class KeyedLimiter {
  readonly #options: KeyedLimiterOptions;
  readonly #running = new Set<string>();
  readonly #waiting: { readonly key: string; readonly start: () => void }[] = [];

  constructor(options: KeyedLimiterOptions) {
    this.#options = options;
  }

  /** @throws TollgateError OVERLOADED, without starting the task, if too many wait */
  async run<T>(key: string, task: () => Promise<T>): Promise<T> {
    await this.#acquire(key);
    try {
      return await task();
    } finally {
      this.#running.delete(key);
      this.#startNext();
    }
  }

  async #acquire(key: string): Promise<void> {
    if (this.#running.size < this.#options.concurrency && !this.#running.has(key)) {
      this.#running.add(key);
      return;
    }
    if (this.#waiting.length >= this.#options.waiting) throw new TollgateError('OVERLOADED');
    await new Promise<void>((start) => this.#waiting.push({ key, start }));
  }

  #startNext(): void {
    while (this.#running.size < this.#options.concurrency) {
      const index = this.#waiting.findIndex(({ key }) => !this.#running.has(key));
      const [next] = index < 0 ? [] : this.#waiting.splice(index, 1);
      if (!next) return;
      this.#running.add(next.key);
      next.start();
    }
  }
}
