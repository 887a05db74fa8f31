import type { FastifyRequest } from 'fastify';
import type { Accounts } from '../accounts/accounts.ts';
import type { Authenticator, RevokedCredentials } from '../auth/authenticator.ts';
import type { ServiceIdentity } from '../auth/tokens.ts';
import { type IdentifyService, requireScope, withIncludedScopes } from '../http/services.ts';
import type { Clock } from '../lib/clock.ts';
import { LocalLimiter } from '../limits/local-limiter.ts';
import { type ErrorCode, TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { ConnectionGuard } from '../transports/connection-guard.ts';
import { presentedCredentials } from '../transports/handshake-request.ts';

const MINUTE_MS = 60_000;
/**
 * Requests per operator, minute and node; also per service at the routes of the console. A page of the console sends
 * ten.
 */
const REQUESTS_PER_MINUTE = 600;
const CONSOLE_ROUTES = /^\/v1\/(admin\/|audit)/;

export interface AdminCallersDeps {
  readonly authenticator: Pick<Authenticator, 'service'>;
  readonly guard: Pick<ConnectionGuard, 'attempt'>;
  readonly accounts: Pick<Accounts, 'read'>;
  /** Revocations that this node has received. */
  readonly revoked: RevokedCredentials;
  readonly clock: Clock;
}

/** Authenticates services and operators, and remembers the caller of each request for the audit log. */
export class AdminCallers {
  readonly #deps: AdminCallersDeps;
  readonly #limiter: LocalLimiter;
  readonly #callers = new WeakMap<FastifyRequest, ServiceIdentity>();

  constructor(deps: AdminCallersDeps) {
    this.#deps = deps;
    this.#limiter = new LocalLimiter(deps, { windowMs: MINUTE_MS });
  }

  /** As in a handshake, too many failures block the address. */
  readonly identify: IdentifyService = async (request, scope) => {
    const { headers } = presentedCredentials(request.raw);
    if (headers.authorization === undefined) throw new TollgateError('NO_TOKEN');
    const attempt = this.#deps.guard.attempt(request.raw);
    const caller = await attempt.authenticate(() => this.#authenticate(headers));
    this.#callers.set(request, caller);
    this.#limit(request, caller);
    requireScope(caller, scope);
    return caller;
  };

  /** The caller of an authenticated request, even if it lacks the scope; undefined for any other. */
  callerOf(request: FastifyRequest): ServiceIdentity | undefined {
    return this.#callers.get(request);
  }

  /** Returns the reason why the caller of an open stream is no longer admitted; undefined if it is. */
  async recheck(caller: ServiceIdentity): Promise<ErrorCode | undefined> {
    const { tokenId, operator } = caller;
    if (this.#deps.revoked.has({ tokenId, sessionId: operator?.sessionId })) return 'TOKEN_REVOKED';
    if (!operator) return undefined;
    try {
      await this.#admit(caller, operator.userId);
      return undefined;
    } catch (error) {
      const { code, row } = toTollgateError(error);
      // An outage ends no stream.
      return row.http < 500 ? code : undefined;
    }
  }

  async #authenticate(headers: Parameters<Authenticator['service']>[0]): Promise<ServiceIdentity> {
    const caller = await this.#deps.authenticator.service(headers);
    // A service has no account, and the issuer ends its tokens. An operator is a user like any other.
    if (caller.operator) await this.#admit(caller, caller.operator.userId);
    return withIncludedScopes(caller);
  }

  async #admit({ tokenIssuedAt }: ServiceIdentity, userId: string): Promise<void> {
    const { blocked, revokedBefore } = await this.#deps.accounts.read(userId);
    if (blocked) throw new TollgateError('USER_BLOCKED');
    if (tokenIssuedAt < revokedBefore) throw new TollgateError('TOKEN_REVOKED');
  }

  #limit(request: FastifyRequest, { serviceId, operator }: ServiceIdentity): void {
    if (!operator && !CONSOLE_ROUTES.test(request.routeOptions.url ?? '')) return;
    const retryAfterMs = this.#limiter.refusalMs(serviceId, REQUESTS_PER_MINUTE);
    if (retryAfterMs > 0) throw new TollgateError('RATE_LIMITED', { retryAfterMs });
    this.#limiter.grant(serviceId);
  }
}
