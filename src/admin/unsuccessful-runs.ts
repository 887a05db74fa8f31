import { TollgateError } from '../protocol/errors.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import { type Keys, PARTITIONS } from '../redis/keys.ts';

/** First character of a cursor in the list of unsuccessful runs; alone, it is the start of that list. */
export const UNSUCCESSFUL = 'u';

/** A position in the list: after `skip` of the runs that ended at `at`, in milliseconds since the epoch. */
export interface ListPosition {
  readonly at: number;
  readonly skip: number;
}

interface Entry {
  readonly at: number;
  /** `<user id> <run id>` */
  readonly member: string;
}

export function cursorOf({ at, skip }: ListPosition): string {
  return `${UNSUCCESSFUL}${at}-${skip}`;
}

/** @throws TollgateError FORMAT_ERROR for a cursor of another list */
export function positionOf(cursor = UNSUCCESSFUL): ListPosition {
  if (!cursor.startsWith(UNSUCCESSFUL)) throw otherList();
  if (cursor === UNSUCCESSFUL) return { at: Number.MAX_SAFE_INTEGER, skip: 0 };
  const [at, skip] = cursor.slice(UNSUCCESSFUL.length).split('-');
  return { at: Number(at), skip: Number(skip) };
}

/**
 * Lists the latest runs of all partitions that failed or were cancelled, the latest first. One round trip per shard.
 * @throws RedisUnavailable
 */
export async function unsuccessfulRuns(
  { redis, keys }: { readonly redis: Redis; readonly keys: Keys },
  { at, skip }: ListPosition,
  limit: number,
): Promise<Entry[]> {
  const partitions = Array.from({ length: PARTITIONS }, (_, partition) => keys.unsuccessfulRuns(partition));
  const read = (key: string) => redis.zrevrangebyscore(key, at, '-inf', 'WITHSCORES', 'LIMIT', 0, skip + limit);
  const replies = await mapRedisErrors(Promise.all(partitions.map(read)));
  return replies
    .flatMap(entriesOf)
    .toSorted(latestFirst)
    .slice(skip, skip + limit);
}

export function otherList(): TollgateError {
  return new TollgateError('FORMAT_ERROR', { text: '"cursor" belongs to a list with other filters.' });
}

function entriesOf(reply: readonly string[]): Entry[] {
  return reply.flatMap((member, index) => (index % 2 === 0 ? [{ member, at: Number(reply[index + 1]) }] : []));
}

/** Runs that ended in the same millisecond have an order too, which pages rely on. */
function latestFirst(one: Entry, other: Entry): number {
  if (one.at !== other.at) return other.at - one.at;
  return one.member < other.member ? 1 : -1;
}
