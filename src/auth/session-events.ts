import { LRUCache } from 'lru-cache';
import { isObject } from '../lib/json.ts';
import type { JsonObject } from '../lib/jws.ts';
import { idOf, seconds } from './claims.ts';
import { claimAt, firstClaim } from './providers/claim-mapping.ts';
import type { IdentityProvider } from './providers/identity-provider.ts';
import { refusedClaim } from './token-fault.ts';
import type { TokenVerifier } from './tokens.ts';
import { userIdOf } from './user-id.ts';

const LOGOUT = 'http://schemas.openid.net/event/backchannel-logout';
const SESSION_REVOKED = 'https://schemas.openid.net/secevent/caep/event-type/session-revoked';
/** Ids of processed events. A repetition has no further effect, so this bound only saves round trips. */
const REMEMBERED = 10_000;

/** What an event of an identity provider ends: one session, or the tokens of a user that are older than a time. */
export type EndedSession =
  | { readonly kind: 'session'; readonly sessionId: string }
  /** `before` in milliseconds: that of the event, so that a repetition does not revoke tokens of a later login. */
  | { readonly kind: 'user'; readonly userId: string; readonly before: number };

/** Verifies and applies events with which identity providers end sessions. */
export class SessionEvents {
  readonly #tokens: Pick<TokenVerifier, 'verifyEvent'>;
  readonly #end: (ended: EndedSession) => Promise<void>;
  readonly #seen = new LRUCache<string, true>({ max: REMEMBERED });

  /** @param end ends the session on every node; repetitions have no further effect */
  constructor(deps: { tokens: Pick<TokenVerifier, 'verifyEvent'>; end: (ended: EndedSession) => Promise<void> }) {
    this.#tokens = deps.tokens;
    this.#end = deps.end;
  }

  /**
   * Reads a logout token (OpenID Connect Back-Channel Logout 1.0 section 2.6).
   * @throws TollgateError VALIDATION_FAILED with the name of the claim; AUTH_SERVICE_UNAVAILABLE without the keys;
   *   OVERLOADED while Redis is unavailable
   */
  async logout(token: string): Promise<void> {
    const { provider, claims } = await this.#tokens.verifyEvent(token, 'logout+jwt');
    if (eventOf(claims, LOGOUT) === undefined) throw refusedClaim('events', 'not a logout event');
    // The specification forbids it, so that no ID token is a logout token.
    if (claims.nonce !== undefined) throw refusedClaim('nonce', 'a logout token has none');
    const session = idOf(claims.sid);
    const ended =
      session === undefined ? userOf(provider, claims, claims) : { kind: 'session' as const, sessionId: session };
    if (!ended) throw refusedClaim('sub', 'names neither a session nor a user');
    return this.#once(provider, claims, () => this.#end(ended));
  }

  /**
   * Reads a security event token (RFC 8417). The CAEP event `session-revoked` has an effect, other events have none.
   * @throws TollgateError as `logout`
   */
  async securityEvent(token: string): Promise<void> {
    const { provider, claims } = await this.#tokens.verifyEvent(token, 'secevent+jwt');
    const event = eventOf(claims, SESSION_REVOKED);
    if (!event) return;
    // The subject is a claim of the token (Shared Signals Framework 1.0), in older versions a member of the event.
    const subject = objectOf(claims.sub_id) ?? objectOf(event.subject);
    if (!subject) throw refusedClaim('sub_id', 'the subject is missing');
    const ended = sessionOf(subject) ?? userOf(provider, objectOf(subject.user) ?? subject, claims);
    if (!ended) throw refusedClaim('sub_id', 'names neither a session nor a user');
    return this.#once(provider, claims, () => this.#end(ended));
  }

  /**
   * Applies an event once. It is remembered after it has taken effect, so that a failed one can be delivered again.
   */
  async #once({ name }: IdentityProvider, { jti }: JsonObject, apply: () => Promise<void>): Promise<void> {
    if (typeof jti !== 'string' || jti === '') throw refusedClaim('jti', 'the claim is missing');
    const key = `${name} ${idOf(jti)}`;
    if (this.#seen.has(key)) return;
    await apply();
    this.#seen.set(key, true);
  }
}

function eventOf({ events }: JsonObject, type: string): JsonObject | undefined {
  return objectOf(objectOf(events)?.[type]);
}

/** Subject identifiers of RFC 9493: a complex subject has a member per kind, a simple one is a user. */
function sessionOf(subject: JsonObject): EndedSession | undefined {
  const sessionId = idOf(objectOf(subject.session)?.id);
  return sessionId === undefined ? undefined : { kind: 'session', sessionId };
}

/**
 * @param subject the claims of a logout token, or a subject identifier with `iss` and `sub` (RFC 9493 section 3.2.4)
 */
function userOf(provider: IdentityProvider, subject: JsonObject, claims: JsonObject): EndedSession | undefined {
  if (subject.iss !== undefined && subject.iss !== provider.issuer) throw refusedClaim('sub_id', 'of another issuer');
  const id = firstClaim(subject, provider.claims.user_id)?.value ?? claimAt(subject, 'sub');
  const userId = typeof id === 'string' ? userIdOf(id, provider.userPrefix) : undefined;
  const issuedAt = seconds(claims, 'iat');
  if (userId === undefined || issuedAt === undefined) return undefined;
  // Times of tokens have a resolution of a second: those of the same second are older.
  return { kind: 'user', userId, before: Math.floor(issuedAt * 1000) + 1 };
}

function objectOf(value: unknown): JsonObject | undefined {
  return isObject(value) ? value : undefined;
}
