import type { Redis } from '../src/redis/client.ts';
import type { Keys } from '../src/redis/keys.ts';
import { answered } from './outage.ts';
import type { Passwords } from './passwords.ts';

export interface User {
  readonly id: string;
  readonly email: string;
  /** Plan of the user at registration; an admin action overrides it. */
  readonly plan: string;
  readonly roles: readonly string[];
}

/** Accounts for development and test: one per plan, and two for the console. */
export const DEMO_USERS: readonly User[] = [
  { id: 'user_free', email: 'free@demo.local', plan: 'free', roles: [] },
  { id: 'user_pro', email: 'pro@demo.local', plan: 'pro', roles: [] },
  { id: 'user_enterprise', email: 'enterprise@demo.local', plan: 'enterprise', roles: [] },
  { id: 'user_developer', email: 'developer@demo.local', plan: 'developer', roles: ['admin', 'developer'] },
  { id: 'user_admin', email: 'admin@demo.local', plan: 'enterprise', roles: ['admin'] },
  { id: 'user_viewer', email: 'viewer@demo.local', plan: 'free', roles: ['viewer'] },
];

export interface UserRecord {
  readonly user: User;
  readonly passwordHash: string;
}

/** Users of this service, by e-mail address. */
export class Users {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #passwords: Passwords;
  readonly #enabled: boolean;

  /** @param options.enabled false if password login is disabled; then no user is found, even if Redis has records */
  constructor(deps: { redis: Redis; keys: Keys; passwords: Passwords }, options: { readonly enabled: boolean }) {
    this.#redis = deps.redis;
    this.#keys = deps.keys;
    this.#passwords = deps.passwords;
    this.#enabled = options.enabled;
  }

  async find(email: string): Promise<UserRecord | undefined> {
    if (!this.#enabled) return undefined;
    const address = normalEmail(email);
    const record = await answered(this.#redis.hgetall(this.#key(address)));
    const { id, plan, roles, password_hash: passwordHash } = record;
    if (!id || !plan || !passwordHash) return undefined;
    return { user: { id, email: address, plan, roles: (roles ?? '').split(' ').filter(Boolean) }, passwordHash };
  }

  /** Creates or updates the demo accounts, including their password. Idempotent. */
  async seed(password: string): Promise<void> {
    const found = await Promise.all(DEMO_USERS.map(({ email }) => this.find(email)));
    // One hash for all accounts: they share one password by definition, so separate salts would add nothing.
    const [existing, ...others] = new Set(found.map((record) => record?.passwordHash));
    const kept = existing !== undefined && others.length === 0 && (await this.#passwords.verify(password, existing));
    const passwordHash = kept ? existing : await this.#passwords.hash(password);
    const writes = this.#redis.multi();
    for (const { id, email, plan, roles } of DEMO_USERS) {
      // No expiry: an account exists until it is deleted.
      writes.hset(this.#key(email), { id, plan, roles: roles.join(' '), password_hash: passwordHash });
    }
    await answered(writes.exec());
  }

  #key(email: string): string {
    return this.#keys.auth(`user:${email}`);
  }
}

export function normalEmail(email: string): string {
  return email.trim().toLowerCase();
}
