import type { Redis } from '../../redis/client.ts';
import type { Keys } from '../../redis/keys.ts';
import { LuaScript } from '../../redis/scripts.ts';
import { endOf } from '../hours.ts';
import { type Measures, measuresOf, NOTHING, packed, rowOf, Sums, sum } from '../measures.ts';
import type { Refusal } from '../records.ts';
import type { ChainedRecord } from './ledger.ts';

const ingestUsage = LuaScript.load('ingestUsage-6');

/** Records appended in one step: bounds the time that the script holds Redis (about 5 ms). */
export const APPEND_BATCH = 500;
/** A window closes this long after the end of its hour: what arrives later goes into its next revision. */
export const WINDOW_GRACE_MS = 15 * 60_000;
/** Tallies are kept for a year and a month, so that a year can be compared with the one before. */
export const TALLY_SECONDS = 396 * 24 * 3_600;
/** An outcome with an idempotency key is kept for a day: after twice that nobody makes the same call again. */
const RESUBMITTED_SECONDS = 48 * 3_600;

/** How far an outbox is folded: before this batch ("" for not at all) and after it. */
export interface CursorMove {
  readonly outbox: string;
  readonly from: string;
  readonly to: string;
}

/** What is appended in one step. */
export interface Batch {
  /** Hash of the record that the first of these is chained to: the fence. */
  readonly head: string;
  /** Of all of them: a batch has records of one hour, so that all keys are known beforehand. */
  readonly hour: string;
  readonly records: readonly ChainedRecord[];
  /** Counted in the tallies, beside the records. */
  readonly refusals: readonly Refusal[];
  readonly moves: readonly CursorMove[];
  /** Ids that are given back to the ledger with this batch, whether it had them or not. */
  readonly resubmitted: readonly string[];
}

/**
 * Appends records to the ledger with all that hangs on them: tallies, window, cursors. All of it, or nothing.
 * @returns false when the ledger has moved on: whoever appends must look again
 * @throws TollgateError OVERLOADED while Redis is away
 */
export async function appendBatch({ redis, keys }: { redis: Redis; keys: Keys }, batch: Batch): Promise<boolean> {
  const { head, hour, records, refusals, moves, resubmitted } = batch;
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
      ...moves.flatMap(({ outbox, from, to }) => [outbox, from, to]),
      ...[...rows.rows].flatMap(([row, measures]) => [row, packed(measures)]),
      ...resubmitted,
      ...records.map(({ json }) => json),
    ],
  );
  return appended === 1;
}
