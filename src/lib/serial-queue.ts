export interface SerialQueueOwner {
  /** A task failed; later tasks run nevertheless. */
  onTaskFailed(error: unknown): void;
}

/**
 * Runs tasks one after the other in the order in which they were added. The number of waiting tasks is bounded. Each
 * connection has one queue, so that its messages take effect in the order in which they were sent.
 */
export class SerialQueue {
  readonly #limit: number;
  readonly #owner: SerialQueueOwner;
  /** Created when a task has to wait: most connections are idle. */
  #waiting: (() => Promise<void>)[] | undefined;
  /** Number of waiting and running tasks. */
  #length = 0;
  #isBusy: boolean;
  #ended = 0;
  /** Callers of `idle`, each with the number of ended tasks that it waits for. */
  #idle: { readonly at: number; readonly resolve: () => void }[] | undefined;

  /**
   * @param limit maximum number of waiting and running tasks
   * @param owner an object in place of a function: a connection needs no closure for its queue
   * @param options.paused whether tasks wait for `start`
   */
  constructor(limit: number, owner: SerialQueueOwner, options: { readonly paused?: boolean } = {}) {
    this.#limit = limit;
    this.#owner = owner;
    this.#isBusy = options.paused === true;
  }

  /** Number of waiting and running tasks. */
  get length(): number {
    return this.#length;
  }

  /** Runs the waiting tasks of a paused queue. Call it once. */
  start(): void {
    void this.#run(this.#waiting?.shift());
  }

  /** Starts the task at once if no other one is running. Returns false without running it if the queue is full. */
  add(task: () => Promise<void>): boolean {
    if (this.#length >= this.#limit) return false;
    this.#length += 1;
    if (!this.#isBusy) void this.#run(task);
    else if (this.#waiting) this.#waiting.push(task);
    else this.#waiting = [task];
    return true;
  }

  /** Resolves when all tasks added so far have ended. */
  idle(): Promise<void> {
    if (this.#length === 0) return Promise.resolve();
    const at = this.#ended + this.#length;
    return new Promise((resolve) => {
      this.#idle = [...(this.#idle ?? []), { at, resolve }];
    });
  }

  async #run(first: (() => Promise<void>) | undefined): Promise<void> {
    this.#isBusy = true;
    for (let task = first; task; task = this.#waiting?.shift()) {
      try {
        await task();
      } catch (error) {
        this.#owner.onTaskFailed(error);
      }
      this.#length -= 1;
      this.#ended += 1;
      while (this.#idle?.[0] && this.#idle[0].at <= this.#ended) this.#idle.shift()?.resolve();
    }
    this.#isBusy = false;
    this.#waiting = undefined;
  }
}
