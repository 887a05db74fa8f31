import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';

/**
 * Returns the pseudonyms of the users whose erasure is in progress, by user id, for readers of the ledger. `Erasures`
 * in src/accounts begins and ends erasures.
 * @throws RedisUnavailable
 */
export async function pseudonymsInUse({
  redis,
  keys,
}: {
  readonly redis: Redis;
  readonly keys: Keys;
}): Promise<ReadonlyMap<string, string>> {
  const members = await mapRedisErrors(redis.zrange(keys.erasures, 0, '-1'));
  return new Map(
    members.map((member) => [member.slice(member.indexOf(' ') + 1), member.slice(0, member.indexOf(' '))]),
  );
}
