import type { Revocations } from '../src/accounts/revocations.ts';
import type { Clock } from '../src/lib/clock.ts';
import type { Redis } from '../src/redis/client.ts';
import type { Keys } from '../src/redis/keys.ts';
import { LuaScript } from '../src/redis/scripts.ts';
import { answered } from './outage.ts';
import type { RefreshTokens } from './refresh-tokens.ts';
import { digestOf, newSessionId } from './secrets.ts';

const rotateSession = LuaScript.load('rotateSession-1');

export const REFRESH_TOKEN_SECONDS = 7 * 86_400;
const LIFETIME_MS = REFRESH_TOKEN_SECONDS * 1000;
/** How long a used refresh token still gives its successor, to the same client. */
const GRACE_MS = 30_000;

/**
 * A login, from the password to the last refresh token: live → ended, by log-out, revocation, reuse of a refresh token,
 * a block of the user, or seven days without a refresh. An ended session is gone; nothing brings it back.
 */
export interface Session {
  readonly id: string;
  readonly userId: string;
  readonly email: string;
  /** Whom the refresh tokens belong to: `public:<client_id>`, or `service:<id>` for a client that proved who it is. */
  readonly client: string;
  /** The user's session epoch when it began (see standing.ts); another one by now means that the session is over. */
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
  /** An operator revoked the session. */
  | { readonly result: 'revoked' }
  | { readonly result: 'refused' };

export interface SessionsDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly clock: Clock;
  readonly refreshTokens: RefreshTokens;
  /** Shared with the gateways: a session that ends here ends there, and the other way round. */
  readonly revocations: Revocations;
}

/** Login sessions and the refresh tokens that keep them alive. */
export class Sessions {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #clock: Clock;
  readonly #refreshTokens: RefreshTokens;
  readonly #revocations: Revocations;
  readonly #tokenTailMs: number;

  /** @param options.tokenTailMs how long after a session's end one of its tokens, or a connection, could still live */
  constructor(deps: SessionsDeps, options: { readonly tokenTailMs: number }) {
    this.#redis = deps.redis;
    this.#keys = deps.keys;
    this.#clock = deps.clock;
    this.#refreshTokens = deps.refreshTokens;
    this.#revocations = deps.revocations;
    this.#tokenTailMs = options.tokenTailMs;
  }

  async start(owner: Pick<Session, 'userId' | 'email' | 'client' | 'generation'>): Promise<LiveRefreshToken> {
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
    };
    await answered(this.#redis.multi().hset(key, fields).pexpire(key, LIFETIME_MS).exec());
    return { session, refreshToken };
  }

  /** Uses a refresh token: see rotateSession-1.lua. */
  async rotate(refreshToken: string, client: string): Promise<Rotation> {
    const presented = this.#refreshTokens.read(refreshToken);
    if (!presented) return { result: 'refused' };
    const { sessionId, digest, successor, successorDigest } = presented;
    const args = [digest, successorDigest, client, this.#clock.now(), GRACE_MS, LIFETIME_MS];
    // Sent together: one round trip.
    const [reply, revoked] = await Promise.all([
      rotateSession.run(this.#redis, [this.#key(sessionId)], args),
      this.#revocations.any([`sid:${sessionId}`]),
    ]);
    const [result, userId = '', email = '', generation, expiresAt, startedAt] = reply as string[];
    if (result === 'refused') return { result };
    if (result === 'reused') {
      await this.#revoke(sessionId);
      return { result, userId };
    }
    if (revoked) {
      await this.end(sessionId);
      return { result: 'revoked' };
    }
    const times = { generation: Number(generation), startedAt: Number(startedAt), expiresAt: Number(expiresAt) };
    const session = { id: sessionId, userId, email, client, ...times };
    return { result: 'rotated', session, refreshToken: successor };
  }

  /** Undefined when the session has ended. */
  async find(id: string): Promise<Session | undefined> {
    // Sent together: one round trip.
    const [[userId, email, client, generation, expiresAt, startedAt], revoked] = await Promise.all([
      answered(this.#redis.hmget(this.#key(id), 'user_id', 'email', 'client', 'epoch', 'expires_at', 'started_at')),
      this.#revocations.any([`sid:${id}`]),
    ]);
    if (revoked || !userId || Number(expiresAt) <= this.#clock.now()) return undefined;
    const owner = { userId, email: email ?? '', client: client ?? '' };
    const times = { generation: Number(generation), startedAt: Number(startedAt ?? 0), expiresAt: Number(expiresAt) };
    return { id, ...owner, ...times };
  }

  /** The session whose live refresh token this is; undefined for one that is used, forged or of an ended session. */
  async findByRefreshToken(refreshToken: string): Promise<Session | undefined> {
    const presented = this.#refreshTokens.read(refreshToken);
    if (!presented) return undefined;
    const current = this.#redis.hget(this.#key(presented.sessionId), 'current');
    const [session, live] = await Promise.all([this.find(presented.sessionId), answered(current)]);
    return live === presented.digest ? session : undefined;
  }

  /** Here first: from then on nobody gets another token of it; then at the gateways. Harmless when done again. */
  async end(id: string): Promise<void> {
    await answered(this.#redis.del(this.#key(id)));
    await this.#revoke(id);
  }

  /** Ends the session of a refresh token, a used one too; false for one that was not made here. */
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
