import { type Logger, userHash } from '../lib/logger.ts';
import type { Plans } from '../policy/plans.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { LiveTokens } from './live-tokens.ts';
import type { Logins } from './logins.ts';
import type { Session, Sessions } from './sessions.ts';
import { type Standing, type Standings, standsFor } from './standings.ts';
import type { SignedToken, Tokens } from './tokens.ts';
import type { User, Users } from './users.ts';

/** RFC 6749 section 5.1; `token_type` is the same for all. */
export interface TokenResponse {
  readonly access_token: string;
  readonly token_type: 'Bearer';
  /** Seconds. */
  readonly expires_in: number;
}

export interface SessionResponse extends TokenResponse {
  readonly refresh_token: string;
}

export interface ServiceTokenResponse extends TokenResponse {
  readonly scope: string;
}

export interface GrantsDeps {
  readonly tokens: Tokens;
  readonly sessions: Sessions;
  readonly standings: Standings;
  readonly users: Users;
  readonly logins: Logins;
  readonly liveTokens: LiveTokens;
  readonly plans: Plans;
  readonly logger: Logger;
}

/** Turns a proof into tokens: the only way to one, for the OAuth routes and for the older ones. */
export class Grants {
  readonly #deps: GrantsDeps;

  constructor(deps: GrantsDeps) {
    this.#deps = deps;
  }

  /** @throws TollgateError VALIDATION_FAILED, AUTH_RATE_LIMITED, USER_BLOCKED, OVERLOADED */
  async password(email: string, password: string, client: string): Promise<SessionResponse> {
    const user = await this.#deps.logins.verify(email, password);
    const standing = await this.#deps.standings.of(user.id);
    if (standing.blocked) throw new TollgateError('USER_BLOCKED');
    const owner = { userId: user.id, email: user.email, client, epoch: standing.sessionEpoch };
    const { session, refreshToken } = await this.#deps.sessions.start(owner);
    return { ...this.#access(user, standing, session), refresh_token: refreshToken };
  }

  /** @throws TollgateError VALIDATION_FAILED, TOKEN_REVOKED, USER_BLOCKED, OVERLOADED */
  async refresh(presented: string, client: string): Promise<SessionResponse> {
    const rotation = await this.#deps.sessions.rotate(presented, client);
    if (rotation.result === 'refused') throw new TollgateError('VALIDATION_FAILED');
    if (rotation.result === 'revoked') throw new TollgateError('TOKEN_REVOKED');
    if (rotation.result === 'reused') {
      this.#deps.logger.warn({ user: userHash(rotation.userId) }, 'used refresh token presented again: session ended');
      throw new TollgateError('TOKEN_REVOKED');
    }
    const { session, refreshToken } = rotation;
    const standing = await this.#deps.standings.of(session.userId);
    const user = await this.#userOf(session, standing);
    return { ...this.#access(user, standing, session), refresh_token: refreshToken };
  }

  /**
   * The next access token of a live session, for a service that holds a connection open on behalf of its user. It does
   * not prolong the session: only the user's own refresh does.
   * @throws TollgateError VALIDATION_FAILED, TOKEN_EXPIRED, TOKEN_REVOKED, USER_BLOCKED, OVERLOADED
   */
  async exchange(subjectToken: string): Promise<TokenResponse> {
    const { session, standing } = await this.#deps.liveTokens.exchangeable(subjectToken);
    const user = await this.#userOf(session, standing);
    return this.#access(user, standing, session);
  }

  /** A token for a service whose secret was verified. */
  service(serviceId: string, scopes: readonly string[]): ServiceTokenResponse {
    return { ...response(this.#deps.tokens.signService(serviceId, scopes)), scope: scopes.join(' ') };
  }

  /** The user a session may go on for; ends the session otherwise. */
  async #userOf(session: Session, standing: Standing): Promise<User> {
    const record = await this.#deps.users.find(session.email);
    const current = standsFor(standing, session) && record?.user.id === session.userId;
    if (current && !standing.blocked) return record.user;
    await this.#deps.sessions.end(session.id);
    throw new TollgateError(standing.blocked ? 'USER_BLOCKED' : 'TOKEN_REVOKED');
  }

  #access(user: User, standing: Standing, session: Session): TokenResponse {
    const plan = this.#deps.plans.effective(standing.plan ?? user.plan);
    const subject = {
      sub: user.id,
      sid: session.id,
      email: user.email,
      plan: plan.name,
      permissions: [...plan.permissions],
      roles: [...user.roles],
      feature_flags: Object.fromEntries(plan.featureFlags.map((flag) => [flag, true])),
    };
    return response(this.#deps.tokens.signAccess(subject, session.expiresAt));
  }
}

function response({ token, expiresInSeconds }: SignedToken): TokenResponse {
  return { access_token: token, token_type: 'Bearer', expires_in: expiresInSeconds };
}
