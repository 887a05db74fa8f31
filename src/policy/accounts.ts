import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import { LuaScript } from '../redis/scripts.ts';

const setAccount = LuaScript.load('setAccount-1');

/** What the user's connections are told, on the user's channel, when an operator decides something. */
export type AccountControl =
  | { readonly control: 'plan'; readonly plan: string }
  | { readonly control: 'block' }
  | { readonly control: 'unblock' };

/** What operators decided about users: it wins over what a token says. Read at admission, announced when it changes. */
export class Accounts {
  readonly #redis: Redis;
  readonly #keys: Keys;

  constructor({ redis, keys }: { redis: Redis; keys: Keys }) {
    this.#redis = redis;
    this.#keys = keys;
  }

  setPlan(userId: string, plan: string): Promise<void> {
    return this.#set(userId, { control: 'plan', plan }, ['plan', plan]);
  }

  setBlocked(userId: string, blocked: boolean): Promise<void> {
    return this.#set(userId, { control: blocked ? 'block' : 'unblock' }, ['blocked', blocked ? '1' : '0']);
  }

  async #set(userId: string, control: AccountControl, fields: string[]): Promise<void> {
    const keys = this.#keys.user(userId);
    await setAccount.run(this.#redis, [keys.account], [keys.channel, JSON.stringify(control), ...fields]);
  }
}
