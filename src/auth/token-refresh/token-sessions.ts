import type { Config } from '../../config.ts';
import type { Clock } from '../../lib/clock.ts';
import type { HandedOverToken, Identity } from '../../protocol/identity.ts';
import type { Refusal, TokenControl } from '../../protocol/token-lifecycle.ts';
import type { Redis } from '../../redis/client.ts';
import { duePartitions } from '../../redis/due-partitions.ts';
import { type Keys, PARTITIONS } from '../../redis/keys.ts';
import { done, integer, list, literal, oneOf, text, tuple } from '../../redis/replies.ts';
import { LuaScript, unexpectedReply } from '../../redis/scripts.ts';
import type { SessionEntry, TokenRegistration } from '../../redis/token-registration.ts';
import type { SealedToken, TokenSeal } from './token-seal.ts';

const registerReply = oneOf(
  tuple([literal('gone')]),
  tuple([literal('held'), integer, text]),
  tuple([literal('older'), text, integer, integer, text, text]),
);
const registerToken = LuaScript.load('registerToken-4', registerReply);
const unregisterToken = LuaScript.load('unregisterToken-3', integer);
const requestRefresh = LuaScript.load('requestRefresh-2', done);
const claimDueTokens = LuaScript.load('claimDueTokens-1', list(text));
const readDueToken = LuaScript.load('readDueToken-4', oneOf(tuple([]), tuple([text, integer, integer, text])));
const takeRefreshToken = LuaScript.load('takeRefreshToken-2', text);
const keepRefreshToken = LuaScript.load('keepRefreshToken-2', done);
const leaveToken = LuaScript.load('leaveToken-2', done);
const failToken = LuaScript.load('failToken-2', done);
const endTokenSession = LuaScript.load('endTokenSession-3', done);

/**
 * Duration of a worker's claim on one refresh; after it, another worker may claim the session. Longer than the auth
 * service client's timeout, and longer than the 5 s by which the clocks of workers may differ (the skew that tokens
 * allow).
 */
export const CLAIM_MS = 15_000;
/**
 * Refreshes start up to this much earlier than necessary, to spread those of connections that opened at the same
 * time.
 */
const JITTER_MS = 1_000;
/** Time for which a used refresh token is recognised, and the number of them per user. */
const USED_SECONDS = 86_400;
const MAX_USED = 128;
/** A token is refreshed after a third of its life at the earliest, even if the lead is longer than the rest. */
const LEAST_WAIT = 1 / 3;

export interface TokenLifecycleTimes {
  /** Interval between the refresh and the expiry of a token. */
  readonly leadMs: number;
  /** Time after its expiry during which a token can still be exchanged. */
  readonly graceMs: number;
}

export function tokenLifecycleTimes(config: Config): TokenLifecycleTimes {
  return {
    leadMs: config.TOKEN_REFRESH_LEAD_SECONDS * 1000,
    graceMs: config.TOKEN_DEGRADED_TIMEOUT_SECONDS * 1000,
  };
}

/** A login session of a user, `sid:…`. A token without a session forms its own, `jti:…`. */
export interface TokenSessionRef {
  readonly userId: string;
  readonly session: SessionName;
}

type SessionName = `sid:${string}` | `jti:${string}`;

export function sessionOf({ userId, sessionId, tokenId }: Identity): TokenSessionRef {
  return { userId, session: sessionId === undefined ? `jti:${tokenId}` : `sid:${sessionId}` };
}

/** User and session separated by a space, which user ids never contain. */
export function sessionMember({ userId, session }: TokenSessionRef): string {
  return `${userId} ${session}`;
}

/** Names a session in the scripts of the connection registry. */
export function sessionEntryOf(ref: TokenSessionRef): SessionEntry {
  return { session: ref.session, member: sessionMember(ref) };
}

export interface SessionToken {
  readonly token: string;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
  /** Number of refreshes of the session. */
  readonly refreshes: number;
  /** Refresh token for the connections of its family. */
  readonly refreshToken?: { readonly family: string; readonly token: string } | undefined;
}

export interface Registration {
  /** The stored token of the session, if it expires later than the registered one. */
  readonly newer: SessionToken | undefined;
  /** Family of the session's refresh token, if the connection handed over one of it. */
  readonly family: string | undefined;
}

/** A token to refresh, with the number of consecutive failures. */
export interface DueToken {
  readonly ref: TokenSessionRef;
  readonly token: string;
  readonly expiresAt: number;
  readonly failures: number;
  /** Digest of the refresh token that a worker may take; undefined if there is none. */
  readonly refreshDigest: string | undefined;
}

/** A refresh token that follows the one with the digest `from`, which may be the same. */
export interface NextRefreshToken {
  readonly from: string;
  readonly token: string;
}

interface RegisteredToken {
  readonly sealed: SealedToken;
  readonly expiresAt: number;
  readonly handedOver?: HandedOverToken | undefined;
  /** Digest of the refresh token that a worker used; undefined for a token of a client. */
  readonly predecessor?: string | undefined;
}

