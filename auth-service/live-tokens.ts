import type { Revocations } from '../src/accounts/revocations.ts';
import type { Clock } from '../src/lib/clock.ts';
import { TollgateError } from '../src/protocol/errors.ts';
import { type AccountStatus, type AccountStatuses, isSessionValid } from './account-status.ts';
import type { Session, Sessions } from './sessions.ts';
import type { AccessClaims, ServiceClaims, TokenIssuer } from './token-issuer.ts';

export interface LiveAccessToken {
  readonly use: 'access';
  readonly claims: AccessClaims;
  /** Undefined for a token without a session, which this service never issues. */
  readonly session: Session | undefined;
  readonly accountStatus: AccountStatus;
}

export interface LiveServiceToken {
  readonly use: 'service';
  readonly claims: ServiceClaims;
}

export interface LiveTokenOptions {
  /** Maximum time since the expiry of a token that is exchanged for the next one. */
  readonly exchangeGraceMs: number;
}

/**
 * Checks whether a token is active: signed here, not expired, not revoked, with a live session and an unblocked user.
 */
export class LiveTokens {
  readonly #tokens: TokenIssuer;
  readonly #revocations: Revocations;
  readonly #sessions: Sessions;
  readonly #accountStatuses: AccountStatuses;
  readonly #clock: Clock;
  readonly #options: LiveTokenOptions;

  constructor(
    deps: {
      tokens: TokenIssuer;
      revocations: Revocations;
      sessions: Sessions;
      accountStatuses: AccountStatuses;
      clock: Clock;
    },
    options: LiveTokenOptions,
  ) {
    this.#tokens = deps.tokens;
    this.#revocations = deps.revocations;
    this.#sessions = deps.sessions;
    this.#accountStatuses = deps.accountStatuses;
    this.#clock = deps.clock;
    this.#options = options;
  }

  /** @throws TollgateError VALIDATION_FAILED, TOKEN_EXPIRED, TOKEN_REVOKED, USER_BLOCKED, OVERLOADED */
  check(token: string): Promise<LiveAccessToken | LiveServiceToken> {
    return this.#check(token, 0);
  }

  /** As `check`, but accepts only service tokens. @throws TollgateError as `check` */
  async service(token: string): Promise<ServiceClaims> {
    const live = await this.check(token);
    if (live.use !== 'service') throw new TollgateError('VALIDATION_FAILED');
    return live.claims;
  }

  /**
   * As `check`, for an access token that may have expired within `exchangeGraceMs`.
   * @throws TollgateError as `check`
   */
  async exchangeable(token: string): Promise<LiveAccessToken & { readonly session: Session }> {
    const live = await this.#check(token, this.#options.exchangeGraceMs);
    if (live.use !== 'access') throw new TollgateError('VALIDATION_FAILED');
    if (!live.session) throw new TollgateError('TOKEN_REVOKED');
    return { ...live, session: live.session };
  }

  /** Revokes a token; an access or refresh token together with its session. Other strings are ignored. */
  async revoke(token: string): Promise<void> {
    if (await this.#sessions.endByRefreshToken(token)) return;
    const claims = this.#readAny(token);
    if (!claims) return;
    const remainingMs = claims.exp * 1000 + this.#options.exchangeGraceMs - this.#clock.now();
    if (remainingMs > 0) await this.#revocations.revoke(`jti:${claims.jti}`, remainingMs);
    if (claims.token_use === 'access' && claims.sid !== undefined) await this.#sessions.end(claims.sid);
  }

  async #check(token: string, expiredForMs: number): Promise<LiveAccessToken | LiveServiceToken> {
    const claims = this.#tokens.read(token, expiredForMs);
    if (claims.token_use === 'service') {
      if (await this.#revocations.any([`jti:${claims.jti}`])) throw new TollgateError('TOKEN_REVOKED');
      return { use: 'service', claims };
    }
    // Pipelined: one round trip.
    const [revoked, session, accountStatus] = await Promise.all([
      this.#revocations.any([`jti:${claims.jti}`]),
      claims.sid === undefined ? undefined : this.#sessions.find(claims.sid),
      this.#accountStatuses.of(claims.sub),
    ]);
    if (accountStatus.blocked) throw new TollgateError('USER_BLOCKED');
    const alive = session?.userId === claims.sub && isSessionValid(accountStatus, session);
    if (revoked || claims.iat * 1000 < accountStatus.revokedBefore || (claims.sid !== undefined && !alive))
      throw new TollgateError('TOKEN_REVOKED');
    return { use: 'access', claims, session, accountStatus };
  }

  /** Reads the claims of a token even if it has expired, because its session may still be live. */
  #readAny(token: string): AccessClaims | ServiceClaims | undefined {
    try {
      return this.#tokens.read(token, Number.POSITIVE_INFINITY);
    } catch {
      return undefined;
    }
  }
}
