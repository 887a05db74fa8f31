import { TollgateError } from '../../protocol/errors.ts';
import type { UsageRecord } from '../../protocol/usage.ts';
import type { Redis } from '../../redis/client.ts';
import { mapRedisErrors, redisError } from '../../redis/errors.ts';
import type { Keys } from '../../redis/keys.ts';

/** The source of a resubmitted record: the process to which Redis acknowledged it (`node`), or the archive. */
export const RECORD_SOURCES = ['node', 'archive'] as const;
export type RecordSource = (typeof RECORD_SOURCES)[number];

export const SOURCE_FIELD = 'g';
export const SINCE_FIELD = 's';

/** Records sent per round trip. */
const BATCH = 500;
/** Maximum number of pending records: about 200 MB of Redis memory while ingestion is blocked. */
const MAX_PENDING = 200_000;

export interface Resubmission {
  readonly source: RecordSource;
  /**
   * Approximate Redis time before which none of the records can have been ingested, in milliseconds since the epoch.
   */
  readonly since: number;
}

/**
 * Resubmits records under their original ids. Ingestion appends each record that the ledger lacks, once, even if
 * several sources resubmit it. The records are added to the windows of their hours like any record that arrives late.
 * @throws RedisUnavailable; TollgateError OVERLOADED while too many records are pending; repeating the call is safe
 */
export async function resubmit(
  { redis, keys }: { readonly redis: Redis; readonly keys: Keys },
  records: readonly UsageRecord[],
  { source, since }: Resubmission,
): Promise<void> {
  if ((await mapRedisErrors(redis.xlen(keys.resubmitted))) > MAX_PENDING) {
    throw new TollgateError('OVERLOADED', { cause: new Error('too many resubmitted records are pending') });
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
