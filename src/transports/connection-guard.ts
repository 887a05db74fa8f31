import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { PendingConnection } from '../connections/handshake.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { AuthFailureLimiter } from '../limits/auth-failure-limiter.ts';
import type { PendingConnections } from '../limits/pending-connections.ts';
import { type ErrorCode, TollgateError, toTollgateError } from '../protocol/errors.ts';
import { clientAddress, groupedAddress } from './client-address.ts';

/** By then, most pending connections have authenticated or have been closed. */
const FULL_RETRY_MS = 5_000;

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

export interface ConnectionGuardDeps {
  readonly authFailureLimiter: Pick<AuthFailureLimiter, 'blockedForMs' | 'recordFailure'>;
  readonly pending: Pick<PendingConnections, 'add' | 'total'>;
  readonly metrics: Pick<Metrics, 'handshakes' | 'pending'>;
}

/** Counts failed authentications and pending connections per client address, and rejects those above the limits. */
export class ConnectionGuard {
  readonly #deps: ConnectionGuardDeps;
  readonly #trustedProxyHops: number;

  constructor(deps: ConnectionGuardDeps, { trustedProxyHops }: { readonly trustedProxyHops: number }) {
    this.#deps = deps;
    this.#trustedProxyHops = trustedProxyHops;
  }

  /** The address for which a request is counted. */
  addressOf(request: IncomingMessage): string {
    return clientAddress(request, this.#trustedProxyHops);
  }

  /**
   * An authentication attempt of a plain HTTP request. It does not count as a pending connection, so that strangers
   * behind the same address cannot exhaust the limit and lock out a service.
   */
  attempt(request: IncomingMessage): GuardedConnection {
    return new GuardedConnection(this.#deps.authFailureLimiter, this.addressOf(request), () => {});
  }

  /** Counts a request that was rejected before it became a pending connection. */
  refused(request: IncomingMessage, { code }: Pick<TollgateError, 'code'>): void {
    if (FAILURE_CODES.has(code) || BAD_INPUT.has(code))
      this.#deps.authFailureLimiter.recordFailure(this.addressOf(request));
  }

  /**
   * Counts input that is not an HTTP request. Behind trusted proxies nothing is counted: the socket is that of a proxy,
   * which parses requests itself.
   */
  unreadable(socket: Pick<Socket, 'remoteAddress'>): void {
    if (this.#trustedProxyHops === 0)
      this.#deps.authFailureLimiter.recordFailure(groupedAddress(socket.remoteAddress ?? ''));
  }

  /**
   * Adds a pending connection.
   * @throws TollgateError AUTH_RATE_LIMITED, OVERLOADED if its address, or the node, has too many pending connections
   */
  register(request: IncomingMessage, endpoint: string): GuardedConnection {
    const { authFailureLimiter, pending, metrics } = this.#deps;
    const address = this.addressOf(request);
    const entry = pending.add(address);
    if (!entry.admitted) {
      const error = tooManyPending(entry.full);
      metrics.handshakes.inc({ endpoint, result: error.code });
      throw error;
    }
    metrics.pending.set(pending.total);
    const release = () => {
      entry.release();
      metrics.pending.set(pending.total);
    };
    return new GuardedConnection(authFailureLimiter, address, release);
  }
}

/** A pending connection, until it authenticates or closes. */
export class GuardedConnection implements PendingConnection {
  readonly #limiter: ConnectionGuardDeps['authFailureLimiter'];
  readonly #address: string;
  /**
   * Call it when the connection has authenticated or closed. It can be added as a listener directly: a closure around
   * it would retain the handshake request for the lifetime of the socket.
   */
  readonly release: () => void;
  #isCounted = false;

  constructor(limiter: ConnectionGuardDeps['authFailureLimiter'], address: string, release: () => void) {
    this.#limiter = limiter;
    this.#address = address;
    this.release = release;
  }

  /** AUTH_RATE_LIMITED while the address is blocked; only a valid credential is accepted then. */
  get blockError(): TollgateError | undefined {
    const retryAfterMs = this.#limiter.blockedForMs(this.#address);
    return retryAfterMs > 0 ? new TollgateError('AUTH_RATE_LIMITED', { retryAfterMs }) : undefined;
  }

  async authenticate<Found>(authenticate: () => Promise<Found>): Promise<Found> {
    try {
      const found = await authenticate();
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

  /** Counts at most one failure per connection. */
  recordRefusal(error: TollgateError): void {
    if (this.#isCounted || !(FAILURE_CODES.has(error.code) || BAD_INPUT.has(error.code))) return;
    this.#isCounted = true;
    this.#limiter.recordFailure(this.#address);
  }
}

function tooManyPending(full: 'address' | 'node'): TollgateError {
  if (full === 'node') return new TollgateError('OVERLOADED', { retryAfterMs: FULL_RETRY_MS });
  const text = 'Too many pending connections from this address; try again later.';
  return new TollgateError('AUTH_RATE_LIMITED', { text, retryAfterMs: FULL_RETRY_MS });
}
