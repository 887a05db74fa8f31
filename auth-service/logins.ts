import type { Clock } from '../src/lib/clock.ts';
import { type Logger, userHash } from '../src/lib/logger.ts';
import { TollgateError } from '../src/protocol/errors.ts';
import type { Redis } from '../src/redis/client.ts';
import type { Keys } from '../src/redis/keys.ts';
import { integer } from '../src/redis/replies.ts';
import { LuaScript } from '../src/redis/scripts.ts';
import { KeyedLimiter } from './keyed-limiter.ts';
import { answered } from './outage.ts';
import type { Passwords } from './passwords.ts';
import { digestOf } from './secrets.ts';
import { normalEmail, type User, type Users } from './users.ts';

const countAttempt = LuaScript.load('countAttempt-1', integer);

const FAILURES_ALLOWED = 10;
const FIRST_LOCK_MS = 30_000;
/** Allows about 24 guesses per day during an attack; the owner of the account waits for at most an hour. */
const LONGEST_LOCK_MS = 3_600_000;
const FORGET_AFTER_MS = 24 * 3_600_000;

/** Bounds the use of libuv's pool of four threads, which name resolution and file access need too. */
const LOGINS_AT_ONCE = 2;
/** With 160 ms per hash and two at once, the last waiting login starts after five seconds. */
const LOGINS_WAITING = 64;

/**
 * Checks passwords. After ten wrong passwords, the account is locked for half a minute. Each further wrong password
 * doubles the lock, up to an hour. During a lock, the right password is rejected too; after it, the right one resets
 * the count.
 */
export class Logins {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #clock: Clock;
  readonly #users: Users;
  readonly #passwords: Passwords;
  readonly #logger: Logger;
  // One attempt per account at a time. An attempt counts as failed until its password is verified, so a burst of
  // concurrent right passwords would otherwise lock the account.
  readonly #queue = new KeyedLimiter({ concurrency: LOGINS_AT_ONCE, waiting: LOGINS_WAITING });
  readonly #unmatchableHash: string;

  constructor(deps: { redis: Redis; keys: Keys; clock: Clock; users: Users; passwords: Passwords; logger: Logger }) {
    this.#redis = deps.redis;
    this.#keys = deps.keys;
    this.#clock = deps.clock;
    this.#users = deps.users;
    this.#passwords = deps.passwords;
    this.#unmatchableHash = deps.passwords.unmatchable();
    this.#logger = deps.logger;
  }

  /** @throws TollgateError VALIDATION_FAILED, AUTH_RATE_LIMITED while the account is locked, OVERLOADED */
  async verify(email: string, password: string): Promise<User> {
    // Unknown addresses are counted and locked too, so that a lock does not reveal which accounts exist.
    const account = digestOf(normalEmail(email));
    return this.#queue.run(account, () => this.#attempt(account, email, password));
  }

  async #attempt(account: string, email: string, password: string): Promise<User> {
    const key = this.#keys.auth(`attempts:${account}`);
    const args = [this.#clock.now(), FAILURES_ALLOWED, FIRST_LOCK_MS, LONGEST_LOCK_MS, FORGET_AFTER_MS];
    // Pipelined: one round trip.
    const [locked, record] = await Promise.all([countAttempt.run(this.#redis, [key], args), this.#users.find(email)]);
    if (locked > 0) {
      this.#logger.warn({ account: userHash(email) }, 'login rejected, account is locked');
      throw new TollgateError('AUTH_RATE_LIMITED', {
        text: 'Too many failed attempts: this account is temporarily locked. Retry later.',
        retryAfterMs: locked,
      });
    }
    // An unknown account takes as long as a wrong password, so that the time does not reveal which accounts exist.
    const right = await this.#passwords.verify(password, record?.passwordHash ?? this.#unmatchableHash);
    if (!right || !record) throw new TollgateError('VALIDATION_FAILED');
    await answered(this.#redis.del(key));
    return record.user;
  }
}
