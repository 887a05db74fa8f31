import { TollgateError } from '../../protocol/errors.ts';
import type { Redis } from '../../redis/client.ts';
import { mapRedisErrors, redisError } from '../../redis/errors.ts';
import type { Keys } from '../../redis/keys.ts';
import type { UsageRecord } from '../records.ts';

/** Who still had a record: the process that Redis had acknowledged it to, or the archive. */
export const RECORD_SOURCES = ['node', 'archive'] as const;
export type RecordSource = (typeof RECORD_SOURCES)[number];

export const SOURCE_FIELD = 'g';
export const SINCE_FIELD = 's';

/** Records sent in one round trip. */
const BATCH = 500;
/** Records that wait to be looked at: some 200 MB of a Redis whose folding is stuck, and no more. */
const MAX_PENDING = 200_000;

export interface Resubmission {
  readonly source: RecordSource;
  /** Redis's time before which none of them can have come into the ledger, in milliseconds since the epoch, give or take. */
  readonly since: number;
}

/**
 * Gives records back to the ledger, under the ids that they have: it takes up those that it does not have, once, whoever
 * else gives them back. They go into the windows of their hours like any that arrive late.
 * @throws TollgateError OVERLOADED while Redis is away, or too much waits; giving all of them back again does no harm
 */
export async function resubmit(
  { redis, keys }: { readonly redis: Redis; readonly keys: Keys },
  records: readonly UsageRecord[],
  { source, since }: Resubmission,
): Promise<void> {
  if ((await mapRedisErrors(redis.xlen(keys.resubmitted))) > MAX_PENDING) {
    throw new TollgateError('OVERLOADED', { cause: new Error('what was given back before was not taken up') });
  }
  for (let at = 0; at < records.length; at += BATCH) {
    const pipeline = redis.pipeline();
    for (const record of records.slice(at, at + BATCH)) {
      pipeline.xadd(keys.resubmitted, '*', 'r', JSON.stringify(record), SOURCE_FIELD, source, SINCE_FIELD, since);
    }
    const replies = (await mapRedisErrors(pipeline.exec())) ?? [];
    for (const [error] of replies) if (error) throw redisError(error);
  }
}
