import type { Clock } from '../lib/clock.ts';

/** A batch is this part of a limit: with each further node, a user can lose at most this part. */
const BATCHES_PER_LIMIT = 50;
/** Messages per batch at most. Redis then costs a hundredth per message, and less would not be noticeable. */
const LARGEST_BATCH = 100;
/** Stored batches, one per user; a user above the bound is counted message by message. */
const MAX_BATCHES = 50_000;

/** Result of counting a batch in Redis. */
export interface CountedBatch {
  /** Messages that are granted: fewer than the batch has at the end of a limit. */
  readonly granted: number;
  /** Milliseconds until the end of the window in which they are counted. */
  readonly remainingMs: number;
}

/** The position of one message in a batch that Redis is counting. */
export interface BatchPosition {
  /** From 1: the message is granted if the batch grants at least as many. */
  readonly position: number;
  readonly counting: Promise<CountedBatch | Error>;
}

interface Batch {
  readonly limit: number;
  readonly size: number;
  /** Messages that wait for `counting`. */
  waiting: number;
  /** Undefined when Redis has counted the batch. */
  counting: Promise<CountedBatch | Error> | undefined;
  remaining: number;
  readonly countedAt: number;
  endsAt: number;
}

/** Returns the messages that are counted at once for a limit: 1 below 100 messages per minute. */
export function batchSize(limit: number): number {
  return Math.min(LARGEST_BATCH, Math.max(1, Math.floor(limit / BATCHES_PER_LIMIT)));
}

/**
 * Messages that Redis counted in advance for users with a high limit, so that one command serves a batch of messages.
 * Each message is counted before it is granted: all nodes together never grant more than the limit. The unused rest of
 * a batch ends with its window, so a user on `n` nodes may be refused up to `(n - 1) * (batchSize - 1)` messages early.
 *
 * A batch ends by the clock of this node, `remainingMs` after its request was sent, which is not later than in Redis. A
 * clock that is set back may prolong it; the user then gets at most one batch twice.
 */
export class MessageBatches {
  readonly #clock: Clock;
  /** By user, in order of the last request. */
  readonly #batches = new Map<string, Batch>();

  constructor({ clock }: { readonly clock: Clock }) {
    this.#clock = clock;
  }

  /** Takes one message out of the user's batch; false if there is none left. */
  take(userId: string, limit: number): boolean {
    const batch = this.#batches.get(userId);
    if (!batch || batch.remaining === 0 || batch.limit !== limit) return false;
    const now = this.#clock.now();
    if (now >= batch.endsAt || now < batch.countedAt) return false;
    batch.remaining -= 1;
    return true;
  }

  /**
   * Returns a position in a batch that Redis is counting, or requests a batch.
   * @param count sends the command that counts `size` messages
   */
  join(
    userId: string,
    limit: number,
    count: (size: number) => Promise<CountedBatch | Error>,
  ): BatchPosition & { size: number } {
    const open = this.#batches.get(userId);
    if (open?.counting && open.limit === limit && open.waiting < open.size) {
      open.waiting += 1;
      return { position: open.waiting, counting: open.counting, size: open.size };
    }
    const size = open || this.#hasRoom() ? batchSize(limit) : 1;
    const counting = count(size);
    if (size > 1) this.#add(userId, { limit, size, counting });
    return { position: 1, counting, size };
  }

  /** Drops all batches. Their messages stay counted. */
  clear(): void {
    this.#batches.clear();
  }

  #add(
    userId: string,
    { limit, size, counting }: Pick<Batch, 'limit' | 'size'> & Pick<BatchPosition, 'counting'>,
  ): void {
    const countedAt = this.#clock.now();
    const batch: Batch = { limit, size, waiting: 1, counting, remaining: 0, countedAt, endsAt: 0 };
    this.#batches.delete(userId);
    this.#batches.set(userId, batch);
    void counting.then((result) => {
      batch.counting = undefined;
      if (result instanceof Error) return;
      batch.remaining = Math.max(0, result.granted - batch.waiting);
      batch.endsAt = countedAt + result.remainingMs;
    });
  }

  /** Removes the batch with the oldest request if its window has ended. */
  #hasRoom(): boolean {
    if (this.#batches.size < MAX_BATCHES) return true;
    for (const [userId, { counting, endsAt }] of this.#batches) {
      if (counting || this.#clock.now() < endsAt) return false;
      this.#batches.delete(userId);
      return true;
    }
    return true;
  }
}
