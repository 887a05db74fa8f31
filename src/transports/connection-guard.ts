import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { countsAsFailure, Handshake } from '../connections/handshake.ts';
import type { Clock } from '../lib/clock.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { AuthFailureLimiter } from '../limits/auth-failure-limiter.ts';
import type { PendingConnections } from '../limits/pending-connections.ts';
import { TollgateError } from '../protocol/errors.ts';
import { clientAddress, groupedAddress } from './client-address.ts';

/** By then, most pending connections have authenticated or have been closed. */
const FULL_RETRY_MS = 5_000;

export interface ConnectionGuardDeps {
  readonly authFailureLimiter: Pick<AuthFailureLimiter, 'blockedForMs' | 'recordFailure'>;
  readonly pending: Pick<PendingConnections, 'add' | 'remove' | 'total'>;
  readonly metrics: Pick<Metrics, 'handshakes' | 'pending'>;
  readonly clock: Clock;
}

export interface ConnectionGuardOptions {
  readonly trustedProxyHops: number;
  /** Milliseconds from the open of a socket until its client must be admitted. */
  readonly authDeadlineMs: number;
}

/** Counts failed authentications and pending connections per client address, and rejects those above the limits. */
export class ConnectionGuard {
  readonly #deps: ConnectionGuardDeps;
  readonly #options: ConnectionGuardOptions;
  readonly #released: (address: string) => void;

  constructor(deps: ConnectionGuardDeps, options: ConnectionGuardOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#released = (address) => {
      deps.pending.remove(address);
      deps.metrics.pending.set(deps.pending.total);
    };
  }

  /** The address for which a request is counted. */
  addressOf(request: IncomingMessage): string {
    return clientAddress(request, this.#options.trustedProxyHops);
  }

  /**
   * An authentication attempt of a plain HTTP request. It does not count as a pending connection, so that strangers
   * behind the same address cannot exhaust the limit and lock out a service.
   */
  attempt(request: IncomingMessage): Pick<Handshake, 'authenticate'> {
    return this.#handshake(this.addressOf(request), 'http', () => {});
  }

  /** Counts a request that was rejected before it became a pending connection. */
  refused(request: IncomingMessage, { code }: Pick<TollgateError, 'code'>): void {
    if (countsAsFailure(code)) this.#deps.authFailureLimiter.recordFailure(this.addressOf(request));
  }

  /**
   * Counts input that is not an HTTP request. Behind trusted proxies nothing is counted: the socket is that of a proxy,
   * which parses requests itself.
   */
  unreadable(socket: Pick<Socket, 'remoteAddress'>): void {
    if (this.#options.trustedProxyHops === 0)
      this.#deps.authFailureLimiter.recordFailure(groupedAddress(socket.remoteAddress ?? ''));
  }

  /**
   * Adds a pending connection.
   * @throws TollgateError AUTH_RATE_LIMITED, OVERLOADED if its address, or the node, has too many pending connections
   */
  register(request: IncomingMessage, endpoint: string): Handshake {
    const { pending, metrics } = this.#deps;
    const address = this.addressOf(request);
    const full = pending.add(address);
    if (full !== undefined) {
      const error = tooManyPending(full);
      metrics.handshakes.inc({ endpoint, result: error.code });
      throw error;
    }
    metrics.pending.set(pending.total);
    return this.#handshake(address, endpoint, this.#released);
  }

  #handshake(address: string, endpoint: string, released: (address: string) => void): Handshake {
    return new Handshake(this.#deps, { address, endpoint, deadlineMs: this.#options.authDeadlineMs, released });
  }
}

function tooManyPending(full: 'address' | 'node'): TollgateError {
  if (full === 'node') return new TollgateError('OVERLOADED', { retryAfterMs: FULL_RETRY_MS });
  const text = 'Too many pending connections from this address; try again later.';
  return new TollgateError('AUTH_RATE_LIMITED', { text, retryAfterMs: FULL_RETRY_MS });
}
