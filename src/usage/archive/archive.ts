import type { LedgerRecord, UsageRecord } from '../../protocol/usage.ts';
import type { LedgerPosition, StoredRecord } from '../ledger/ledger.ts';
import { parseLedgerRecord } from '../records.ts';
import { isSameRecord } from '../redaction.ts';
import { ArchivedWindows } from './archived-windows.ts';
import type { ArchiveDatabase, Client } from './database.ts';

/** Records read per query. */
const READ_BATCH = 1_000;
/** Interval after which a resubmitted record that is not in the ledger yet is resubmitted again. */
const RETURN_AGAIN = '1 minute';

/** An archived record. */
export type ArchivedRecord = Pick<StoredRecord, 'sequence' | 'json'>;

/** A row of the archive: the record and its indexed columns. */
export interface ArchiveRow extends ArchivedRecord, Pick<LedgerRecord, 'id' | 'period' | 'units' | 'hash'> {}

/** An archived closed revision of a window. */
export interface ArchivedRevision {
  readonly window: string;
  readonly revision: number;
  readonly json: string;
}

/** The first and last position of the archive; both are the beginning of the ledger while it is empty. */
export interface ArchiveHead extends LedgerPosition {
  /** Position of the record to which the first archived record is chained. */
  readonly base: LedgerPosition;
}

/** The archive and the ledger contradict each other at a record. */
export class ArchiveDisagrees extends Error {
  readonly sequence: number;

  constructor(sequence: number, what: string) {
    super(`record ${sequence}: ${what}`);
    this.name = 'ArchiveDisagrees';
    this.sequence = sequence;
  }
}

/** The second copy of the ledger, in PostgreSQL. */
export class UsageArchive {
  readonly #database: ArchiveDatabase;

  constructor(database: ArchiveDatabase) {
    this.#database = database;
  }

  /**
   * Returns the head.
   * @throws Error while PostgreSQL is unavailable
   */
  head(): Promise<ArchiveHead> {
    return this.#database.use(readHead);
  }

  /** Returns the records from one sequence to another, both inclusive, at most 1,000. */
  range(from: number, to: number): Promise<ArchiveRow[]> {
    return this.#database.use((client) => readRange(client, from, to));
  }

  /** Returns the archived closed revisions of these windows, ordered by window and revision. */
  closedRevisions(windows: readonly string[]): Promise<ArchivedRevision[]> {
    return this.#database.use(async (client) => {
      const { rows } = await client.query<ArchivedRevision>(
        `SELECT period AS window, revision, document::text AS json FROM usage_windows
         WHERE period = ANY($1) ORDER BY period, revision`,
        [windows],
      );
      return rows;
    });
  }

  /**
   * Runs `work` in one transaction as the only archiver. The locked row is the lease. It ends with the transaction,
   * also when its holder hangs or dies. A holder that resumes after a pause has lost its transaction, and none of its
   * writes take effect.
   * @returns undefined when another archiver holds the lease
   */
  alone<T>(work: (writer: ArchiveWriter) => Promise<T>): Promise<T | undefined> {
    return this.#database.transaction(async (client) => {
      const { rowCount } = await client.query('SELECT FROM usage_archive FOR UPDATE SKIP LOCKED');
      return rowCount === 1 ? work(new ArchiveWriter(client)) : undefined;
    });
  }
}

