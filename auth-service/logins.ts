import type { Clock } from '../src/lib/clock.ts';
import { type Logger, userHash } from '../src/lib/logger.ts';
import { TollgateError } from '../src/protocol/errors.ts';
import type { Redis } from '../src/redis/client.ts';
import type { Keys } from '../src/redis/keys.ts';
import { LuaScript } from '../src/redis/scripts.ts';
import { KeyedLimiter } from './keyed-limiter.ts';
import { answered } from './outage.ts';
import type { Passwords } from './passwords.ts';
import { digestOf } from './secrets.ts';
import { normalEmail, type User, type Users } from './users.ts';

const countAttempt = LuaScript.load('countAttempt-1');

const FAILURES_ALLOWED = 10;
const FIRST_LOCK_MS = 30_000;
/** About 24 guesses a day once an account is under attack; its owner waits an hour at worst. */
const LONGEST_LOCK_MS = 3_600_000;
const FORGET_AFTER_MS = 24 * 3_600_000;

/** Hashing occupies libuv's pool of four threads, which name resolution and files need too. */
const LOGINS_AT_ONCE = 2;
/** At 160 ms and two at once, the last of them waits for five seconds. */
const LOGINS_WAITING = 64;

/**
 * Checks passwords. After ten wrong ones an account is locked for half a minute, and for twice as long after each
 * further one, up to an hour; the right password is refused during a lock too, and starts the count again after it.
 */
export class Logins {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #clock: Clock;
  readonly #users: Users;
  readonly #passwords: Passwords;
  readonly #logger: Logger;
  // One attempt of an account at a time: each counts as failed until its password is known to be right, so that a burst
  // of right ones would otherwise lock the account.
  readonly #queue = new KeyedLimiter({ concurrency: LOGINS_AT_ONCE, waiting: LOGINS_WAITING });
  readonly #nobody: string;

  constructor(deps: { redis: Redis; keys: Keys; clock: Clock; users: Users; passwords: Passwords; logger: Logger }) {
    this.#redis = deps.redis;
    this.#keys = deps.keys;
    this.#clock = deps.clock;
    this.#users = deps.users;
    this.#passwords = deps.passwords;
    this.#nobody = deps.passwords.unmatchable();
    this.#logger = deps.logger;
  }

  /** @throws TollgateError VALIDATION_FAILED, AUTH_RATE_LIMITED while the account is locked, OVERLOADED */
  async verify(email: string, password: string): Promise<User> {
    // Addresses that belong to nobody are counted and locked too, so that a lock does not tell which exist.
    const account = digestOf(normalEmail(email));
    return this.#queue.run(account, () => this.#attempt(account, email, password));
  }

  async #attempt(account: string, email: string, password: string): Promise<User> {
    const key = this.#keys.auth(`attempts:${account}`);
    const args = [this.#clock.now(), FAILURES_ALLOWED, FIRST_LOCK_MS, LONGEST_LOCK_MS, FORGET_AFTER_MS];
    // Sent together: one round trip.
    const [locked, record] = await Promise.all([countAttempt.run(this.#redis, [key], args), this.#users.find(email)]);
    if (Number(locked) > 0) {
      this.#logger.warn({ account: userHash(email) }, 'login refused: the account is locked');
      throw new TollgateError('AUTH_RATE_LIMITED', {
        text: 'Too many failed attempts; this account is locked for the moment.',
        retryAfterMs: Number(locked),
      });
    }
    // An unknown account costs what a wrong password costs, so that the time does not tell which exist.
    const right = await this.#passwords.verify(password, record?.passwordHash ?? this.#nobody);
    if (!right || !record) throw new TollgateError('VALIDATION_FAILED');
    await answered(this.#redis.del(key));
    return record.user;
  }
}
