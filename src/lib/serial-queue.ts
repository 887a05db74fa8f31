/**
 * Runs tasks one after the other, in the order they were added, with a bound on how many wait. Each socket has one, so
 * that the messages of a connection take effect in the order they were sent.
 */
export class SerialQueue {
  readonly #limit: number;
  readonly #failed: (error: unknown) => void;
  #waiting = 0;
  #tail: Promise<void> = Promise.resolve();

  /**
   * @param limit how many tasks may be waiting or running at once
   * @param failed told of a task that rejects; the ones behind it run all the same
   */
  constructor(limit: number, failed: (error: unknown) => void) {
    this.#limit = limit;
    this.#failed = failed;
  }

  /** Tasks that wait or run. */
  get length(): number {
    return this.#waiting;
  }

  /** False, without running it, when the queue is full. */
  add(task: () => Promise<void>): boolean {
    if (this.#waiting >= this.#limit) return false;
    this.#waiting += 1;
    this.#tail = this.#tail
      .then(task)
      .catch(this.#failed)
      .finally(() => {
        this.#waiting -= 1;
      });
    return true;
  }

  /** Resolves when everything added so far has run. */
  idle(): Promise<void> {
    return this.#tail;
  }
}
