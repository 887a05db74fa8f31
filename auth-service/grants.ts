import type { Plans } from '../src/catalogue/plans.ts';
import { type Logger, userHash } from '../src/lib/logger.ts';
import { TollgateError } from '../src/protocol/errors.ts';
import { type AccountStatus, type AccountStatuses, isSessionValid } from './account-status.ts';
import { type AuthorizationCodes, type CodeGrant, verifiesChallenge } from './authorization-codes.ts';
import { type ConsoleClient, includesOpenId } from './console-client.ts';
import type { IdTokens } from './id-tokens.ts';
import type { LiveTokens } from './live-tokens.ts';
import type { Logins } from './logins.ts';
import type { Session, Sessions } from './sessions.ts';
import type { SignedToken, TokenIssuer } from './token-issuer.ts';
import type { User, Users } from './users.ts';

/** RFC 6749 section 5.1; `token_type` is always the same. */
export interface TokenResponse {
  readonly access_token: string;
  readonly token_type: 'Bearer';
  /** Seconds. */
  readonly expires_in: number;
}

export interface SessionResponse extends TokenResponse {
  readonly refresh_token: string;
  /** Only for the console: the scopes of the access token. */
  readonly scope?: string;
  /** Only for an authorization code whose scopes include `openid`. */
  readonly id_token?: string;
}

/** A token request with an authorization code: RFC 6749 section 4.1.3, RFC 7636 section 4.5. */
export interface CodeRequest {
  readonly code: string;
  readonly redirectUri: string;
  readonly verifier: string;
}

export interface ServiceTokenResponse extends TokenResponse {
  readonly scope: string;
}

export interface GrantsDeps {
  readonly tokens: TokenIssuer;
  readonly sessions: Sessions;
  readonly accountStatuses: AccountStatuses;
  readonly users: Users;
  readonly logins: Logins;
  readonly liveTokens: LiveTokens;
  readonly plans: Plans;
  readonly logger: Logger;
  readonly codes: AuthorizationCodes;
  readonly idTokens: IdTokens;
  readonly console: ConsoleClient;
}

/** Issues tokens for verified grants. Both the OAuth routes and the legacy routes use it. */
export class Grants {
  readonly #deps: GrantsDeps;

  constructor(deps: GrantsDeps) {
    this.#deps = deps;
  }

