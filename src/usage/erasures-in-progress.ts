import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';

/**
 * Reads the users whose erasure is in progress, for readers of the ledger. `Erasures` in src/accounts begins and ends
 * erasures.
 */
export class PseudonymsInUse {
  readonly #redis: Redis;
  readonly #keys: Keys;

  constructor({ redis, keys }: { redis: Redis; keys: Keys }) {
    this.#redis = redis;
    this.#keys = keys;
  }

  /**
   * Returns the pseudonyms by user id.
   * @throws RedisUnavailable
   */
  async pseudonyms(): Promise<ReadonlyMap<string, string>> {
    const members = await mapRedisErrors(this.#redis.zrange(this.#keys.erasures, 0, '-1'));
    return new Map(
      members.map((member) => [member.slice(member.indexOf(' ') + 1), member.slice(0, member.indexOf(' '))]),
    );
  }
}
