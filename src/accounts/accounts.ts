import type { Plans } from '../catalogue/plans.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import { integer } from '../redis/replies.ts';
import { LuaScript } from '../redis/scripts.ts';
import { type InvalidationDeps, invalidateAccount } from './invalidations.ts';

const revokeBefore = LuaScript.load('revokeBefore-1', integer);

/** What administrators have stored about a user. */
export interface Account {
  /** Overrides the token's plan; undefined when none is stored. */
  readonly plan: string | undefined;
  readonly blocked: boolean;
  /** Tokens issued before this time are revoked; milliseconds since the epoch, 0 for none. */
  readonly revokedBefore: number;
}

/**
 * Stores the accounts of users in Redis. An account overrides the claims of a token. It is read at admission, and each
 * change publishes an invalidation after it is stored. All changes are idempotent, so the caller can repeat one that
 * failed in between.
 */
export class Accounts {
  readonly #deps: InvalidationDeps;

  constructor(deps: InvalidationDeps) {
    this.#deps = deps;
  }

  /** @throws RedisUnavailable */
  setPlan(userId: string, plan: string): Promise<void> {
    return this.#set(userId, 'plan', plan);
  }

  /** @throws RedisUnavailable */
  setBlocked(userId: string, blocked: boolean): Promise<void> {
    return this.#set(userId, 'blocked', blocked ? '1' : '0');
  }

  /**
   * Revokes the user's tokens that were issued before a time, by default the current time of Redis. Tokens state their
   * issue time in seconds; a token of the same second counts as issued before.
   * @returns the effective time: one earlier than the stored time changes nothing
   * @throws RedisUnavailable
   */
  async revokeTokens(userId: string, beforeMs?: number): Promise<number> {
    const before = await revokeBefore.run(this.#deps.redis, [this.#deps.keys.user(userId).account], [beforeMs ?? '']);
    await this.#invalidate(userId);
    return before;
  }

  async read(userId: string): Promise<Account> {
    const { account } = this.#deps.keys.user(userId);
    const fields = ['plan', 'blocked', 'revoked_before', 'erasure'] as const;
    const [plan, blocked, before, erasure] = await mapRedisErrors(this.#deps.redis.hmget(account, ...fields));
    // Unblocking a user does not end an erasure.
    const isBlocked = blocked === '1' || typeof erasure === 'string';
    return { plan: plan ?? undefined, blocked: isBlocked, revokedBefore: Number(before ?? 0) };
  }

  /**
   * Applies the account to an identity, for requests without a connection. Admission checks the same for connections.
   * @throws TollgateError USER_BLOCKED, TOKEN_REVOKED; RedisUnavailable
   */
  async admit(identity: Identity, plans: Pick<Plans, 'effective'>): Promise<Identity> {
    const { plan, blocked, revokedBefore } = await this.read(identity.userId);
    if (blocked) throw new TollgateError('USER_BLOCKED');
    if (identity.tokenIssuedAt < revokedBefore) throw new TollgateError('TOKEN_REVOKED');
    return withPlan(identity, plan ?? identity.plan, plans);
  }

  /** Stores a field without expiry, then publishes the invalidation. */
  async #set(userId: string, field: string, value: string): Promise<void> {
    await mapRedisErrors(this.#deps.redis.hset(this.#deps.keys.user(userId).account, field, value));
    await this.#invalidate(userId);
  }

  #invalidate(userId: string): Promise<void> {
    return invalidateAccount(this.#deps, userId);
  }
}

/**
 * Returns the identity of a token with the effective plan. A token contains the permissions and flags of the plan for
 * which it was issued; if the effective plan differs, they are removed, because they would outlive that plan.
 */
export function withPlan(identity: Identity, named: string, plans: Pick<Plans, 'effective'>): Identity {
  const plan = plans.effective(named).name;
  // The permissions of a service are its scopes, independent of any plan.
  const kept = plan === identity.plan || identity.method === 'service';
  if (plan === identity.plan) return identity;
  return kept ? { ...identity, plan } : { ...identity, plan, permissions: [], featureFlags: {} };
}