/** The archive for the holder of its lease. */
export class ArchiveWriter {
  readonly windows: ArchivedWindows;
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
    this.windows = new ArchivedWindows(client);
  }

  head(): Promise<ArchiveHead> {
    return readHead(this.#client);
  }

  range(from: number, to: number): Promise<ArchiveRow[]> {
    return readRange(this.#client, from, to);
  }

  /** Returns the hash of a record; undefined if the record is not archived. */
  async hashAt(sequence: number): Promise<string | undefined> {
    const { rows } = await this.#client.query<{ hash: string }>('SELECT hash FROM usage_records WHERE sequence = $1', [
      sequence,
    ]);
    return rows[0]?.hash;
  }

  /** Starts an empty archive after the record at this position, because the ledger was trimmed before. */
  async startAfter({ sequence, hash }: LedgerPosition): Promise<void> {
    await this.#client.query('UPDATE usage_archive SET base_sequence = $1, base_hash = $2', [sequence, hash]);
  }

  /**
   * Adds records. A record that is already archived stays unchanged and must be equal.
   * @throws ArchiveDisagrees when an archived record differs
   */
  async add(records: readonly (ArchivedRecord & { readonly record: LedgerRecord })[]): Promise<void> {
    const columns = [
      records.map(({ sequence }) => sequence),
      records.map(({ record }) => record.id),
      records.map(({ record }) => record.period),
      records.map(({ record }) => record.units),
      records.map(({ record }) => record.hash),
      records.map(({ json }) => json),
    ];
    const { rowCount } = await this.#client.query(
      `INSERT INTO usage_records (sequence, id, period, units, hash, record)
       SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::json[])
       ON CONFLICT DO NOTHING`,
      columns,
    );
    await this.windows.note(records.map(({ record }) => record));
    if (rowCount === records.length) return;
    const { rows } = await this.#client.query<{ sequence: string; id: string; json: string }>(
      `SELECT sequence, id, record::text AS json FROM usage_records WHERE sequence = ANY($1) OR id = ANY($2)`,
      columns.slice(0, 2),
    );
    const wanted = new Map(records.map(({ sequence, json }) => [sequence, json]));
    const other = rows.find(({ sequence, json }) => !isSameRecord(json, wanted.get(Number(sequence)) ?? '{}'));
    if (other) throw new ArchiveDisagrees(Number(other.sequence), `the archive has ${other.id} there, the ledger not`);
  }

  /**
   * Removes the records after a sequence from the history of the archive and keeps them as superseded. The ledger has
   * lost them and continues with other records.
   */
  async supersede(after: number): Promise<void> {
    await this.#client.query(
      `WITH gone AS (DELETE FROM usage_records WHERE sequence > $1 RETURNING *)
       INSERT INTO usage_records_superseded (hash, sequence, id, period, units, record, archived_at)
       SELECT hash, sequence, id, period, units, record, archived_at FROM gone
       ON CONFLICT (hash) DO UPDATE SET superseded_at = now(), returned_at = NULL, settled_at = NULL`,
      [after],
    );
    await this.windows.supersede(after);
  }

  /** Marks the superseded records whose id the ledger contains again, under any sequence. */
  async markRestored(): Promise<void> {
    await this.#client.query(
      `UPDATE usage_records_superseded lost SET settled_at = now()
       WHERE settled_at IS NULL AND EXISTS (SELECT FROM usage_records kept WHERE kept.id = lost.id)`,
    );
  }

  /**
   * Returns the ids that `markRestored` marked in the same transaction and whose units in the ledger differ from the
   * original ones.
   */
  async chargedOtherwise(): Promise<string[]> {
    const { rows } = await this.#client.query<{ id: string }>(
      `SELECT lost.id FROM usage_records_superseded lost JOIN usage_records kept USING (id)
       WHERE lost.settled_at = now() AND kept.units <> lost.units ORDER BY lost.sequence`,
    );
    return rows.map(({ id }) => id);
  }

  /**
   * Returns superseded records that the ledger lacks and that were not resubmitted recently, and marks them as
   * resubmitted now.
   */
  async claimLost(limit: number): Promise<UsageRecord[]> {
    const { rows } = await this.#client.query<{ json: string }>(
      `UPDATE usage_records_superseded SET returned_at = now()
       WHERE hash IN (
         SELECT hash FROM usage_records_superseded
         WHERE settled_at IS NULL AND (returned_at IS NULL OR returned_at < now() - $1::interval)
         ORDER BY sequence LIMIT $2)
       RETURNING record::text AS json`,
      [RETURN_AGAIN, limit],
    );
    const lost = rows.map(({ json }) => parseLedgerRecord(json));
    return lost
      .sort((one, other) => one.sequence - other.sequence)
      .map(({ sequence: _, hash: __, salt: ___, content_before: ____, ...record }) => record);
  }

  /** Returns the archived records among these sequences. */
  async recordsAt(sequences: readonly number[]): Promise<ArchivedRecord[]> {
    const { rows } = await this.#client.query<{ sequence: string; json: string }>(
      'SELECT sequence, record::text AS json FROM usage_records WHERE sequence = ANY($1)',
      [sequences],
    );
    return rows.map(({ sequence, json }) => ({ sequence: Number(sequence), json }));
  }

  /** Replaces records by their erased form. Their hash and all other columns do not change. */
  async replace(records: readonly (ArchivedRecord & Pick<LedgerRecord, 'hash'>)[]): Promise<void> {
    await this.#client.query(
      `UPDATE usage_records r SET record = erased.json
       FROM unnest($1::bigint[], $2::text[], $3::json[]) AS erased (sequence, hash, json)
       WHERE r.sequence = erased.sequence AND r.hash = erased.hash`,
      [records.map(({ sequence }) => sequence), records.map(({ hash }) => hash), records.map(({ json }) => json)],
    );
  }

  /**
   * Erases all superseded records of a user in this transaction. Their number is bounded by the failover losses of one
   * user.
   */
  async eraseSuperseded(userId: string, erased: (json: string) => string): Promise<number> {
    const { rows } = await this.#client.query<{ hash: string; json: string }>(
      `SELECT hash, record::text AS json FROM usage_records_superseded WHERE record->>'user_id' = $1`,
      [userId],
    );
    for (const { hash, json } of rows) {
      await this.#client.query('UPDATE usage_records_superseded SET record = $2 WHERE hash = $1', [hash, erased(json)]);
    }
    return rows.length;
  }
}

async function readHead(client: Client): Promise<ArchiveHead> {
  const { rows } = await client.query<{ sequence: string; hash: string; base_sequence: string; base_hash: string }>(
    `SELECT coalesce(last.sequence, base_sequence) AS sequence, coalesce(last.hash, base_hash) AS hash,
            base_sequence, base_hash
     FROM usage_archive LEFT JOIN LATERAL
       (SELECT sequence, hash FROM usage_records ORDER BY sequence DESC LIMIT 1) last ON true`,
  );
  const { sequence = '0', hash = '', base_sequence = '0', base_hash = '' } = rows[0] ?? {};
  return { sequence: Number(sequence), hash, base: { sequence: Number(base_sequence), hash: base_hash } };
}

async function readRange(client: Client, from: number, to: number): Promise<ArchiveRow[]> {
  const { rows } = await client.query<Omit<ArchiveRow, 'sequence' | 'units'> & { sequence: string; units: string }>(
    `SELECT sequence, id, period, units, hash, record::text AS json FROM usage_records
     WHERE sequence BETWEEN $1 AND $2 ORDER BY sequence LIMIT $3`,
    [from, to, READ_BATCH],
  );
  // The driver returns 64-bit integers as text.
  return rows.map((row) => ({ ...row, sequence: Number(row.sequence), units: Number(row.units) }));
}
