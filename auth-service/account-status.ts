import type { Accounts } from '../src/accounts/accounts.ts';
import type { Redis } from '../src/redis/client.ts';
import type { Keys } from '../src/redis/keys.ts';
import { answered } from './outage.ts';

/** Result of admin actions about a user, at the auth service or at a gateway. */
export interface AccountStatus {
  /** Undefined if no plan was set by an admin action; then the user's own plan applies. */
  readonly plan: string | undefined;
  readonly blocked: boolean;
  /** Sessions of an earlier generation have ended. */
  readonly sessionGeneration: number;
  /** Tokens issued and sessions started before this time are revoked; milliseconds since the epoch. */
  readonly revokedBefore: number;
}

/** Whether the account status of its user allows a session to continue. */
export function isSessionValid(
  accountStatus: AccountStatus,
  session: { readonly generation: number; readonly startedAt: number },
): boolean {
  return session.generation === accountStatus.sessionGeneration && session.startedAt >= accountStatus.revokedBefore;
}

/**
 * Reads and changes the account status of users. Plan and block are stored in the account that the gateways also use,
 * so a block at a gateway also ends refreshes at the auth service.
 */
export class AccountStatuses {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #accounts: Accounts;

  constructor({ redis, keys, accounts }: { redis: Redis; keys: Keys; accounts: Accounts }) {
    this.#redis = redis;
    this.#keys = keys;
    this.#accounts = accounts;
  }

  async of(userId: string): Promise<AccountStatus> {
    // Pipelined: one round trip.
    const [account, generation] = await Promise.all([
      this.#accounts.read(userId),
      answered(this.#redis.get(this.#generationKey(userId))),
    ]);
    return { ...account, sessionGeneration: Number(generation ?? 0) };
  }

  async setPlan(userId: string, plan: string): Promise<void> {
    await this.#accounts.setPlan(userId, plan);
  }

  /** Blocks the user and ends all sessions, including those that a login in flight is about to start. */
  async block(userId: string): Promise<void> {
    await this.#accounts.setBlocked(userId, true);
    // The key never expires; it is one small number per user who was ever blocked. If it were reset to 0, sessions that
    // started after the block would end, and refreshes can keep a session alive for an unlimited time.
    await answered(this.#redis.incr(this.#generationKey(userId)));
  }

  async unblock(userId: string): Promise<void> {
    await this.#accounts.setBlocked(userId, false);
  }

  #generationKey(userId: string): string {
    return this.#keys.auth(`session-epoch:${userId}`);
  }
}
