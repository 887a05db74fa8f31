import type { ConnectionLimits } from './limits.ts';

/** The action that is due on a connection. */
export type Due = 'silence' | 'old_age' | 'heartbeat';

/** Jitter of the maximum age, so that connections opened together do not end together; as in gRPC proposal A9. */
const AGE_JITTER = 0.1;
/** How long a busy connection may exceed its maximum age; as MAX_CONNECTION_AGE_GRACE of gRPC. */
const AGE_GRACE_MS = 30_000;

/** Timers of one connection: heartbeat, idle timeout and maximum age. All times in ms since the epoch. */
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

  /** Records a received frame or pong. */
  markAlive(now: number): void {
    this.#aliveAt = now;
  }

  /**
   * Restarts the idle timeout and the heartbeat after the clock was set by `ms` or the process was suspended for `ms`:
   * the process could not receive anything meanwhile.
   */
  onClockJump(now: number, ms: number): void {
    this.#aliveAt = now;
    this.#heartbeatAt = now;
    this.#retireAt += ms;
  }

  /** Returns what is due now; a heartbeat only once per interval. @param busy a message of the client is in flight */
  due(now: number, busy: boolean): Due | undefined {
    if (now - this.#aliveAt >= this.#limits.idleTimeoutMs) return 'silence';
    if (now >= this.#retireAt + (busy ? AGE_GRACE_MS : 0)) return 'old_age';
    if (now - this.#heartbeatAt < this.#limits.heartbeatMs) return undefined;
    this.#heartbeatAt = now;
    return 'heartbeat';
  }
}
