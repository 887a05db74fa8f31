import type { Refusal } from '../../protocol/usage.ts';
import type { Redis } from '../../redis/client.ts';
import type { Keys } from '../../redis/keys.ts';
import { done } from '../../redis/replies.ts';
import { LuaScript } from '../../redis/scripts.ts';
import { endOf } from '../hours.ts';
import { type Measures, measuresOf, NOTHING, packed, rowOf, Sums, sum } from '../measures.ts';
import type { ChainedRecord } from './ledger.ts';

const ingestUsage = LuaScript.load('ingestUsage-6', done);

/** Maximum number of records per batch. It bounds the time for which the script blocks Redis (about 5 ms). */
export const APPEND_BATCH = 500;
/** Time between the end of an hour and the closing of its window. Records that arrive later form the next revision. */
export const WINDOW_GRACE_MS = 15 * 60_000;
/** Tallies are kept for 13 months, so that a year can be compared with the one before. */
export const TALLY_SECONDS = 396 * 24 * 3_600;
/**
 * Expiry of the ids of resubmitted records. An idempotency key is stored for a day, and no client repeats a call after
 * twice that time.
 */
export const RESUBMITTED_SECONDS = 48 * 3_600;

/** The cursor of an outbox before this batch ("" before the first entry) and after it. */
export interface CursorMove {
  readonly outbox: string;
  readonly from: string;
  readonly to: string;
}

/** The records, refusals and cursors of one step. */
export interface Batch {
  /** Hash of the record to which the first of these is chained: the fencing token. */
  readonly head: string;
  /** The hour of all entries. A batch covers a single hour, so that all keys are known beforehand. */
  readonly hour: string;
  readonly records: readonly ChainedRecord[];
  /** Counted in the tallies only. */
  readonly refusals: readonly Refusal[];
  readonly moves: readonly CursorMove[];
  /** The field `rewinds` of the state with which the outboxes were read; "" for none. */
  readonly rewinds?: string;
  /** Ids of the records that are resubmitted with this batch, including those that the ledger already has. */
  readonly resubmitted: readonly string[];
}

/**
 * Appends records to the ledger and updates tallies, window and cursors, all or nothing.
 * @returns false when the ledger has changed since it was read: the caller must read it again
 * @throws RedisUnavailable
 */
export async function appendBatch({ redis, keys }: { redis: Redis; keys: Keys }, batch: Batch): Promise<boolean> {
  const { head, hour, records, refusals, moves, rewinds = '', resubmitted } = batch;
  const rows = new Sums();
  for (const entry of [...records.map(({ record }) => record), ...refusals]) rows.add(rowOf(entry), measuresOf(entry));
  const totals = records.reduce<Measures>((all, { record }) => sum(all, measuresOf(record)), NOTHING);
  const { ledger, ledgerState, openWindows, resubmittedIds } = keys;
  const appended = await ingestUsage.run(
    redis,
    [ledger, ledgerState, keys.tally(hour), keys.window(hour), openWindows, resubmittedIds],
    [
      head,
      records.at(-1)?.record.hash ?? head,
      hour,
      endOf(hour),
      WINDOW_GRACE_MS,
      TALLY_SECONDS,
      packed(totals),
      moves.length,
      rows.rows.size,
      resubmitted.length,
      RESUBMITTED_SECONDS,
      rewinds,
      ...moves.flatMap(({ outbox, from, to }) => [outbox, from, to]),
      ...[...rows.rows].flatMap(([row, measures]) => [row, packed(measures)]),
      ...resubmitted,
      ...records.map(({ json }) => json),
    ],
  );
  return appended === 1;
}
