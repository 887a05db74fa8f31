import { type Clock, remainingUntil } from '../lib/clock.ts';
import { RateLimited } from './faults.ts';

/** Longest time for which a `Retry-After` of a server is respected. */
export const MAX_HOLD_MS = 15 * 60_000;
/** Maximum number of users with a hold; the oldest hold is removed first. */
const MAX_USERS = 1_000;

/** Rate limits that a server has set: requests during one are refused here and not sent. */
export class Holds {
  readonly #clock: Clock;
  #serverUntil = 0;
  /** Times by user id, oldest first. */
  readonly #userUntil = new Map<string, number>();

  constructor({ clock }: { readonly clock: Clock }) {
    this.#clock = clock;
  }

  /** Stores a rate limit that an answer to a request of `userId` has set. */
  add({ scope, retryAfterMs }: RateLimited, userId: string | undefined): void {
    if (retryAfterMs === undefined) return;
    const until = this.#clock.now() + Math.min(retryAfterMs, MAX_HOLD_MS);
    if (scope === 'server') this.#serverUntil = until;
    if (scope === 'server' || userId === undefined) return;
    this.#userUntil.delete(userId);
    this.#userUntil.set(userId, until);
    const [oldest] = this.#userUntil.keys();
    if (this.#userUntil.size > MAX_USERS && oldest !== undefined) this.#userUntil.delete(oldest);
  }

  /** @throws RateLimited while a rate limit applies to the server or to the user */
  check(userId: string | undefined): void {
    const serverMs = remainingUntil(this.#clock, this.#serverUntil, MAX_HOLD_MS);
    if (serverMs > 0) throw new RateLimited('server', serverMs);
    if (userId === undefined) return;
    const userMs = remainingUntil(this.#clock, this.#userUntil.get(userId) ?? 0, MAX_HOLD_MS);
    if (userMs > 0) throw new RateLimited('user', userMs);
    this.#userUntil.delete(userId);
  }

  /** Milliseconds for which no request is sent to the server; 0 without a rate limit. */
  get serverMs(): number {
    return remainingUntil(this.#clock, this.#serverUntil, MAX_HOLD_MS);
  }
}
