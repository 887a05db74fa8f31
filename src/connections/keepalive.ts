import type { ConnectionLimits } from './limits.ts';

/** What is due on a connection. */
export type Due = 'silence' | 'old_age' | 'heartbeat';

/** Of the age: connections that opened together do not end together. As gRPC's MAX_CONNECTION_AGE (proposal A9). */
const AGE_JITTER = 0.1;
/** How long a connection that is past its age is left alone while it is answering something. As gRPC's grace. */
const AGE_GRACE_MS = 30_000;

/** The times of one connection, ms since the epoch: when it was heard of last, its next heartbeat, its age. */
export class Keepalive {
  readonly #limits: Pick<ConnectionLimits, 'heartbeatMs' | 'idleTimeoutMs' | 'maxAgeMs'>;
  #retireAt: number;
  #aliveAt: number;
  #heartbeatAt: number;

  constructor(limits: Pick<ConnectionLimits, 'heartbeatMs' | 'idleTimeoutMs' | 'maxAgeMs'>, now: number) {
    this.#limits = limits;
    this.#aliveAt = now;
    this.#heartbeatAt = now;
    const jitter = 1 + (2 * Math.random() - 1) * AGE_JITTER;
    this.#retireAt = limits.maxAgeMs > 0 ? now + limits.maxAgeMs * jitter : Number.POSITIVE_INFINITY;
  }

  /** A frame or a pong came. */
  markAlive(now: number): void {
    this.#aliveAt = now;
  }

  /** The clock was set by so much, or nothing ran for so long: nobody could be heard, and silence begins anew. */
  onClockJump(now: number, ms: number): void {
    this.#aliveAt = now;
    this.#heartbeatAt = now;
    this.#retireAt += ms;
  }

  /** What is to be done now; a heartbeat is due once. @param busy something that the client asked for is under way */
  due(now: number, busy: boolean): Due | undefined {
    if (now - this.#aliveAt >= this.#limits.idleTimeoutMs) return 'silence';
    if (now >= this.#retireAt + (busy ? AGE_GRACE_MS : 0)) return 'old_age';
    if (now - this.#heartbeatAt < this.#limits.heartbeatMs) return undefined;
    this.#heartbeatAt = now;
    return 'heartbeat';
  }
}
