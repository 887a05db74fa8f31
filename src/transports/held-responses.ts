import type { Duplex } from 'node:stream';
import type { Clock } from '../lib/clock.ts';

/**
 * Longest delay of a response. Redis answers an admission within a few milliseconds; a slow one must not hide the 101.
 */
const HOLD_MS = 20;

/**
 * Holds the responses to upgrades back until the first frame is written, so that both leave with one system call and
 * reach the client in one packet. All responses share one timer, which is the bound.
 */
export class HeldResponses {
  readonly #clock: Clock;
  readonly #sockets = new Set<Duplex>();
  #isTimed = false;

  constructor({ clock }: { readonly clock: Clock }) {
    this.#clock = clock;
  }

  /** Holds all writes to the socket back until `release`, for at most `HOLD_MS`. */
  hold(socket: Duplex): void {
    socket.cork();
    this.#sockets.add(socket);
    if (this.#isTimed) return;
    this.#isTimed = true;
    this.#clock.after(HOLD_MS, () => {
      this.#isTimed = false;
      for (const held of this.#sockets) this.release(held);
    });
  }

  /** Idempotent, also for a socket that has closed. */
  release(socket: Duplex): void {
    if (this.#sockets.delete(socket)) socket.uncork();
  }
}
