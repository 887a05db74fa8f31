import type { LedgerRecord } from '../../protocol/usage.ts';
import type { ClosedRevision } from '../ledger/windows.ts';
import type { Client } from './database.ts';

/** Maximum number of hours checked per step: usually one or two, unless windows do not close. */
const HOURS_AT_ONCE = 100;
/**
 * Age of the windows that are checked after a loss. Redis can only lose closings of its last seconds; a day contains a
 * few dozen windows.
 */
const RECENT = '1 day';
const MAX_RECENT = 500;

/** An hour with records that are in no archived closed revision. */
export interface OpenHour {
  readonly window: string;
  /** Number of its closed revisions in the archive. */
  readonly revisions: number;
}

/** The archived closed revisions of windows, for the holder of the archive lease. */
export class ArchivedWindows {
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  /** Stores the hours of records that were just archived. */
  async note(records: readonly LedgerRecord[]): Promise<void> {
    const last = new Map(records.map(({ period, sequence }) => [period, sequence]));
    await this.#client.query(
      `INSERT INTO usage_hours (period, last_sequence) SELECT * FROM unnest($1::text[], $2::bigint[])
       ON CONFLICT (period) DO UPDATE SET last_sequence = excluded.last_sequence`,
      [[...last.keys()], [...last.values()]],
    );
  }

  async openHours(): Promise<OpenHour[]> {
    const { rows } = await this.#client.query<OpenHour>(
      `SELECT period AS window, (SELECT count(*)::int FROM usage_windows w WHERE w.period = h.period) AS revisions
       FROM usage_hours h WHERE last_sequence > closed_to ORDER BY period LIMIT $1`,
      [HOURS_AT_ONCE],
    );
    return rows;
  }

  async add({ window, revision, last_sequence }: ClosedRevision, document: string): Promise<void> {
    await this.#client.query(
      'INSERT INTO usage_windows (period, revision, last_sequence, document) VALUES ($1, $2, $3, $4)',
      [window, revision, last_sequence, document],
    );
    await this.#client.query('UPDATE usage_hours SET closed_to = $2 WHERE period = $1', [window, last_sequence]);
  }

  /** Returns the revisions whose last record is in this range, in order of that record. */
  endingIn(from: number, to: number): Promise<ClosedRevision[]> {
    return this.#read('last_sequence BETWEEN $1 AND $2 ORDER BY last_sequence', [from, to]);
  }

  /** Returns the revisions of the last day that end at or before a record of the ledger, in order. */
  recent(to: number): Promise<ClosedRevision[]> {
    const condition = 'last_sequence <= $1 AND archived_at > now() - $2::interval ORDER BY last_sequence LIMIT $3';
    return this.#read(condition, [to, RECENT, MAX_RECENT]);
  }

  /** Supersedes the revisions that contain a record after a sequence: see `ArchiveWriter.supersede`. */
  async supersede(after: number): Promise<void> {
    await this.#client.query(
      `WITH gone AS (DELETE FROM usage_windows WHERE last_sequence > $1 RETURNING *)
       INSERT INTO usage_windows_superseded SELECT * FROM gone`,
      [after],
    );
    await this.#client.query(
      `UPDATE usage_hours h SET
         last_sequence = coalesce((SELECT max(sequence) FROM usage_records r WHERE r.period = h.period), 0),
         closed_to = coalesce((SELECT max(last_sequence) FROM usage_windows w WHERE w.period = h.period), 0)
       WHERE last_sequence > $1`,
      [after],
    );
  }

  async #read(condition: string, values: unknown[]): Promise<ClosedRevision[]> {
    const { rows } = await this.#client.query<{ document: string }>(
      `SELECT document::text AS document FROM usage_windows WHERE ${condition}`,
      values,
    );
    return rows.map(({ document }) => JSON.parse(document) as ClosedRevision);
  }
}