  /** @throws TollgateError VALIDATION_FAILED, AUTH_RATE_LIMITED, USER_BLOCKED, OVERLOADED */
  async password(email: string, password: string, client: string): Promise<SessionResponse> {
    const user = await this.#deps.logins.verify(email, password);
    const accountStatus = await this.#deps.accountStatuses.of(user.id);
    if (accountStatus.blocked) throw new TollgateError('USER_BLOCKED');
    const owner = { userId: user.id, email: user.email, client, generation: accountStatus.sessionGeneration };
    const { session, refreshToken } = await this.#deps.sessions.start(owner);
    return { ...this.#access(user, accountStatus, session), refresh_token: refreshToken };
  }

  /** Verifies a password at the sign-in page. @throws TollgateError as `password` */
  async signIn(email: string, password: string): Promise<User> {
    const user = await this.#deps.logins.verify(email, password);
    if ((await this.#deps.accountStatuses.of(user.id)).blocked) throw new TollgateError('USER_BLOCKED');
    return user;
  }

  /**
   * Starts the session of an authorization code for the console. A second use of the code ends the session that the first
   * one started (RFC 6749 section 4.1.2): one of both senders has stolen it.
   * @throws TollgateError VALIDATION_FAILED, TOKEN_REVOKED, USER_BLOCKED, OVERLOADED
   */
  async code({ code, redirectUri, verifier }: CodeRequest): Promise<SessionResponse> {
    const { codes, sessions, accountStatuses, console, idTokens, logger } = this.#deps;
    const redemption = await codes.redeem(code);
    if (redemption.result === 'used') {
      logger.warn('authorization code used twice');
      if (redemption.sessionId !== undefined) await sessions.end(redemption.sessionId);
    }
    if (redemption.result !== 'redeemed') throw new TollgateError('VALIDATION_FAILED');
    const { grant } = redemption;
    if (grant.redirectUri !== redirectUri || !verifiesChallenge(verifier, grant.challenge)) {
      throw new TollgateError('VALIDATION_FAILED');
    }
    const accountStatus = await accountStatuses.of(grant.userId);
    const { email, userId, scope } = grant;
    const owner = { userId, email, client: console.key, generation: accountStatus.sessionGeneration };
    const { session, refreshToken } = await sessions.start(owner, scope);
    const user = await this.#userOf(session, accountStatus);
    await codes.started(code, session.id);
    const issued = this.#access(user, accountStatus, session, scope);
    const id = includesOpenId(scope)
      ? { id_token: idTokens.sign({ ...idTokenSubject(grant), sessionId: session.id }) }
      : {};
    return { ...issued, refresh_token: refreshToken, scope, ...id };
  }

  /** @throws TollgateError VALIDATION_FAILED, TOKEN_REVOKED, USER_BLOCKED, OVERLOADED */
  async refresh(presented: string, client: string): Promise<SessionResponse> {
    const rotation = await this.#deps.sessions.rotate(presented, client);
    if (rotation.result === 'refused') throw new TollgateError('VALIDATION_FAILED');
    if (rotation.result === 'revoked') throw new TollgateError('TOKEN_REVOKED');
    if (rotation.result === 'reused') {
      this.#deps.logger.warn({ user: userHash(rotation.userId) }, 'refresh token reused, session ended');
      throw new TollgateError('TOKEN_REVOKED');
    }
    const { session, refreshToken } = rotation;
    const accountStatus = await this.#deps.accountStatuses.of(session.userId);
    const user = await this.#userOf(session, accountStatus);
    if (client !== this.#deps.console.key) {
      return { ...this.#access(user, accountStatus, session), refresh_token: refreshToken };
    }
    // The roles of the user may have changed since the sign-in.
    const scope = this.#deps.console.grantedScope(await this.#deps.sessions.scopeOf(session.id), user.roles);
    return { ...this.#access(user, accountStatus, session, scope), refresh_token: refreshToken, scope };
  }

  /**
   * Issues the next access token of a live session to a service that keeps a connection of the user open. The exchange
   * does not extend the session; only a refresh by the user does. The token has no scope: a worker does not need that of
   * an administrator.
   * @throws TollgateError VALIDATION_FAILED, TOKEN_EXPIRED, TOKEN_REVOKED, USER_BLOCKED, OVERLOADED
   */
  async exchange(subjectToken: string): Promise<TokenResponse> {
    const { session, accountStatus } = await this.#deps.liveTokens.exchangeable(subjectToken);
    const user = await this.#userOf(session, accountStatus);
    return this.#access(user, accountStatus, session);
  }

  /** Issues a token to a service whose secret was verified. */
  service(serviceId: string, scopes: readonly string[]): ServiceTokenResponse {
    return { ...response(this.#deps.tokens.signService(serviceId, scopes)), scope: scopes.join(' ') };
  }

  /** Returns the user of a session that may continue; otherwise ends the session and throws. */
  async #userOf(session: Session, accountStatus: AccountStatus): Promise<User> {
    const record = await this.#deps.users.find(session.email);
    const current = isSessionValid(accountStatus, session) && record?.user.id === session.userId;
    if (current && !accountStatus.blocked) return record.user;
    await this.#deps.sessions.end(session.id);
    throw new TollgateError(accountStatus.blocked ? 'USER_BLOCKED' : 'TOKEN_REVOKED');
  }

  /** @param scope scopes of a token for the console */
  #access(user: User, accountStatus: AccountStatus, session: Session, scope?: string): TokenResponse {
    const plan = this.#deps.plans.effective(accountStatus.plan ?? user.plan);
    const subject = {
      sub: user.id,
      sid: session.id,
      email: user.email,
      plan: plan.name,
      permissions: [...plan.permissions],
      roles: [...user.roles],
      feature_flags: Object.fromEntries(plan.featureFlags.map((flag) => [flag, true])),
    };
    const granted = scope === undefined ? {} : { client_id: this.#deps.console.id, scope };
    return response(this.#deps.tokens.signAccess({ ...subject, ...granted }, session.expiresAt));
  }
}

function idTokenSubject({ userId, email, nonce, signedInAt }: CodeGrant) {
  return { userId, email, nonce, signedInAt };
}

function response({ token, expiresInSeconds }: SignedToken): TokenResponse {
  return { access_token: token, token_type: 'Bearer', expires_in: expiresInSeconds };
}
