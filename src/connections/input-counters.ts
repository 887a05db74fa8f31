import { BAD_FRAMES_LIMIT, OUT_OF_ORDER_LIMIT, UNAUTHENTICATED_BYTES, UNAUTHENTICATED_MESSAGES } from './limits.ts';

/** Counts the input of one connection towards its bounds. */
export class InputCounters {
  #outOfOrder = 0;
  #badFramesInARow = 0;
  #unauthenticatedMessages = 0;
  #unauthenticatedBytes = 0;

  /** Number of messages that are answered out of order and have no answer yet. */
  get outOfOrder(): number {
    return this.#outOfOrder;
  }

  /** Whether no further message may be answered out of order. */
  get isFull(): boolean {
    return this.#outOfOrder >= OUT_OF_ORDER_LIMIT;
  }

  /** Counts a message that is answered out of order, until `answered` settles. Never rejects itself. */
  async untilAnswered(answered: Promise<void>): Promise<void> {
    this.#outOfOrder += 1;
    try {
      await answered;
    } finally {
      this.#outOfOrder -= 1;
    }
  }

  /** Counts a frame before authentication. Returns false above the bound. */
  addUnauthenticatedBytes(bytes: number): boolean {
    this.#unauthenticatedBytes += bytes;
    return this.#unauthenticatedBytes <= UNAUTHENTICATED_BYTES;
  }

  /** Counts a message before authentication. Returns false above the bound. */
  addUnauthenticatedMessage(): boolean {
    this.#unauthenticatedMessages += 1;
    return this.#unauthenticatedMessages <= UNAUTHENTICATED_MESSAGES;
  }

  /** Counts an unreadable frame. Returns false at the bound. */
  addBadFrame(): boolean {
    this.#badFramesInARow += 1;
    return this.#badFramesInARow < BAD_FRAMES_LIMIT;
  }

  /** Call it after a readable message. */
  resetBadFrames(): void {
    this.#badFramesInARow = 0;
  }
}
