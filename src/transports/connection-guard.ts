import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { PendingConnection } from '../connections/handshake.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { AuthFailureLimiter } from '../limits/auth-failure-limiter.ts';
import type { PendingConnections } from '../limits/pending-connections.ts';
import { type ErrorCode, TollgateError, toTollgateError } from '../protocol/errors.ts';
import { clientAddress, groupedAddress } from './client-address.ts';

/** By then most that are in the way have authenticated or have been cut off. */
const FULL_RETRY_MS = 5_000;

/** A credential that is refused. An outage of ours, or a handshake that was too slow, is no failure of the client. */
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
 * Input that is refused unread or for its form. An origin that is not allowed does not count: a page decides over it and
 * not the visitor, whose address any page on the web could close.
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

/** Where every connection comes in: counts those that have not authenticated, and refuses what is too many. */
export class ConnectionGuard {
  readonly #deps: ConnectionGuardDeps;
  readonly #trustedProxyHops: number;

  constructor(deps: ConnectionGuardDeps, { trustedProxyHops }: { readonly trustedProxyHops: number }) {
    this.#deps = deps;
    this.#trustedProxyHops = trustedProxyHops;
  }

  /** The address that a request is counted for. */
  addressOf(request: IncomingMessage): string {
    return clientAddress(request, this.#trustedProxyHops);
  }

  /**
   * An attempt to authenticate that holds no connection open. It takes no place among the pending ones, so that strangers
   * behind the same address cannot take the place of a service.
   */
  attempt(request: IncomingMessage): GuardedConnection {
    return new GuardedConnection(this.#deps.authFailureLimiter, this.addressOf(request), () => {});
  }

  /** Counts a request that was refused before its client entered. */
  refused(request: IncomingMessage, { code }: Pick<TollgateError, 'code'>): void {
    if (FAILURE_CODES.has(code) || BAD_INPUT.has(code))
      this.#deps.authFailureLimiter.recordFailure(this.addressOf(request));
  }

  /**
   * Counts bytes of a socket that are no HTTP request. Behind trusted proxies the socket is a proxy's, which has parsed
   * the request itself.
   */
  unreadable(socket: Pick<Socket, 'remoteAddress'>): void {
    if (this.#trustedProxyHops === 0)
      this.#deps.authFailureLimiter.recordFailure(groupedAddress(socket.remoteAddress ?? ''));
  }

  /**
   * Lets a client in that has yet to say who it is.
   * @throws TollgateError AUTH_RATE_LIMITED, OVERLOADED when too many wait already, of its address or of all
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

/** One client between its handshake and its authentication, or its end. */
export class GuardedConnection implements PendingConnection {
  readonly #limiter: ConnectionGuardDeps['authFailureLimiter'];
  readonly #address: string;
  /**
   * It has authenticated, or is gone. Made to be a listener as it is: a closure around it would keep the request of the
   * handshake for as long as the socket lives.
   */
  readonly release: () => void;
  #isCounted = false;

  constructor(limiter: ConnectionGuardDeps['authFailureLimiter'], address: string, release: () => void) {
    this.#limiter = limiter;
    this.#address = address;
    this.release = release;
  }

  /** AUTH_RATE_LIMITED while too many handshakes from this address have failed: only a good credential helps. */
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
      // Asked before this failure is counted: the last one within the bound is still told what was wrong.
      const { blockError } = this;
      this.recordRefusal(error);
      throw blockError && FAILURE_CODES.has(error.code) ? (this.blockError ?? blockError) : error;
    }
  }

  /** Counts once, however often the client is told. */
  recordRefusal(error: TollgateError): void {
    if (this.#isCounted || !(FAILURE_CODES.has(error.code) || BAD_INPUT.has(error.code))) return;
    this.#isCounted = true;
    this.#limiter.recordFailure(this.#address);
  }
}

function tooManyPending(full: 'address' | 'node'): TollgateError {
  if (full === 'node') return new TollgateError('OVERLOADED', { retryAfterMs: FULL_RETRY_MS });
  const text = 'Too many connections from this address wait for authentication; try again later.';
  return new TollgateError('AUTH_RATE_LIMITED', { text, retryAfterMs: FULL_RETRY_MS });
}
