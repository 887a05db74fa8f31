import type { UsageRecord } from '../../protocol/usage.ts';
import type { Redis } from '../../redis/client.ts';
import { mapRedisErrors } from '../../redis/errors.ts';
import type { Keys } from '../../redis/keys.ts';
import { parseUsageRecord } from '../records.ts';

export interface RecentUsageDeps {
  readonly redis: Redis;
  readonly keys: Keys;
}

/** Reads the latest usage records of a user, newest first. It serves the user's tools; billing uses the ledger. */
export class RecentUsage {
  readonly #deps: RecentUsageDeps;

  constructor(deps: RecentUsageDeps) {
    this.#deps = deps;
  }

  /** Returns the latest record; undefined without any of the last days. @throws RedisUnavailable */
  async latest(userId: string): Promise<UsageRecord | undefined> {
    const json = await mapRedisErrors(this.#deps.redis.lindex(this.#deps.keys.user(userId).recentUsage, 0));
    return json === null ? undefined : parseUsageRecord(json);
  }

  async since(userId: string, from: Date): Promise<UsageRecord[]> {
    const stored = await mapRedisErrors(this.#deps.redis.lrange(this.#deps.keys.user(userId).recentUsage, 0, -1));
    const records = stored.map((json) => parseUsageRecord(json));
    const earliest = from.toISOString();
    return records.filter(({ completed_at }) => completed_at >= earliest);
  }
}
