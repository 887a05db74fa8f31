import type { Account, Accounts } from '../accounts/accounts.ts';
import type { Plans } from '../catalogue/plans.ts';
import type { ConnectionRegistry, ListedConnection } from '../cluster/connection-registry.ts';
import type { RecentRefusals, Refusals } from '../figures/recent-refusals.ts';
import type { MessageLimiter } from '../limits/message-limiter.ts';
import type { Quotas } from '../limits/quotas.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import type { RecentUsage } from '../usage/reports/recent-usage.ts';
import { limitsOf, reasonsOf } from './user-limits.ts';

/** Refusals of one user that are listed. */
const REFUSALS_SHOWN = 50;
/** Codes of one user in the list of refused users; a client sees fewer. */
const CODES_SHOWN = 10;

export interface UserReaderDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly plans: Plans;
  readonly accounts: Pick<Accounts, 'read'>;
  readonly registry: Pick<ConnectionRegistry, 'list' | 'capOf'>;
  readonly messageLimiter: Pick<MessageLimiter, 'counter' | 'limitOf'>;
  readonly quotas: Pick<Quotas, 'summary'>;
  readonly recentUsage: Pick<RecentUsage, 'latest'>;
  readonly refusals: Pick<RecentRefusals, 'read'>;
}

export interface UserAccount {
  readonly account: Account;
  /** Plan of the account, else of the latest connection, else of the latest usage record; undefined without any. */
  readonly plan: string | undefined;
  /** E-mail address in the token of the latest connection; undefined if it has none or the user is not connected. */
  readonly email: string | undefined;
  readonly connections: readonly ListedConnection[];
  readonly connectionsTotal: number;
}

/** The refusals of one user by code. */
export interface RefusedUser {
  readonly user_id: string;
  readonly count: number;
  /** Time of the last one, milliseconds since the epoch. */
  readonly at: number;
  readonly codes: { code: string; count: number }[];
}

/** Reads what the gateway stores about users, for operators. */
export class UserReader {
  readonly #deps: UserReaderDeps;

  constructor(deps: UserReaderDeps) {
    this.#deps = deps;
  }

  /** @throws RedisUnavailable */
  async account(userId: string): Promise<UserAccount> {
    const { accounts, registry, recentUsage } = this.#deps;
    const [account, { total, connections }] = await Promise.all([accounts.read(userId), registry.list(userId)]);
    const latest = latestOf(connections);
    const plan = account.plan ?? latest?.plan ?? (await recentUsage.latest(userId))?.plan;
    return { account, plan, email: latest?.email, connections, connectionsTotal: total };
  }

  /** Returns the limits of a user, their counters, and what they refuse now. @throws RedisUnavailable */
  async limits(userId: string, { account, plan: name, connectionsTotal }: UserAccount) {
    if (name === undefined)
      return { usage: null, threads: await this.#threads(userId), limits: [], refused: reasonsOf(account, []) };
    const { plans, messageLimiter, quotas, registry } = this.#deps;
    const rights = { permissions: [], roles: [], featureFlags: {} };
    const [usage, { messages, endsAt }, threads] = await Promise.all([
      quotas.summary(userId, { ...rights, plan: name }),
      messageLimiter.counter(userId),
      this.#threads(userId),
    ]);
    const limits = limitsOf({
      plan: plans.effective(name),
      messages: { used: messages, limit: messageLimiter.limitOf(name), endsAt },
      connections: { used: connectionsTotal, limit: registry.capOf(name) },
      threads,
      usage,
    });
    return { usage, threads, limits, refused: reasonsOf(account, limits) };
  }

  /** Returns the latest refusals of a user, newest first. @throws RedisUnavailable */
  async refusalsOf(userId: string): Promise<Refusals[]> {
    const all = await this.#deps.refusals.read();
    return all.filter(({ user_id }) => user_id === userId).slice(0, REFUSALS_SHOWN);
  }

  /** Returns the users that were refused lately, the latest first. @throws RedisUnavailable */
  async refused(code: string | undefined, limit: number): Promise<RefusedUser[]> {
    const byUser = new Map<string, Refusals[]>();
    for (const one of await this.#deps.refusals.read()) {
      if (code !== undefined && one.code !== code) continue;
      const known = byUser.get(one.user_id);
      if (known) known.push(one);
      else if (byUser.size < limit) byUser.set(one.user_id, [one]);
    }
    return [...byUser].map(([user_id, all]) => ({
      user_id,
      count: sum(all),
      at: all[0]?.at ?? 0,
      codes: [...Map.groupBy(all, (one) => one.code)]
        .map(([name, rows]) => ({ code: name, count: sum(rows) }))
        .slice(0, CODES_SHOWN),
    }));
  }

  #threads(userId: string): Promise<number> {
    return mapRedisErrors(this.#deps.redis.zcard(this.#deps.keys.user(userId).threads));
  }
}

function sum(all: readonly Refusals[]): number {
  return all.reduce((total, { count }) => total + count, 0);
}

function latestOf(connections: readonly ListedConnection[]): ListedConnection | undefined {
  const openedAt = ({ opened_at = '' }: ListedConnection) => opened_at;
  return connections.toSorted((one, other) => (openedAt(one) < openedAt(other) ? 1 : -1))[0];
}
