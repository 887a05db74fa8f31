import type { Config } from '../../config.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Identity } from '../../protocol/identity.ts';
import type { Refusal, TokenControl } from '../../protocol/token-lifecycle.ts';
import type { Redis } from '../../redis/client.ts';
import { type Keys, PARTITIONS } from '../../redis/keys.ts';
import { LuaScript } from '../../redis/scripts.ts';
import type { SealedToken, TokenSeal } from './token-seal.ts';

const registerToken = LuaScript.load('registerToken-3');
const unregisterToken = LuaScript.load('unregisterToken-3');
const requestRefresh = LuaScript.load('requestRefresh-2');
const claimDueTokens = LuaScript.load('claimDueTokens-1');
const readDueToken = LuaScript.load('readDueToken-4');
const failToken = LuaScript.load('failToken-2');
const endTokenSession = LuaScript.load('endTokenSession-3');

/**
 * How long a worker has for one refresh before another may take it: longer than the auth service's client tries, and
 * longer than the 5 s by which the clocks of workers may differ (tokens themselves allow no more).
 */
export const CLAIM_MS = 15_000;
/** Refreshes come up to this much earlier than they must, so that connections opened together do not meet again. */
const JITTER_MS = 1_000;
/** A token so short that the lead would eat it is refreshed after a third of its life at the earliest. */
const LEAST_WAIT = 1 / 3;

export interface TokenLifecycleTimes {
  /** How long before its end a token is refreshed. */
  readonly leadMs: number;
  /** How long after its end it may still be exchanged. */
  readonly graceMs: number;
}

export function tokenLifecycleTimes(config: Config): TokenLifecycleTimes {
  return {
    leadMs: config.TOKEN_REFRESH_LEAD_SECONDS * 1000,
    graceMs: config.TOKEN_DEGRADED_TIMEOUT_SECONDS * 1000,
  };
}

/** A login session of a user, `sid:…`; a token that names none is a session of its own, `jti:…`. */
export interface TokenSessionRef {
  readonly userId: string;
  readonly session: SessionName;
}

type SessionName = `sid:${string}` | `jti:${string}`;

export function sessionOf({ userId, sessionId, tokenId }: Identity): TokenSessionRef {
  return { userId, session: sessionId === undefined ? `jti:${tokenId}` : `sid:${sessionId}` };
}

export interface SessionToken {
  readonly token: string;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
  /** How often the session has got a newer token. */
  readonly refreshes: number;
}

/** A token to refresh, and how often that has failed in a row. */
export interface DueToken {
  readonly ref: TokenSessionRef;
  readonly token: string;
  readonly expiresAt: number;
  readonly failures: number;
}

/**
 * The latest token of every login session that has a live connection, and when it is to be refreshed: a sorted set for
 * each partition, so that what is not due costs nothing.
 *
 * States of a session: `refresh_scheduled` → `refreshing` → `refresh_scheduled` | `refresh_failed` → `degraded`; gone
 * with its last connection, at a refusal, or when its grace has passed.
 */
export class TokenSessions {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #clock: Clock;
  readonly #seal: TokenSeal;
  readonly #times: TokenLifecycleTimes;

  constructor(deps: { redis: Redis; keys: Keys; clock: Clock; seal: TokenSeal }, times: TokenLifecycleTimes) {
    this.#redis = deps.redis;
    this.#keys = deps.keys;
    this.#clock = deps.clock;
    this.#seal = deps.seal;
    this.#times = times;
  }

  /**
   * A connection has this token. The session's other connections hear of one that ends later than theirs.
   * @returns the session's token when that is a later one
   * @throws TollgateError OVERLOADED while Redis is away
   */
  async register(
    ref: TokenSessionRef,
    connectionId: string,
    { sealed, expiresAt }: { readonly sealed: SealedToken; readonly expiresAt: number },
  ): Promise<SessionToken | undefined> {
    const reply = await this.#registerToken(ref, connectionId, sealed, expiresAt);
    if (reply[0] !== 'older') return undefined;
    const [, kept, keptUntil, refreshes] = reply;
    return this.#opened(kept, keptUntil, refreshes);
  }

  /** Stores what a refresh has brought, and tells it. False when the session has no connection any more. */
  async refreshed(ref: TokenSessionRef, token: string, expiresAt: number): Promise<boolean> {
    const reply = await this.#registerToken(ref, '', this.#seal.seal(token), expiresAt);
    return reply[0] !== 'gone';
  }

  /** The session's token as it is kept, for a node that may have missed the news of it. @throws as `hold` */
  async current(ref: TokenSessionRef): Promise<SessionToken | undefined> {
    const key = this.#keys.user(ref.userId).tokenSession(ref.session);
    const [token, expiresAt, refreshes] = await this.#redis.hmget(key, 'token', 'expires_at', 'refreshes');
    if (!token) return undefined;
    return this.#opened(token, Number(expiresAt), Number(refreshes));
  }