/** A token as Redis stores it; `refreshToken` is sealed. */
interface StoredToken extends Pick<SessionToken, 'expiresAt' | 'refreshes'> {
  readonly token: SealedToken;
  readonly family?: string | null | undefined;
  readonly refreshToken?: string | null | undefined;
}

/**
 * Stores the latest token of every login session with a live connection, and its refresh time in a sorted set per
 * partition, so that tokens that are not due cost nothing.
 *
 * States of a session: `refresh_scheduled` → `refreshing` → `refresh_scheduled` | `refresh_failed` → `degraded`. The
 * entry is removed with the last connection, after a rejection, or at the end of the grace period.
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
   * Registers the token of a connection. If it expires later than the stored one, the session's other connections
   * receive it. A refresh token is stored with it unless it has been used, or the session has one already.
   * @throws TollgateError OVERLOADED while Redis is unavailable
   */
  async register(
    ref: TokenSessionRef,
    connectionId: string,
    presented: Omit<RegisteredToken, 'predecessor'>,
  ): Promise<Registration> {
    return this.registered(ref, await this.#registerToken(ref, connectionId, presented));
  }

  /** The part of an admission that registers the token of the connection, in place of `register`. */
  registration(ref: TokenSessionRef, presented: Omit<RegisteredToken, 'predecessor'>): TokenRegistration {
    const { sealed, expiresAt, handedOver } = presented;
    const args = [
      expiresAt,
      this.#refreshAt(expiresAt),
      this.#times.graceMs,
      ref.session,
      handedOver?.sealed ?? '',
      handedOver?.digest ?? '',
    ];
    return { ...sessionEntryOf(ref), sealed, args };
  }

  /** Reads the reply to a registration. @throws TollgateError INTERNAL_ERROR for a reply of another shape */
  registered(ref: TokenSessionRef, reply: readonly unknown[]): Registration {
    if (!registerReply(reply)) throw unexpectedReply('registerToken', reply);
    if (reply[0] === 'gone') return { newer: undefined, family: undefined };
    if (reply[0] === 'held') return { newer: undefined, family: reply[2] || undefined };
    const [, kept, keptUntil, refreshes, family, refreshToken] = reply;
    const newer = this.#opened(ref, { token: kept, expiresAt: keptUntil, refreshes, family, refreshToken });
    return { newer, family: family || undefined };
  }

  /**
   * Stores and publishes a refreshed token, with the next refresh token if one was used. Returns false if the session
   * has no connection any more.
   */
  async refreshed(ref: TokenSessionRef, token: string, expiresAt: number, next?: NextRefreshToken): Promise<boolean> {
    const handedOver = next && this.#seal.sealRefreshToken(next.token, sessionMember(ref));
    const refreshed = { sealed: this.#seal.seal(token), expiresAt, handedOver, predecessor: next?.from };
    const reply = await this.#registerToken(ref, '', refreshed);
    return reply[0] !== 'gone';
  }

  /**
   * Takes the refresh token out of a claimed session, for one request to the provider. Returns undefined if the session
   * has another one meanwhile, or if the token was sent to the provider before.
   */
  async takeRefreshToken({ ref, expiresAt, refreshDigest }: DueToken): Promise<string | undefined> {
    const args = [expiresAt, refreshDigest ?? '', USED_SECONDS, MAX_USED];
    const sealed = await takeRefreshToken.run(this.#redis, this.#refreshKeys(ref), args);
    return sealed === '' ? undefined : this.#seal.openRefreshToken(sealed, sessionMember(ref));
  }

  /** Stores the refresh token after a refresh without a newer access token. */
  async keepRefreshToken(ref: TokenSessionRef, { from, token }: NextRefreshToken): Promise<void> {
    const { sealed, digest } = this.#seal.sealRefreshToken(token, sessionMember(ref));
    await keepRefreshToken.run(this.#redis, this.#refreshKeys(ref), [from, sealed, digest]);
  }

  /** Returns the stored token, for a node that may have missed its publication. @throws TollgateError as `register` */
  async current(ref: TokenSessionRef): Promise<SessionToken | undefined> {
    const key = this.#keys.user(ref.userId).tokenSession(ref.session);
    const fields = ['token', 'expires_at', 'refreshes', 'refresh_family', 'refresh_token'];
    const [token, expiresAt, refreshes, family, refreshToken] = await this.#redis.hmget(key, ...fields);
    if (!token) return undefined;
    const stored = { token, expiresAt: Number(expiresAt), refreshes: Number(refreshes), family, refreshToken };
    return this.#opened(ref, stored);
  }

  /** Returns the token of a control message, or undefined if it cannot be decrypted. */
  fromControl(ref: TokenSessionRef, control: Extract<TokenControl, { control: 'token' }>): SessionToken | undefined {
    const { token, expires_at: expiresAt, refreshes, refresh_family: family, refresh_token: refreshToken } = control;
    return this.#opened(ref, { token, expiresAt, refreshes, family, refreshToken });
  }

  /** Removes a connection from the session. */
  async unregister(ref: TokenSessionRef, connectionId: string): Promise<void> {
    await unregisterToken.run(this.#redis, this.#sessionKeys(ref), [sessionMember(ref), connectionId]);
  }

  /** Schedules the refresh for now. Returns false if there is no token. @throws TollgateError as `register` */
  async requestRefresh(ref: TokenSessionRef): Promise<boolean> {
    const [due, session] = this.#sessionKeys(ref);
    return (await requestRefresh.run(this.#redis, [due, session], [sessionMember(ref), this.#clock.now()])) === 1;
  }

  /** Returns the partitions that have sessions whose token is due for refresh. @throws RedisUnavailable */
  duePartitions(): Promise<number[]> {
    return duePartitions(this.#redis, (partition) => this.#keys.tokenDue(partition), this.#clock.now());
  }

  /** Claims at most `limit` due sessions of a partition for `CLAIM_MS`. */
  async claimDue(partition: number, limit: number): Promise<TokenSessionRef[]> {
    if (partition < 0 || partition >= PARTITIONS) throw new RangeError(`no partition ${partition}`);
    const now = this.#clock.now();
    const claimed = await claimDueTokens.run(
      this.#redis,
      [this.#keys.tokenDue(partition)],
      [now, now + CLAIM_MS, limit],
    );
    return claimed.map((text) => {
      const space = text.indexOf(' ');
      return { userId: text.slice(0, space), session: text.slice(space + 1) as SessionName };
    });
  }

  /** Returns the token of a claimed session; undefined if it has no connection any more or cannot be decrypted. */
  async due(ref: TokenSessionRef): Promise<DueToken | undefined> {
    const keys = [...this.#sessionKeys(ref), this.#keys.user(ref.userId).leases];
    const reply = await readDueToken.run(this.#redis, keys, [sessionMember(ref)]);
    if (reply.length === 0) return undefined;
    const [sealed, expiresAt, failures, digest] = reply;
    const token = this.#seal.open(sealed);
    return token === undefined ? undefined : { ref, token, expiresAt, failures, refreshDigest: digest || undefined };
  }

  /** Schedules no refresh until a client presents a newer token of the session. */
  async leaveToClient({ ref, expiresAt }: DueToken): Promise<void> {
    const [due, session] = this.#sessionKeys(ref);
    await leaveToken.run(this.#redis, [due, session], [sessionMember(ref), expiresAt, CLAIM_MS]);
  }

  /** Records a failed refresh and schedules the next attempt. */
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
    const args = [sessionMember(ref), expiresAt, retryAt, state, this.#channel(ref), JSON.stringify(control)];
    await failToken.run(this.#redis, [due, session], args);
  }

  /**
   * Ends a session after the auth service rejected its token, or the session as a whole. A slow worker may receive the
   * rejection of a token that has been replaced in the meantime; such a rejection does not end the session.
   * @returns false if the session has ended already, or if only the token was rejected and the session has a newer one
   */
  async end({ ref, expiresAt }: DueToken, code: Refusal, refused: 'token' | 'session'): Promise<boolean> {
    const control: TokenControl = { control: 'session_ended', session: ref.session, code };
    const args = [
      sessionMember(ref),
      this.#channel(ref),
      JSON.stringify(control),
      refused === 'token' ? expiresAt : '',
    ];
    return (await endTokenSession.run(this.#redis, this.#sessionKeys(ref), args)) === 1;
  }

  async #registerToken(ref: TokenSessionRef, connectionId: string, token: RegisteredToken) {
    const { sealed, expiresAt, handedOver, predecessor = '' } = token;
    const args = [
      sessionMember(ref),
      connectionId,
      sealed,
      expiresAt,
      this.#refreshAt(expiresAt),
      this.#times.graceMs,
      this.#channel(ref),
      ref.session,
      handedOver?.sealed ?? '',
      handedOver?.digest ?? '',
      predecessor,
    ];
    const keys = [...this.#sessionKeys(ref), this.#keys.user(ref.userId).usedRefreshTokens];
    return registerToken.run(this.#redis, keys, args);
  }

  #refreshAt(expiresAt: number): number {
    return refreshAt(this.#clock.now(), expiresAt, this.#times.leadMs, Math.random());
  }

  #opened(ref: TokenSessionRef, stored: StoredToken): SessionToken | undefined {
    const { expiresAt, refreshes, family, refreshToken: sealed } = stored;
    const token = this.#seal.open(stored.token);
    if (token === undefined) return undefined;
    const refreshToken = sealed ? this.#seal.openRefreshToken(sealed, sessionMember(ref)) : undefined;
    if (!family || refreshToken === undefined) return { token, expiresAt, refreshes };
    return { token, expiresAt, refreshes, refreshToken: { family, token: refreshToken } };
  }

  #refreshKeys({ userId, session }: TokenSessionRef): [string, string] {
    const keys = this.#keys.user(userId);
    return [keys.tokenSession(session), keys.usedRefreshTokens];
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
 * Returns the refresh time of a token in ms: `leadMs` before its expiry, minus a random jitter.
 * @param random 0 to 1
 */
export function refreshAt(now: number, expiresAt: number, leadMs: number, random: number): number {
  const earliest = now + (expiresAt - now) * LEAST_WAIT;
  return Math.round(Math.max(expiresAt - leadMs - random * JITTER_MS, earliest));
}
