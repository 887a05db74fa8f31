import { type Clock, remainingUntil, sleep } from '../lib/clock.ts';
import { TollgateError } from '../protocol/errors.ts';

/** Requests of one user that this node answers at once: as many as two connections may have under way. */
const PER_USER = 16;
/** Of all users together. Each is a few kilobytes while it waits; tool calls have a bound of their own below this one. */
const PER_NODE = 1_000;
/** What a refused one should wait: longer than most requests take. */
const RETRY_MS = 1_000;
const LOOK_AGAIN_MS = 20;

/**
 * The MCP requests that this node is answering. What bounds connections cannot bound requests that have none: without
 * this, one user's slow calls could fill the node.
 */
export class InFlight {
  readonly #perUser: number;
  readonly #perNode: number;
  readonly #byUser = new Map<string, number>();
  #total = 0;

  constructor(bounds: { readonly perUser?: number; readonly perNode?: number } = {}) {
    this.#perUser = bounds.perUser ?? PER_USER;
    this.#perNode = bounds.perNode ?? PER_NODE;
  }

  get total(): number {
    return this.#total;
  }

  /**
   * @returns gives the place back; later calls of it do nothing
   * @throws TollgateError RATE_LIMITED when the user has too many, OVERLOADED when the node has
   */
  enter(userId: string): () => void {
    const own = this.#byUser.get(userId) ?? 0;
    if (own >= this.#perUser) {
      const text = `Rate limit exceeded: ${this.#perUser} MCP requests of this user are under way.`;
      throw new TollgateError('RATE_LIMITED', { text, retryAfterMs: RETRY_MS });
    }
    if (this.#total >= this.#perNode) throw new TollgateError('OVERLOADED', { retryAfterMs: RETRY_MS });
    this.#byUser.set(userId, own + 1);
    this.#total += 1;
    let inside = true;
    return () => {
      if (!inside) return;
      inside = false;
      this.#remove(userId);
    };
  }

  /** Resolves when nothing is under way, or when `patienceMs` are over: a server that closes cuts what is left. */
  async drained(clock: Clock, timeoutMs: number): Promise<void> {
    const deadlineAt = clock.now() + timeoutMs;
    while (this.#total > 0 && remainingUntil(clock, deadlineAt, timeoutMs) > 0) await sleep(clock, LOOK_AGAIN_MS);
  }

  #remove(userId: string): void {
    this.#total -= 1;
    const remaining = (this.#byUser.get(userId) ?? 1) - 1;
    if (remaining > 0) this.#byUser.set(userId, remaining);
    else this.#byUser.delete(userId);
  }
}