  /** The token that a control message brings; undefined when it cannot be read. */
  fromControl({ token, expires_at, refreshes }: Extract<TokenControl, { control: 'token' }>): SessionToken | undefined {
    return this.#opened(token, expires_at, refreshes);
  }

  /** A connection has left the session. */
  async unregister(ref: TokenSessionRef, connectionId: string): Promise<void> {
    await unregisterToken.run(this.#redis, this.#sessionKeys(ref), [member(ref), connectionId]);
  }

  /** Has the token refreshed now. False when there is none to refresh. @throws as `hold` */
  async requestRefresh(ref: TokenSessionRef): Promise<boolean> {
    const [due, session] = this.#sessionKeys(ref);
    return (await requestRefresh.run(this.#redis, [due, session], [member(ref), this.#clock.now()])) === 1;
  }

  /** Takes at most `limit` sessions of a partition whose time has come; nobody else gets them for `CLAIM_MS`. */
  async claimDue(partition: number, limit: number): Promise<TokenSessionRef[]> {
    if (partition < 0 || partition >= PARTITIONS) throw new RangeError(`no partition ${partition}`);
    const now = this.#clock.now();
    const claimed = await claimDueTokens.run(
      this.#redis,
      [this.#keys.tokenDue(partition)],
      [now, now + CLAIM_MS, limit],
    );
    return (claimed as string[]).map((text) => {
      const space = text.indexOf(' ');
      return { userId: text.slice(0, space), session: text.slice(space + 1) as SessionName };
    });
  }

  /** The token of a session that was taken; undefined when nobody is connected any more, or it cannot be read. */
  async due(ref: TokenSessionRef): Promise<DueToken | undefined> {
    const keys = [...this.#sessionKeys(ref), this.#keys.user(ref.userId).leases];
    const reply = (await readDueToken.run(this.#redis, keys, [member(ref)])) as [] | [string, number, number];
    if (reply.length === 0) return undefined;
    const [sealed, expiresAt, failures] = reply;
    const token = this.#seal.open(sealed);
    return token === undefined ? undefined : { ref, token, expiresAt, failures };
  }

  /** A refresh failed and is tried again. */
  async failed({ ref, expiresAt, failures }: DueToken, next: { retryInMs: number; degraded: boolean }): Promise<void> {
    const [due, session] = this.#sessionKeys(ref);
    const state = next.degraded ? 'degraded' : 'refresh_failed';
    const control: TokenControl = {
      control: 'token_failed',
      session: ref.session,
      attempt: failures + 1,
      retry_in_ms: next.retryInMs,
      degraded: next.degraded,
    };
    const retryAt = this.#clock.now() + next.retryInMs;
    const args = [member(ref), expiresAt, retryAt, state, this.#channel(ref), JSON.stringify(control)];
    await failToken.run(this.#redis, [due, session], args);
  }

  /**
   * The auth service has refused this token, or its session as a whole. A worker that was slow may hear it of a token that
   * has been replaced since: that says nothing against the session.
   * @returns false when the session is gone or has a newer token by now, and the refusal was of the token only
   */
  async end({ ref, expiresAt }: DueToken, code: Refusal, refused: 'token' | 'session'): Promise<boolean> {
    const control: TokenControl = { control: 'session_ended', session: ref.session, code };
    const args = [member(ref), this.#channel(ref), JSON.stringify(control), refused === 'token' ? expiresAt : ''];
    return (await endTokenSession.run(this.#redis, this.#sessionKeys(ref), args)) === 1;
  }

  async #registerToken(ref: TokenSessionRef, connectionId: string, sealed: SealedToken, expiresAt: number) {
    const args = [
      member(ref),
      connectionId,
      sealed,
      expiresAt,
      refreshAt(this.#clock.now(), expiresAt, this.#times.leadMs, Math.random()),
      this.#times.graceMs,
      this.#channel(ref),
      ref.session,
    ];
    return (await registerToken.run(this.#redis, this.#sessionKeys(ref), args)) as
      | ['gone']
      | ['held', number]
      | ['older', string, number, number];
  }

  #opened(sealed: SealedToken, expiresAt: number, refreshes: number): SessionToken | undefined {
    const token = this.#seal.open(sealed);
    return token === undefined ? undefined : { token, expiresAt, refreshes };
  }

  #sessionKeys({ userId, session }: TokenSessionRef): [string, string, string] {
    const keys = this.#keys.user(userId);
    return [keys.tokenDue, keys.tokenSession(session), keys.tokenConnections(session)];
  }

  #channel({ userId }: TokenSessionRef): string {
    return this.#keys.user(userId).channel;
  }
}

/**
 * When a token is to be refreshed, ms: `leadMs` before its end, a little earlier by chance.
 * @param random 0 to 1
 */
export function refreshAt(now: number, expiresAt: number, leadMs: number, random: number): number {
  const earliest = now + (expiresAt - now) * LEAST_WAIT;
  return Math.round(Math.max(expiresAt - leadMs - random * JITTER_MS, earliest));
}

/** A user id has no space in it. */
function member({ userId, session }: TokenSessionRef): string {
  return `${userId} ${session}`;
}
