import { TollgateError } from '../src/protocol/errors.ts';
import { type AccountStatuses, isSessionValid } from './account-status.ts';
import { serviceIdOf } from './clients.ts';
import type { LiveTokens } from './live-tokens.ts';
import type { Sessions } from './sessions.ts';

export interface IntrospectionOptions {
  readonly issuer: string;
  readonly audience: string;
}

/** Introspects tokens: RFC 7662, and the legacy `/auth/validate`. */
export class IntrospectionEndpoint {
  readonly #liveTokens: LiveTokens;
  readonly #sessions: Sessions;
  readonly #accountStatuses: AccountStatuses;
  readonly #options: IntrospectionOptions;

  constructor(
    deps: { liveTokens: LiveTokens; sessions: Sessions; accountStatuses: AccountStatuses },
    options: IntrospectionOptions,
  ) {
    this.#liveTokens = deps.liveTokens;
    this.#sessions = deps.sessions;
    this.#accountStatuses = deps.accountStatuses;
    this.#options = options;
  }

  /** Introspection response. RFC 7662 section 2.2: it does not reveal why a token is inactive. */
  async describe(token: string): Promise<object> {
    const refreshable = await this.#refreshToken(token);
    if (refreshable) return refreshable;
    const live = await this.#live(token);
    if (live instanceof TollgateError) return { active: false };
    const { issuer: iss, audience: aud } = this.#options;
    const clientId = live.use === 'service' ? serviceIdOf(live.claims.sub) : undefined;
    const username = live.use === 'access' ? live.claims.email : undefined;
    return { active: true, token_type: 'Bearer', iss, aud, client_id: clientId, username, ...live.claims };
  }

  /** Response of `/auth/validate`, which contains the reason. */
  async validate(token: string | undefined): Promise<object> {
    if (token === undefined) return { valid: false, error: 'NO_TOKEN' };
    const live = await this.#live(token);
    if (live instanceof TollgateError) return { valid: false, error: live.code };
    const { sub, exp } = live.claims;
    const noUser = { email: null, permissions: [], plan: null };
    const common = { valid: true, user_id: sub, expires_at: new Date(exp * 1000).toISOString() };
    if (live.use === 'service') return { ...common, ...noUser, service_id: serviceIdOf(sub), scope: live.claims.scope };
    const { email = null, permissions, plan = null } = live.claims;
    return { ...common, email, permissions, plan };
  }

  async #refreshToken(token: string): Promise<object | undefined> {
    const session = await this.#sessions.findByRefreshToken(token);
    if (!session) return undefined;
    const accountStatus = await this.#accountStatuses.of(session.userId);
    if (accountStatus.blocked || !isSessionValid(accountStatus, session)) return { active: false };
    const { userId: sub, id: sid, email: username, expiresAt } = session;
    return { active: true, token_use: 'refresh', sub, sid, username, exp: Math.floor(expiresAt / 1000) };
  }

  /** Returns the valid token, or the error that describes why it is invalid. Throws for an outage. */
  async #live(token: string): Promise<Awaited<ReturnType<LiveTokens['check']>> | TollgateError> {
    try {
      return await this.#liveTokens.check(token);
    } catch (error) {
      if (error instanceof TollgateError && error.row.close === 1008) return error;
      throw error;
    }
  }
}
