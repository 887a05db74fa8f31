export interface StreamResult {
  /** Events that the client never received and cannot receive any more. */
  readonly lost: number;
  /** Events that the client had received before. */
  readonly repeated: number;
}

const IN_ORDER: StreamResult = { lost: 0, repeated: 0 };

/**
 * Checks the events of one user. `seq` counts from 1 without gaps, so each event that is not the next one is a loss or
 * a repetition. Memory is one number per user.
 */
export class StreamCheck {
  #epoch: string | undefined;
  #last = 0;
  #isRebased = false;

  /** Position to resume from after a lost connection; undefined before the first welcome. */
  get position(): { readonly after: number; readonly epoch: string } | undefined {
    return this.#epoch === undefined ? undefined : { after: this.#last, epoch: this.#epoch };
  }

  /** A welcome without a resume: earlier events are not part of this connection. */
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

  /** The server reports that it has replayed everything up to `to`, so a gap before it is a loss. */
  resumed(to: number): StreamResult {
    const lost = Math.max(0, to - this.#last);
    this.#last += lost;
    return { lost, repeated: 0 };
  }

  /**
   * The server cannot replay from the position, because the log was trimmed or lost. The next event starts a new count
   * at any `seq`. The number of missed events is unknown, so the failure itself is counted.
   */
  resumeFailed(epoch: string): void {
    this.#epoch = epoch;
    this.#isRebased = true;
  }
}
