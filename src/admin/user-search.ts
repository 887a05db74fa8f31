import { masters, type Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import { userIdOfKey, userKeyPattern } from '../redis/user-keys.ts';

/** Bounds of one page: steps of SCAN, and keys that Redis looks at per step. A step takes about a millisecond. */
const STEPS_PER_PAGE = 20;
const KEYS_PER_STEP = 1_000;

export interface UserPage {
  readonly userIds: readonly string[];
  /** Undefined when all keys have been searched. */
  readonly next: string | undefined;
}

/**
 * Searches the users that have an account, connections or an event log, by a part of their id. Reads a bounded part of
 * Redis.
 */
export class UserSearch {
  readonly #redis: Redis;
  readonly #keys: Keys;

  constructor({ redis, keys }: { readonly redis: Redis; readonly keys: Keys }) {
    this.#redis = redis;
    this.#keys = keys;
  }

  /**
   * @param cursor `next` of the page before; undefined for the first page, which has the user with exactly this id
   * @throws RedisUnavailable
   */
  async page(query: string, limit: number, cursor: string | undefined): Promise<UserPage> {
    const found = new Set<string>();
    if (cursor === undefined && query !== '' && (await this.#exists(query))) found.add(query);
    const servers = masters(this.#redis);
    const pattern = userKeyPattern(this.#keys.prefix, query);
    let [server = 0, position = '0'] = parse(cursor);
    for (let step = 0; step < STEPS_PER_PAGE && server < servers.length; step += 1) {
      const master = servers[server];
      if (!master) break;
      const scan = master.scan(position, 'MATCH', pattern, 'COUNT', KEYS_PER_STEP);
      const [next, keys] = await mapRedisErrors(scan);
      for (const key of keys) {
        const id = userIdOfKey(key);
        if (id !== undefined) found.add(id);
      }
      position = next;
      if (next === '0') server += 1;
      if (found.size >= limit) break;
    }
    const isComplete = server >= servers.length;
    return { userIds: [...found], next: isComplete ? undefined : `${server}-${position}` };
  }

  async #exists(userId: string): Promise<boolean> {
    const { account, leases, logState } = this.#keys.user(userId);
    return (await mapRedisErrors(this.#redis.exists(account, leases, logState))) > 0;
  }
}

function parse(cursor: string | undefined): [server: number, position: string] {
  const [server = '0', position = '0'] = (cursor ?? '').split('-');
  return [Number(server), position === '' ? '0' : position];
}
