import type { Accounts } from '../src/accounts/accounts.ts';
import type { Redis } from '../src/redis/client.ts';
import type { Keys } from '../src/redis/keys.ts';
import { answered } from './outage.ts';

/** What operators decided about a user, here or at a gateway. */
export interface AccountStatus {
  /** Undefined while nobody has set one: then the user's own counts. */
  readonly plan: string | undefined;
  readonly blocked: boolean;
  /** Sessions of an earlier epoch are over. */
  readonly sessionGeneration: number;
  /** What was issued or begun before this is revoked; milliseconds since the epoch. */
  readonly revokedBefore: number;
}

/** Whether a session goes on, as far as its user's standing is concerned. */
export function isSessionValid(
  accountStatus: AccountStatus,
  session: { readonly generation: number; readonly startedAt: number },
): boolean {
  return session.generation === accountStatus.sessionGeneration && session.startedAt >= accountStatus.revokedBefore;
}

/**
 * The standing of users. Plan and block are in the account that the gateways read too: one truth, so that a block at a
 * gateway ends refreshes here as well.
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
    // Sent together: one round trip.
    const [account, generation] = await Promise.all([
      this.#accounts.read(userId),
      answered(this.#redis.get(this.#generationKey(userId))),
    ]);
    return { ...account, sessionGeneration: Number(generation ?? 0) };
  }

  async setPlan(userId: string, plan: string): Promise<void> {
    await this.#accounts.setPlan(userId, plan);
  }

  /** Blocks the user and ends all sessions, those included that a login in flight is about to start. */
  async block(userId: string): Promise<void> {
    await this.#accounts.setBlocked(userId, true);
    // Never expires: one small number for each user who was ever blocked. If it went back to 0, sessions begun since
    // the block would end, and none can tell how long those live.
    await answered(this.#redis.incr(this.#generationKey(userId)));
  }

  async unblock(userId: string): Promise<void> {
    await this.#accounts.setBlocked(userId, false);
  }

  #generationKey(userId: string): string {
    return this.#keys.auth(`session-epoch:${userId}`);
  }
}
