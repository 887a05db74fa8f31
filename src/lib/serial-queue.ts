/**
 * Runs tasks one after the other in the order in which they were added. The number of waiting tasks is bounded. Each
 * connection has one queue, so that its messages take effect in the order in which they were sent.
 */
export class SerialQueue {
  readonly #limit: number;
  readonly #failed: (error: unknown) => void;
  #waiting = 0;
  #tail: Promise<void> = Promise.resolve();

  /**
   * @param limit maximum number of waiting and running tasks
   * @param failed receives the error of a failed task; later tasks run nevertheless
   */
  constructor(limit: number, failed: (error: unknown) => void) {
    this.#limit = limit;
    this.#failed = failed;
  }

  /** Number of waiting and running tasks. */
  get length(): number {
    return this.#waiting;
  }

  /** Returns false without running the task if the queue is full. */
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

  /** Resolves when all tasks added so far have ended. */
  idle(): Promise<void> {
    return this.#tail;
  }
}
