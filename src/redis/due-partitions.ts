import { Cluster } from 'ioredis';
import type { Redis } from './connection.ts';
import { mapRedisErrors } from './errors.ts';
import { PARTITIONS } from './keys.ts';
import { integer, list } from './replies.ts';
import { LuaScript } from './scripts.ts';

const findDue = LuaScript.load('duePartitions-64', list(integer));

/**
 * Returns the partitions whose sorted set of times has a member that is due: one command on a single server, one per
 * partition on a Redis Cluster, where the partitions are in different slots.
 * @param until the latest time that is due, ms since the epoch
 * @throws RedisUnavailable
 */
export async function duePartitions(
  redis: Redis,
  keyOf: (partition: number) => string,
  until: number,
): Promise<number[]> {
  const partitions = Array.from({ length: PARTITIONS }, (_, partition) => partition);
  if (!(redis instanceof Cluster)) return findDue.run(redis, partitions.map(keyOf), [until]);
  const reads = partitions.map((one) => redis.zrangebyscore(keyOf(one), '-inf', until, 'LIMIT', 0, 1));
  const first = await mapRedisErrors(Promise.all(reads));
  return partitions.filter((one) => (first[one] ?? []).length > 0);
}
