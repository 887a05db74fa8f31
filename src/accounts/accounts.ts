import type { Plans } from '../catalogue/plans.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import { LuaScript } from '../redis/scripts.ts';
import { type InvalidationDeps, invalidateAccount } from './invalidations.ts';

const revokeBefore = LuaScript.load('revokeBefore-1');

/** What operators decided about a user. */
export interface Account {
  /** Undefined while nobody has set one: then the token's counts. */
  readonly plan: string | undefined;
  readonly blocked: boolean;
  /** Tokens that were issued before this are revoked; milliseconds since the epoch, 0 for none. */
  readonly revokedBefore: number;
}

/**
 * What operators decided about users: it wins over what a token says. Read at admission, announced when it changes.
 * Every change is stored first and announced second, and may be made again: one that failed half-way is repeated.
 */
export class Accounts {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #tracing: InvalidationDeps['tracing'];

  constructor({ redis, keys, tracing }: InvalidationDeps) {
    this.#redis = redis;
    this.#keys = keys;
    this.#tracing = tracing;
  }

  /** @throws TollgateError OVERLOADED while Redis is away */
  setPlan(userId: string, plan: string): Promise<void> {
    return this.#set(userId, 'plan', plan);
  }

  /** @throws TollgateError OVERLOADED while Redis is away */
  setBlocked(userId: string, blocked: boolean): Promise<void> {
    return this.#set(userId, 'blocked', blocked ? '1' : '0');
  }

  /**
   * Revokes the user's tokens that were issued before a time, Redis's own when none is given. Tokens name the second
   * they were issued in: one of the same second counts as issued before.
   * @returns the time that holds: an earlier one than was stored already changes nothing
   * @throws TollgateError OVERLOADED while Redis is away
   */
  async revokeTokens(userId: string, beforeMs?: number): Promise<number> {
    const before = await revokeBefore.run(this.#redis, [this.#keys.user(userId).account], [beforeMs ?? '']);
    await this.#invalidate(userId);
    return Number(before);
  }

  async read(userId: string): Promise<Account> {
    const { account } = this.#keys.user(userId);
    const fields = ['plan', 'blocked', 'revoked_before', 'erasure'] as const;
    const [plan, blocked, before, erasure] = await mapRedisErrors(this.#redis.hmget(account, ...fields));
    // Unblocking a user does not end an erasure.
    const isBlocked = blocked === '1' || typeof erasure === 'string';
    return { plan: plan ?? undefined, blocked: isBlocked, revokedBefore: Number(before ?? 0) };
  }

  /**
   * Who speaks, as operators have decided: for requests that belong to no connection, whose admission asks the same.
   * @throws TollgateError USER_BLOCKED, TOKEN_REVOKED, OVERLOADED while Redis is away
   */
  async admit(identity: Identity, plans: Pick<Plans, 'effective'>): Promise<Identity> {
    const { plan, blocked, revokedBefore } = await this.read(identity.userId);
    if (blocked) throw new TollgateError('USER_BLOCKED');
    if (identity.tokenIssuedAt < revokedBefore) throw new TollgateError('TOKEN_REVOKED');
    return withPlan(identity, plan ?? identity.plan, plans);
  }

  /** Kept until the operator decides otherwise. */
  async #set(userId: string, field: string, value: string): Promise<void> {
    await mapRedisErrors(this.#redis.hset(this.#keys.user(userId).account, field, value));
    await this.#invalidate(userId);
  }

  #invalidate(userId: string): Promise<void> {
    return invalidateAccount({ redis: this.#redis, keys: this.#keys, tracing: this.#tracing }, userId);
  }
}

/**
 * An identity, as its token names it, under the plan that counts. A token carries the permissions and flags of the plan it
 * was issued for: when the plan is another one by now, they would outlive it.
 */
export function withPlan(identity: Identity, named: string, plans: Pick<Plans, 'effective'>): Identity {
  const plan = plans.effective(named).name;
  // A service's are its scopes, which no plan gave it.
  const kept = plan === identity.plan || identity.method === 'service';
  return kept ? { ...identity, plan } : { ...identity, plan, permissions: [], featureFlags: {} };
}
