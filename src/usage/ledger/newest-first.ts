import type { LedgerRecord } from '../../protocol/usage.ts';
import { parseLedgerRecord } from '../records.ts';
import { type Ledger, type LedgerPosition, type Page, type RecordFilter, SCAN_LIMIT, wantedBy } from './ledger.ts';

/** A record is appended after its completion, by clocks that can differ by less than this. */
const CLOCK_SKEW_MS = 60_000;

export interface NewestFirstQuery extends RecordFilter {
  /** Position of the last record of the page before; sequence 0 for the first page. */
  readonly before: LedgerPosition;
  readonly limit: number;
}

/**
 * Returns a page of the ledger, newest first. A page of a filter reads at most 10,000 records; then it is short and has
 * more. For people: billing systems read the feed, which is in order and repeatable.
 * @throws RedisUnavailable
 */
export async function newestFirst(
  ledger: Pick<Ledger, 'head' | 'backwards'>,
  { before, limit, ...filter }: NewestFirstQuery,
): Promise<Page> {
  const start = before.sequence > 0 ? before.sequence - 1 : (await ledger.head()).sequence;
  const since = filter.from === undefined ? 0 : Date.parse(filter.from) - CLOCK_SKEW_MS;
  const isWanted = wantedBy(filter);
  const records: LedgerRecord[] = [];
  let end: LedgerPosition = { sequence: start + 1, hash: '' };
  let seen = 0;
  for await (const batch of ledger.backwards(start, since)) {
    for (const { sequence, json, appendedAt } of batch) {
      if (appendedAt < since) return { records, end, gapDetected: false, hasMore: false };
      const record = parseLedgerRecord(json);
      end = { sequence, hash: record.hash };
      seen += 1;
      if (isWanted(record)) records.push(record);
      if (records.length === limit || seen === SCAN_LIMIT) {
        return { records, end, gapDetected: false, hasMore: sequence > 1 };
      }
    }
  }
  return { records, end, gapDetected: false, hasMore: false };
}
