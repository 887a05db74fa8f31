import type { Revocations } from '../src/accounts/revocations.ts';
import type { Clock } from '../src/lib/clock.ts';
import type { Redis } from '../src/redis/client.ts';
import type { Keys } from '../src/redis/keys.ts';
import { integer, literal, oneOf, text, tuple } from '../src/redis/replies.ts';
import { LuaScript } from '../src/redis/scripts.ts';
import { answered } from './outage.ts';
import type { RefreshTokens } from './refresh-tokens.ts';
import { digestOf, newSessionId } from './secrets.ts';

const rotateSession = LuaScript.load(
  'rotateSession-1',
  oneOf(
    tuple([literal('rotated', 'repeated'), text, text, text, integer, integer]),
    tuple([literal('reused'), text]),
    tuple([literal('refused')]),
  ),
);

export const REFRESH_TOKEN_SECONDS = 7 * 86_400;
const LIFETIME_MS = REFRESH_TOKEN_SECONDS * 1000;
/** Time during which a used refresh token still returns its successor to the same client. */
const GRACE_MS = 30_000;

/**
 * A login session, from the password to the last refresh token: live → ended. A session ends by logout, revocation,
 * reuse of a refresh token, a block of the user, or seven days without a refresh. An ended session is deleted and
 * cannot be resumed.
 */
export interface Session {
  readonly id: string;
  readonly userId: string;
  readonly email: string;
  /** Owner of the refresh tokens: `public:<client_id>`, or `service:<id>` for an authenticated client. */
  readonly client: string;
  /**
   * Session generation of the user at the start (account-status.ts). If it has changed since, the session has ended.
   */
  readonly generation: number;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly expiresAt: number;
}

export interface LiveRefreshToken {
  readonly session: Session;
  readonly refreshToken: string;
}

export type Rotation =
  | ({ readonly result: 'rotated' } & LiveRefreshToken)
  | { readonly result: 'reused'; readonly userId: string }
  /** An administrator revoked the session. */
  | { readonly result: 'revoked' }
  | { readonly result: 'refused' };

export interface SessionsDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly clock: Clock;
  readonly refreshTokens: RefreshTokens;
  /** Shared with the gateways, so that a session ends at both or at neither. */
  readonly revocations: Revocations;
}

/** Stores login sessions and rotates their refresh tokens. */
export class Sessions {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #clock: Clock;
  readonly #refreshTokens: RefreshTokens;
  readonly #revocations: Revocations;
  readonly #tokenTailMs: number;

  /** @param options.tokenTailMs maximum time that a token or a connection can outlive its session */
  constructor(deps: SessionsDeps, options: { readonly tokenTailMs: number }) {
    this.#redis = deps.redis;
    this.#keys = deps.keys;
    this.#clock = deps.clock;
    this.#refreshTokens = deps.refreshTokens;
    this.#revocations = deps.revocations;
    this.#tokenTailMs = options.tokenTailMs;
  }

  /** @param scope scopes that the user granted to the client; only of the authorization code grant */
  async start(
    owner: Pick<Session, 'userId' | 'email' | 'client' | 'generation'>,
    scope = '',
  ): Promise<LiveRefreshToken> {
    const startedAt = this.#clock.now();
    const session = { ...owner, id: newSessionId(), startedAt, expiresAt: startedAt + LIFETIME_MS };
    const refreshToken = this.#refreshTokens.first(session.id);
    const key = this.#key(session.id);
    const fields = {
      user_id: session.userId,
      email: session.email,
      client: session.client,
      epoch: session.generation,
      started_at: session.startedAt,
      expires_at: session.expiresAt,
      current: digestOf(refreshToken),
      ...(scope === '' ? {} : { scope }),
    };
    await answered(this.#redis.multi().hset(key, fields).pexpire(key, LIFETIME_MS).exec());
    return { session, refreshToken };
  }

  /** Uses a refresh token; rotateSession-1.lua has the rules. */
  async rotate(refreshToken: string, client: string): Promise<Rotation> {
    const presented = this.#refreshTokens.read(refreshToken);
    if (!presented) return { result: 'refused' };
    const { sessionId, digest, successor, successorDigest } = presented;
    const args = [digest, successorDigest, client, this.#clock.now(), GRACE_MS, LIFETIME_MS];
    // Pipelined: one round trip.
    const [reply, revoked] = await Promise.all([
      rotateSession.run(this.#redis, [this.#key(sessionId)], args),
      this.#revocations.any([`sid:${sessionId}`]),
    ]);
    if (reply[0] === 'refused') return { result: 'refused' };
    if (reply[0] === 'reused') {
      await this.#revoke(sessionId);
      return { result: 'reused', userId: reply[1] };
    }
    if (revoked) {
      await this.end(sessionId);
      return { result: 'revoked' };
    }
    const [, userId, email, generation, expiresAt, startedAt] = reply;
    const times = { generation: Number(generation), startedAt, expiresAt };
    const session = { id: sessionId, userId, email, client, ...times };
    return { result: 'rotated', session, refreshToken: successor };
  }

  /** Returns the scopes that were granted at the start of the session; none if it has ended. */
  async scopeOf(id: string): Promise<string> {
    return (await answered(this.#redis.hget(this.#key(id), 'scope'))) ?? '';
  }

  /** Returns undefined if the session has ended. */
  async find(id: string): Promise<Session | undefined> {
    // Pipelined: one round trip.
    const [[userId, email, client, generation, expiresAt, startedAt], revoked] = await Promise.all([
      answered(this.#redis.hmget(this.#key(id), 'user_id', 'email', 'client', 'epoch', 'expires_at', 'started_at')),
      this.#revocations.any([`sid:${id}`]),
    ]);
    if (revoked || !userId || Number(expiresAt) <= this.#clock.now()) return undefined;
    const owner = { userId, email: email ?? '', client: client ?? '' };
    const times = { generation: Number(generation), startedAt: Number(startedAt ?? 0), expiresAt: Number(expiresAt) };
    return { id, ...owner, ...times };
  }

  /** Returns the session of a live refresh token; undefined for a used or forged token, or one of an ended session. */
  async findByRefreshToken(refreshToken: string): Promise<Session | undefined> {
    const presented = this.#refreshTokens.read(refreshToken);
    if (!presented) return undefined;
    const current = this.#redis.hget(this.#key(presented.sessionId), 'current');
    const [session, live] = await Promise.all([this.find(presented.sessionId), answered(current)]);
    return live === presented.digest ? session : undefined;
  }

  /**
   * Ends the session: deletes it first, so that no further token is issued, then revokes it at the gateways.
   * Idempotent.
   */
  async end(id: string): Promise<void> {
    await answered(this.#redis.del(this.#key(id)));
    await this.#revoke(id);
  }

  /**
   * Ends the session of a refresh token, even a used one. Returns false for a token that this service did not create.
   */
  async endByRefreshToken(refreshToken: string): Promise<boolean> {
    const presented = this.#refreshTokens.read(refreshToken);
    if (presented) await this.end(presented.sessionId);
    return presented !== undefined;
  }

  async #revoke(id: string): Promise<void> {
    await this.#revocations.revoke(`sid:${id}`, this.#tokenTailMs);
  }

  #key(id: string): string {
    return this.#keys.auth(`session:${id}`);
  }
}
