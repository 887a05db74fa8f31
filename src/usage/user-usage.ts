import type { Clock } from '../lib/clock.ts';
import type { LedgerRecord } from '../protocol/usage.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import type { UsageArchive } from './archive/archive.ts';
import { HOUR_MS, hoursBetween } from './hours.ts';
import { TALLY_SECONDS } from './ledger/append-batch.ts';
import type { Ledger } from './ledger/ledger.ts';
import { parseLedgerRecord } from './records.ts';
import { Tallies } from './reports/tallies.ts';

const READ_BATCH = 1_000;

/** A line of the export of a user's data. */
export interface UsageOfUser {
  readonly section: string;
  readonly id: string | null;
  readonly data: unknown;
}

export interface UserUsageDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly ledger: Ledger;
  readonly clock: Clock;
  readonly archive?: UsageArchive | undefined;
}

/**
 * Yields the usage data of a user: ledger records, records that only the archive still has, tallies and corrections. It
 * holds one batch in memory at a time.
 * @throws RedisUnavailable; Error while PostgreSQL is unavailable
 */
export async function* exportUsage(deps: UserUsageDeps, userId: string): AsyncGenerator<UsageOfUser> {
  const { ledger } = deps;
  const { sequence: head, trimmed } = await ledger.head();
  for await (const record of archivedRecords(deps, userId, trimmed.sequence)) {
    yield { section: 'usage_record', id: null, data: record };
  }
  for await (const batch of ledger.batches(trimmed.sequence + 1, head)) {
    for (const { json } of batch) {
      const record = parseLedgerRecord(json);
      if (record.user_id === userId) yield { section: 'usage_record', id: record.id, data: record };
    }
  }
  yield* talliesOf(deps, userId);
  yield* correctionsOf(deps, userId);
}

async function* archivedRecords({ archive }: UserUsageDeps, userId: string, to: number): AsyncGenerator<LedgerRecord> {
  for (let next = 1; archive && next <= to; next += READ_BATCH) {
    for (const { json } of await archive.range(next, Math.min(to, next + READ_BATCH - 1))) {
      const record = parseLedgerRecord(json);
      if (record.user_id === userId) yield record;
    }
  }
}

async function* talliesOf({ redis, keys, clock }: UserUsageDeps, userId: string): AsyncGenerator<UsageOfUser> {
  const tallies = new Tallies({ redis, keys });
  const now = clock.now();
  for (const hour of hoursBetween(now - TALLY_SECONDS * 1000, now + HOUR_MS)) {
    if ((await mapRedisErrors(redis.exists(keys.tally(hour)))) === 0) continue;
    for (const [row, measures] of await tallies.rows(hour, userId)) {
      yield { section: 'tally', id: hour, data: { row: JSON.parse(row) as unknown, ...measures } };
    }
  }
}

async function* correctionsOf({ redis, keys }: UserUsageDeps, userId: string): AsyncGenerator<UsageOfUser> {
  for (const digest of await mapRedisErrors(redis.smembers(keys.correctionsOf(userId)))) {
    const record = await mapRedisErrors(redis.hget(keys.correction(digest), 'record'));
    if (record !== null) yield { section: 'correction', id: digest, data: JSON.parse(record) as unknown };
  }
}
