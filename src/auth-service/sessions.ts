import type { Clock } from '../lib/clock.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import { LuaScript } from '../redis/scripts.ts';
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
  readonly epoch: number;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
}

export interface LiveRefreshToken {
  readonly session: Session;
  readonly refreshToken: string;
}

export type Rotation =
  | ({ readonly result: 'rotated' } & LiveRefreshToken)
  | { readonly result: 'reused'; readonly userId: string }
  | { readonly result: 'refused' };

/** Login sessions and the refresh tokens that keep them alive. */
export class Sessions {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #clock: Clock;
  readonly #refreshTokens: RefreshTokens;

  constructor(deps: { redis: Redis; keys: Keys; clock: Clock; refreshTokens: RefreshTokens }) {
    this.#redis = deps.redis;
    this.#keys = deps.keys;
    this.#clock = deps.clock;
    this.#refreshTokens = deps.refreshTokens;
  }

  async start(owner: Pick<Session, 'userId' | 'email' | 'client' | 'epoch'>): Promise<LiveRefreshToken> {
    const session = { ...owner, id: newSessionId(), expiresAt: this.#clock.now() + LIFETIME_MS };
    const refreshToken = this.#refreshTokens.first(session.id);
    const key = this.#key(session.id);
    const fields = {
      user_id: session.userId,
      email: session.email,
      client: session.client,
      epoch: session.epoch,
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
    const reply = (await rotateSession.run(this.#redis, [this.#key(sessionId)], args)) as string[];
    const [result, userId = '', email = '', epoch, expiresAt] = reply;
    if (result === 'refused') return { result };
    if (result === 'reused') return { result, userId };
    const session = { id: sessionId, userId, email, client, epoch: Number(epoch), expiresAt: Number(expiresAt) };
    return { result: 'rotated', session, refreshToken: successor };
  }

  /** Undefined when the session has ended. */
  async find(id: string): Promise<Session | undefined> {
    const [userId, email, client, epoch, expiresAt] = await answered(
      this.#redis.hmget(this.#key(id), 'user_id', 'email', 'client', 'epoch', 'expires_at'),
    );
    if (!userId || Number(expiresAt) <= this.#clock.now()) return undefined;
    const owner = { userId, email: email ?? '', client: client ?? '' };
    return { id, ...owner, epoch: Number(epoch), expiresAt: Number(expiresAt) };
  }

  /** The session whose live refresh token this is; undefined for one that is used, forged or of an ended session. */
  async findByRefreshToken(refreshToken: string): Promise<Session | undefined> {
    const presented = this.#refreshTokens.read(refreshToken);
    if (!presented) return undefined;
    const current = this.#redis.hget(this.#key(presented.sessionId), 'current');
    const [session, live] = await Promise.all([this.find(presented.sessionId), answered(current)]);
    return live === presented.digest ? session : undefined;
  }

  async end(id: string): Promise<void> {
    await answered(this.#redis.del(this.#key(id)));
  }

  /** Ends the session of a refresh token, a used one too; false for one that was not made here. */
  async endByRefreshToken(refreshToken: string): Promise<boolean> {
    const presented = this.#refreshTokens.read(refreshToken);
    if (presented) await this.end(presented.sessionId);
    return presented !== undefined;
  }

  #key(id: string): string {
    return this.#keys.auth(`session:${id}`);
  }
}
