import { type Clock, remainingUntil, sleep } from '../lib/clock.ts';
import { TollgateError } from '../protocol/errors.ts';

/** Maximum concurrent requests per user on this node: as many as two connections may have in flight. */
const PER_USER = 16;
/** Maximum concurrent requests on this node. Each occupies a few kilobytes; tool calls have their own, lower bound. */
const PER_NODE = 1_000;
/** Retry hint of a refusal: longer than most requests take. */
const RETRY_MS = 1_000;
/** Interval at which `drained` polls. */
const LOOK_AGAIN_MS = 20;

/**
 * Bounds the MCP requests in flight on this node. HTTP requests belong to no connection, so the connection limits do
 * not apply to them. Without this bound, slow calls of one user could exhaust the node.
 */
export class InFlight {
  readonly #name: string;
  readonly #perUser: number;
  readonly #perNode: number;
  readonly #byUser = new Map<string, number>();
  #total = 0;

  /** @param bounds.name what is bounded, for the text of the error */
  constructor(bounds: { readonly name?: string; readonly perUser?: number; readonly perNode?: number } = {}) {
    this.#name = bounds.name ?? 'MCP requests';
    this.#perUser = bounds.perUser ?? PER_USER;
    this.#perNode = bounds.perNode ?? PER_NODE;
  }

  get total(): number {
    return this.#total;
  }

  /**
   * Registers a request.
   * @returns a function that removes the request; only its first call has an effect
   * @throws TollgateError RATE_LIMITED at the limit of the user, OVERLOADED at the limit of the node
   */
  enter(userId: string): () => void {
    const own = this.#byUser.get(userId) ?? 0;
    if (own >= this.#perUser) {
      const text = `Rate limit exceeded: ${this.#perUser} ${this.#name} of this user are in flight.`;
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

  /** Resolves when no request is in flight, or after `timeoutMs`. The closing server cuts the remaining requests. */
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
