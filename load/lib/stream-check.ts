export interface StreamResult {
  /** Events that were never seen and cannot come any more. */
  readonly lost: number;
  /** Events that were seen before. */
  readonly repeated: number;
}

const IN_ORDER: StreamResult = { lost: 0, repeated: 0 };

/**
 * One user's place in the log, checked with every event: `seq` counts from 1 without holes, so whatever is not the next
 * one is a loss or a repetition. One number a user, however many events.
 */
export class StreamCheck {
  #epoch: string | undefined;
  #last = 0;
  #isRebased = false;

  /** Where to go on after a lost connection; undefined before the first welcome. */
  get position(): { readonly after: number; readonly epoch: string } | undefined {
    return this.#epoch === undefined ? undefined : { after: this.#last, epoch: this.#epoch };
  }

  /** A welcome that is no resume: what came before is not this connection's to see. */
  start(epoch: string, seq: number): void {
    this.#epoch = epoch;
    this.#last = seq;
  }

  event(seq: number): StreamResult {
    if (seq === this.#last + 1 || this.#isRebased) {
      this.#isRebased = false;
      this.#last = seq;
      return IN_ORDER;
    }
    if (seq <= this.#last) return { lost: 0, repeated: 1 };
    const lost = seq - this.#last - 1;
    this.#last = seq;
    return { lost, repeated: 0 };
  }

  /** The server says that everything up to `to` has been sent again: a hole before it stays one. */
  resumed(to: number): StreamResult {
    const lost = Math.max(0, to - this.#last);
    this.#last += lost;
    return { lost, repeated: 0 };
  }

  /**
   * The server cannot go on from there (the log was trimmed or lost): the next event, wherever it stands, is the first of
   * a new count. How much was missed is not known, so the failure itself is what counts.
   */
  resumeFailed(epoch: string): void {
    this.#epoch = epoch;
    this.#isRebased = true;
  }
}
