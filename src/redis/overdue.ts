import type { Redis } from './client.ts';
import { duePartitions } from './due-partitions.ts';

/** A run or a call that has not ended. */
interface OverdueMember {
  readonly userId: string;
  readonly id: string;
}

/**
 * Returns the members `<user id> <id>` whose deadline has passed (Redis clock), from a sorted set per partition.
 * @param limit maximum number per partition
 */
export async function overdueMembers(
  redis: Redis,
  keyOf: (partition: number) => string,
  limit: number,
): Promise<OverdueMember[]> {
  const [seconds] = await redis.time();
  const dueAt = Number(seconds) * 1000;
  const partitions = await duePartitions(redis, keyOf, dueAt);
  // Separate commands, because a pipeline must stay on one shard.
  const reads = partitions.map((partition) => redis.zrangebyscore(keyOf(partition), '-inf', dueAt, 'LIMIT', 0, limit));
  return (await Promise.all(reads)).flat().map((member) => {
    const space = member.lastIndexOf(' ');
    return { userId: member.slice(0, space), id: member.slice(space + 1) };
  });
}
