import type { Clock } from '../lib/clock.ts';

/** A block is this part of a limit: with each further node, a user can lose at most this part. */
const BLOCKS_PER_LIMIT = 50;
/** Messages per block at most. Redis then costs a hundredth per message, and less would not be noticeable. */
const LARGEST_BLOCK = 100;
/** Stored blocks, one per user; a user above the bound is counted message by message. */
const MAX_BLOCKS = 50_000;

/** Result of counting a block in Redis. */
export interface CountedBlock {
  /** Messages that are granted: fewer than the block has at the end of a limit. */
  readonly granted: number;
  /** Milliseconds until the end of the window in which they are counted. */
  readonly remainingMs: number;
}

/** The place of one message in a block that Redis is counting. */
export interface Place {
  /** From 1: the message is granted if the block grants at least as many. */
  readonly position: number;
  readonly counting: Promise<CountedBlock | Error>;
}

interface Block {
  readonly limit: number;
  readonly size: number;
  /** Messages that wait for `counting`. */
  waiting: number;
  /** Undefined when Redis has counted the block. */
  counting: Promise<CountedBlock | Error> | undefined;
  remaining: number;
  readonly countedAt: number;
  endsAt: number;
}

/** Returns the messages that are counted at once for a limit: 1 below 100 messages per minute. */
export function blockSize(limit: number): number {
  return Math.min(LARGEST_BLOCK, Math.max(1, Math.floor(limit / BLOCKS_PER_LIMIT)));
}

/**
 * Messages that Redis counted in advance for users with a high limit, so that one command serves a block of messages.
 * Each message is counted before it is granted: all nodes together never grant more than the limit. The unused rest of
 * a block ends with its window, so a user on `n` nodes may be refused up to `(n - 1) * (blockSize - 1)` messages early.
 *
 * A block ends by the clock of this node, `remainingMs` after its request was sent, which is not later than in Redis. A
 * clock that is set back may prolong it; the user then gets at most one block twice.
 */
export class MessageBlocks {
  readonly #clock: Clock;
  /** By user, in order of the last request. */
  readonly #blocks = new Map<string, Block>();

  constructor({ clock }: { readonly clock: Clock }) {
    this.#clock = clock;
  }

  /** Takes one message out of the user's block; false if there is none left. */
  take(userId: string, limit: number): boolean {
    const block = this.#blocks.get(userId);
    if (!block || block.remaining === 0 || block.limit !== limit) return false;
    const now = this.#clock.now();
    if (now >= block.endsAt || now < block.countedAt) return false;
    block.remaining -= 1;
    return true;
  }

  /**
   * Returns a place in a block that Redis is counting, or requests a block.
   * @param count sends the command that counts `size` messages
   */
  join(
    userId: string,
    limit: number,
    count: (size: number) => Promise<CountedBlock | Error>,
  ): Place & { size: number } {
    const open = this.#blocks.get(userId);
    if (open?.counting && open.limit === limit && open.waiting < open.size) {
      open.waiting += 1;
      return { position: open.waiting, counting: open.counting, size: open.size };
    }
    const size = open || this.#hasRoom() ? blockSize(limit) : 1;
    const counting = count(size);
    if (size > 1) this.#add(userId, { limit, size, counting });
    return { position: 1, counting, size };
  }

  /** Drops all blocks. Their messages stay counted. */
  clear(): void {
    this.#blocks.clear();
  }

  #add(userId: string, { limit, size, counting }: Pick<Block, 'limit' | 'size'> & Pick<Place, 'counting'>): void {
    const countedAt = this.#clock.now();
    const block: Block = { limit, size, waiting: 1, counting, remaining: 0, countedAt, endsAt: 0 };
    this.#blocks.delete(userId);
    this.#blocks.set(userId, block);
    void counting.then((result) => {
      block.counting = undefined;
      if (result instanceof Error) return;
      block.remaining = Math.max(0, result.granted - block.waiting);
      block.endsAt = countedAt + result.remainingMs;
    });
  }

  /** Removes the block with the oldest request if its window has ended. */
  #hasRoom(): boolean {
    if (this.#blocks.size < MAX_BLOCKS) return true;
    for (const [userId, { counting, endsAt }] of this.#blocks) {
      if (counting || this.#clock.now() < endsAt) return false;
      this.#blocks.delete(userId);
      return true;
    }
    return true;
  }
}
