import type { Clock } from '../lib/clock.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { AuthFailureLimiter } from '../limits/auth-failure-limiter.ts';
import { type ErrorCode, TollgateError, toTollgateError } from '../protocol/errors.ts';

/** Rejected credentials. An outage of the gateway or a slow handshake is not a failure of the client. */
const FAILURE_CODES: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'NO_TOKEN',
  'INVALID_FORMAT',
  'VALIDATION_FAILED',
  'TOKEN_EXPIRED',
  'TOKEN_REVOKED',
  'USER_BLOCKED',
  'USER_MISMATCH',
  'CONFLICTING_CREDENTIALS',
]);

/**
 * Invalid input. `ORIGIN_NOT_ALLOWED` does not count: the page sends the origin, not the user, so any page on the web
 * could get the address of its visitors blocked.
 */
const BAD_INPUT: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'JSON_ERROR',
  'INVALID_MESSAGE',
  'UNKNOWN_MESSAGE_TYPE',
  'FORMAT_ERROR',
  'MESSAGE_TOO_LARGE',
  'UNSUPPORTED_DATA',
  'ENDPOINT_NOT_FOUND',
  'UPGRADE_REQUIRED',
]);

/** Whether an error counts as a failed handshake of the client's address. */
export function countsAsFailure(code: ErrorCode): boolean {
  return FAILURE_CODES.has(code) || BAD_INPUT.has(code);
}

export interface HandshakeDeps {
  readonly authFailureLimiter: Pick<AuthFailureLimiter, 'blockedForMs' | 'recordFailure'>;
  readonly metrics: Pick<Metrics, 'handshakes'>;
  readonly clock: Clock;
}

export interface HandshakeOptions {
  /** Label of the metrics. */
  readonly endpoint: string;
  /** Address of the client. */
  readonly address: string;
  /** Milliseconds from the start of the deadline until the client must be admitted. */
  readonly deadlineMs: number;
  /** Removes the pending connection; called once. The same function for all handshakes. */
  readonly released: (address: string) => void;
}

/**
 * A client before it is admitted: the deadline, the authentication, and what is counted for its address (the pending
 * connection, at most one failed handshake). HTTP requests use only the authentication.
 */
export class Handshake {
  readonly #deps: HandshakeDeps;
  readonly #endpoint: string;
  readonly #address: string;
  readonly #deadlineMs: number;
  readonly #released: (address: string) => void;
  #isPending = true;
  #hasFailed = false;
  #cancelDeadline: (() => void) | undefined;

  constructor(deps: HandshakeDeps, { endpoint, address, deadlineMs, released }: HandshakeOptions) {
    this.#deps = deps;
    this.#endpoint = endpoint;
    this.#address = address;
    this.#deadlineMs = deadlineMs;
    this.#released = released;
  }

  /** Ends the pending connection: the client is authenticated, or its socket is closed. Idempotent. */
  release(): void {
    if (!this.#isPending) return;
    this.#isPending = false;
    this.#released(this.#address);
  }

  /**
   * Returns `release` as a listener. A closure of the caller would retain its handshake request for the lifetime of the
   * socket.
   */
  releaseListener(): () => void {
    return () => this.release();
  }

  /** Whether the address is blocked; only a valid credential is accepted then. */
  get isBlocked(): boolean {
    return this.#deps.authFailureLimiter.blockedForMs(this.#address) > 0;
  }

  /** AUTH_RATE_LIMITED while the address is blocked. */
  get blockError(): TollgateError | undefined {
    const retryAfterMs = this.#deps.authFailureLimiter.blockedForMs(this.#address);
    return retryAfterMs > 0 ? new TollgateError('AUTH_RATE_LIMITED', { retryAfterMs }) : undefined;
  }

  /**
   * Starts the deadline, or starts it again when the socket opens. It is absolute: neither messages nor a slow auth
   * service extend it.
   * @param expired called with AUTH_TIMEOUT, unless the deadline was ended before
   */
  startDeadline(expired: (error: TollgateError) => void): void {
    this.endDeadline();
    this.#cancelDeadline = this.#deps.clock.after(this.#deadlineMs, () => expired(new TollgateError('AUTH_TIMEOUT')));
  }

  /** Called when the client is admitted or the connection closes. */
  endDeadline(): void {
    this.#cancelDeadline?.();
    this.#cancelDeadline = undefined;
  }

  /**
   * Verifies a credential. A rejected one counts as a failed authentication of the client address.
   * @param find returns the identity, undefined when there was no credential
   * @throws TollgateError the error of `find`, or AUTH_RATE_LIMITED instead when the address is blocked
   */
  async authenticate<Found>(find: () => Promise<Found>): Promise<Found> {
    try {
      const found = await find();
      if (found) this.release();
      return found;
    } catch (thrown) {
      const error = toTollgateError(thrown);
      // Read before this failure is counted: the last attempt within the limit still receives its own error.
      const { blockError } = this;
      this.recordRefusal(error);
      throw blockError && FAILURE_CODES.has(error.code) ? (this.blockError ?? blockError) : error;
    }
  }

  /** Called when the connection closes before authentication. Counts at most one failure per connection. */
  recordRefusal({ code }: TollgateError): void {
    if (this.#hasFailed || !countsAsFailure(code)) return;
    this.#hasFailed = true;
    this.#deps.authFailureLimiter.recordFailure(this.#address);
  }

  /** Counts the result in the metrics. */
  count(result: ErrorCode | 'ok' | 'unauthenticated'): void {
    this.#deps.metrics.handshakes.inc({ endpoint: this.#endpoint, result });
  }
}
