import type { IncomingMessage } from 'node:http';
import type { Visitor } from '../connections/opening.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { AuthFailures } from '../policy/auth-failures.ts';
import type { PendingConnections } from '../policy/pending-connections.ts';
import { type ErrorCode, TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import { clientAddress } from './client-address.ts';

/** By then most that are in the way have authenticated or have been cut off. */
const FULL_RETRY_MS = 5_000;

/** What is the client's own doing. An outage of ours, or a handshake that was too slow, is nobody's failure. */
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

  /**
   * Lets a client in that has yet to say who it is.
   * @throws TollgateError AUTH_RATE_LIMITED, OVERLOADED when too many wait already, of its address or of all
   */
  enter(request: IncomingMessage, endpoint: string): Visit {
    const { authFailures, pending, metrics } = this.#deps;
    const address = clientAddress(request, this.#trustedProxyHops);
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

  async identify<Found extends Identity | undefined>(find: () => Promise<Found>): Promise<Found> {
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
    if (this.#failed || !FAILURES.has(error.code)) return;
    this.#failed = true;
    this.#failures.failed(this.#address);
  }
}

function tooManyPending(full: 'address' | 'node'): TollgateError {
  if (full === 'node') return new TollgateError('OVERLOADED', { retryAfterMs: FULL_RETRY_MS });
  const text = 'Too many connections from this address wait for authentication; try again later.';
  return new TollgateError('AUTH_RATE_LIMITED', { text, retryAfterMs: FULL_RETRY_MS });
}
