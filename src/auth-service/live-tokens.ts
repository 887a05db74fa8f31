import type { Clock } from '../lib/clock.ts';
import type { Revocations } from '../policy/revocations.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Session, Sessions } from './sessions.ts';
import { type Standing, type Standings, standsFor } from './standings.ts';
import type { AccessClaims, ServiceClaims, Tokens } from './tokens.ts';

export interface LiveAccessToken {
  readonly use: 'access';
  readonly claims: AccessClaims;
  /** Undefined for a token that names none, which no token issued here does. */
  readonly session: Session | undefined;
  readonly standing: Standing;
}

export interface LiveServiceToken {
  readonly use: 'service';
  readonly claims: ServiceClaims;
}

export interface LiveTokenOptions {
  /** How long ago a token may have expired that is exchanged for the next one. */
  readonly exchangeGraceMs: number;
}

/** Whether a token is good at this moment: signed here, in time, not revoked, its session alive, its user not blocked. */
export class LiveTokens {
  readonly #tokens: Tokens;
  readonly #revocations: Revocations;
  readonly #sessions: Sessions;
  readonly #standings: Standings;
  readonly #clock: Clock;
  readonly #options: LiveTokenOptions;

  constructor(
    deps: { tokens: Tokens; revocations: Revocations; sessions: Sessions; standings: Standings; clock: Clock },
    options: LiveTokenOptions,
  ) {
    this.#tokens = deps.tokens;
    this.#revocations = deps.revocations;
    this.#sessions = deps.sessions;
    this.#standings = deps.standings;
    this.#clock = deps.clock;
    this.#options = options;
  }

  /** @throws TollgateError VALIDATION_FAILED, TOKEN_EXPIRED, TOKEN_REVOKED, USER_BLOCKED, OVERLOADED */
  check(token: string): Promise<LiveAccessToken | LiveServiceToken> {
    return this.#check(token, 0);
  }

  /** As `check`, for a service's token only. @throws TollgateError as `check` */
  async service(token: string): Promise<ServiceClaims> {
    const live = await this.check(token);
    if (live.use !== 'service') throw new TollgateError('VALIDATION_FAILED');
    return live.claims;
  }

  /** As `check`, for an access token that may have expired a little while ago. @throws TollgateError as `check` */
  async exchangeable(token: string): Promise<LiveAccessToken & { readonly session: Session }> {
    const live = await this.#check(token, this.#options.exchangeGraceMs);
    if (live.use !== 'access') throw new TollgateError('VALIDATION_FAILED');
    if (!live.session) throw new TollgateError('TOKEN_REVOKED');
    return { ...live, session: live.session };
  }

  /** Revokes a token, an access token together with its session. What is no token of ours is left alone. */
  async revoke(token: string): Promise<void> {
    if (await this.#sessions.endByRefreshToken(token)) return;
    const claims = this.#readAny(token);
    if (!claims) return;
    const leftMs = claims.exp * 1000 + this.#options.exchangeGraceMs - this.#clock.now();
    if (leftMs > 0) await this.#revocations.revoke(`jti:${claims.jti}`, leftMs);
    if (claims.token_use === 'access' && claims.sid !== undefined) await this.#sessions.end(claims.sid);
  }

  async #check(token: string, expiredForMs: number): Promise<LiveAccessToken | LiveServiceToken> {
    const claims = this.#tokens.read(token, expiredForMs);
    if (claims.token_use === 'service') {
      if (await this.#revocations.any([`jti:${claims.jti}`])) throw new TollgateError('TOKEN_REVOKED');
      return { use: 'service', claims };
    }
    // Sent together: one round trip.
    const [revoked, session, standing] = await Promise.all([
      this.#revocations.any([`jti:${claims.jti}`]),
      claims.sid === undefined ? undefined : this.#sessions.find(claims.sid),
      this.#standings.of(claims.sub),
    ]);
    if (standing.blocked) throw new TollgateError('USER_BLOCKED');
    const alive = session?.userId === claims.sub && standsFor(standing, session);
    if (revoked || claims.iat * 1000 < standing.revokedBefore || (claims.sid !== undefined && !alive))
      throw new TollgateError('TOKEN_REVOKED');
    return { use: 'access', claims, session, standing };
  }

  /** A token's claims however long ago it expired: its session can be alive still. */
  #readAny(token: string): AccessClaims | ServiceClaims | undefined {
    try {
      return this.#tokens.read(token, Number.POSITIVE_INFINITY);
    } catch {
      return undefined;
    }
  }
}
