import type { UsageRecord } from '../../protocol/usage.ts';
import type { Redis } from '../../redis/client.ts';
import { mapRedisErrors } from '../../redis/errors.ts';
import type { Keys } from '../../redis/keys.ts';

/** Reads the latest usage records of a user, newest first. It serves the user's tools; billing uses the ledger. */
export class RecentUsage {
  readonly #redis: Redis;
  readonly #keys: Keys;

  constructor({ redis, keys }: { redis: Redis; keys: Keys }) {
    this.#redis = redis;
    this.#keys = keys;
  }

  async since(userId: string, from: Date): Promise<UsageRecord[]> {
    const stored = await mapRedisErrors(this.#redis.lrange(this.#keys.user(userId).recentUsage, 0, -1));
    const records = stored.map((json) => JSON.parse(json) as UsageRecord);
    const earliest = from.toISOString();
    return records.filter(({ completed_at }) => completed_at >= earliest);
  }
}
