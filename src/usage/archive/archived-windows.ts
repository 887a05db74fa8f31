import type { ClosedRevision } from '../ledger/windows.ts';
import type { LedgerRecord } from '../records.ts';
import type { Client } from './database.ts';

/** Hours whose windows are looked at in one step: one or two, unless windows do not close. */
const HOURS_AT_ONCE = 100;
/** A closing is lost with the last seconds of a Redis: those of a day are looked at again, a few dozen. */
const RECENT = '1 day';
const MAX_RECENT = 500;

/** An hour of which not every record is in a closed revision that is archived. */
export interface OpenHour {
  readonly window: string;
  /** Closed revisions of it in the archive. */
  readonly revisions: number;
}

/** The closed revisions of the ledger's windows in the archive, for whoever has its lease. */
export class ArchivedWindows {
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  /** Notes the hours that these records, which were just archived, are in. */
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

  /** Those whose last record is one of these, in the order of these. */
  endingIn(from: number, to: number): Promise<ClosedRevision[]> {
    return this.#read('last_sequence BETWEEN $1 AND $2 ORDER BY last_sequence', [from, to]);
  }

  /** Those of the last day up to a record of the ledger, in their order. */
  recent(to: number): Promise<ClosedRevision[]> {
    const condition = 'last_sequence <= $1 AND archived_at > now() - $2::interval ORDER BY last_sequence LIMIT $3';
    return this.#read(condition, [to, RECENT, MAX_RECENT]);
  }

  /** Takes out those that have a record behind a sequence: see `ArchiveWriter.supersede`. */
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
