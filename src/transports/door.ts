import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Visitor } from '../connections/opening.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { AuthFailures } from '../policy/auth-failures.ts';
import type { PendingConnections } from '../policy/pending-connections.ts';
import { type ErrorCode, TollgateError, toTollgateError } from '../protocol/errors.ts';
import { clientAddress, groupedAddress } from './client-address.ts';

/** By then most that are in the way have authenticated or have been cut off. */
const FULL_RETRY_MS = 5_000;

/** A credential that is refused. An outage of ours, or a handshake that was too slow, is no failure of the client. */
const FAILURES: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
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

export interface DoorDeps {
  readonly authFailures: Pick<AuthFailures, 'closedForMs' | 'failed'>;
  readonly pending: Pick<PendingConnections, 'enter' | 'total'>;
  readonly metrics: Pick<Metrics, 'handshakes' | 'pending'>;
}

/** Where every connection comes in: counts those that have not authenticated, and refuses what is too many. */
export class Door {
  readonly #deps: DoorDeps;
  readonly #trustedProxyHops: number;

  constructor(deps: DoorDeps, { trustedProxyHops }: { readonly trustedProxyHops: number }) {
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
  attempt(request: IncomingMessage): Visit {
    return new Visit(this.#deps.authFailures, this.addressOf(request), () => {});
  }

  /** Counts a request that was refused before its client entered. */
  refused(request: IncomingMessage, { code }: Pick<TollgateError, 'code'>): void {
    if (FAILURES.has(code) || BAD_INPUT.has(code)) this.#deps.authFailures.failed(this.addressOf(request));
  }

  /**
   * Counts bytes of a socket that are no HTTP request. Behind trusted proxies the socket is a proxy's, which has parsed
   * the request itself.
   */
  unreadable(socket: Pick<Socket, 'remoteAddress'>): void {
    if (this.#trustedProxyHops === 0) this.#deps.authFailures.failed(groupedAddress(socket.remoteAddress ?? ''));
  }

  /**
   * Lets a client in that has yet to say who it is.
   * @throws TollgateError AUTH_RATE_LIMITED, OVERLOADED when too many wait already, of its address or of all
   */
  enter(request: IncomingMessage, endpoint: string): Visit {
    const { authFailures, pending, metrics } = this.#deps;
    const address = this.addressOf(request);
    const entry = pending.enter(address);
    if (!entry.admitted) {
      const error = tooManyPending(entry.full);
      metrics.handshakes.inc({ endpoint, result: error.code });
      throw error;
    }
    metrics.pending.set(pending.total);
    const leave = () => {
      entry.leave();
      metrics.pending.set(pending.total);
    };
    return new Visit(authFailures, address, leave);
  }
}

/** One client between its handshake and its authentication, or its end. */
export class Visit implements Visitor {
  readonly #failures: DoorDeps['authFailures'];
  readonly #address: string;
  /**
   * It has authenticated, or is gone. Made to be a listener as it is: a closure around it would keep the request of the
   * handshake for as long as the socket lives.
   */
  readonly leave: () => void;
  #failed = false;

  constructor(failures: DoorDeps['authFailures'], address: string, leave: () => void) {
    this.#failures = failures;
    this.#address = address;
    this.leave = leave;
  }

  /** AUTH_RATE_LIMITED while too many handshakes from this address have failed: only a good credential helps. */
  get closed(): TollgateError | undefined {
    const retryAfterMs = this.#failures.closedForMs(this.#address);
    return retryAfterMs > 0 ? new TollgateError('AUTH_RATE_LIMITED', { retryAfterMs }) : undefined;
  }

  async identify<Found>(find: () => Promise<Found>): Promise<Found> {
    try {
      const found = await find();
      if (found) this.leave();
      return found;
    } catch (thrown) {
      const error = toTollgateError(thrown);
      // Asked before this failure is counted: the last one within the bound is still told what was wrong.
      const { closed } = this;
      this.refused(error);
      throw closed && FAILURES.has(error.code) ? (this.closed ?? closed) : error;
    }
  }

  /** Counts once, however often the client is told. */
  refused(error: TollgateError): void {
    if (this.#failed || !(FAILURES.has(error.code) || BAD_INPUT.has(error.code))) return;
    this.#failed = true;
    this.#failures.failed(this.#address);
  }
}

function tooManyPending(full: 'address' | 'node'): TollgateError {
  if (full === 'node') return new TollgateError('OVERLOADED', { retryAfterMs: FULL_RETRY_MS });
  const text = 'Too many connections from this address wait for authentication; try again later.';
  return new TollgateError('AUTH_RATE_LIMITED', { text, retryAfterMs: FULL_RETRY_MS });
}
