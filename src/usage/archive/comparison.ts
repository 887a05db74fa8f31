import type { LedgerHead, StoredRecord } from '../ledger/ledger.ts';
import type { WindowView } from '../ledger/windows.ts';
import { parseLedgerRecord } from '../records.ts';
import { isSameRecord } from '../redaction.ts';
import type { ArchivedRevision, ArchiveHead, ArchiveRow, UsageArchive } from './archive.ts';

/** The methods of an archive that a comparison uses. */
export type ComparedArchive = Pick<UsageArchive, 'head' | 'range' | 'closedRevisions'>;

/** `away`: PostgreSQL did not answer, so the records were not compared, or not all of them. */
export type ArchiveState = 'none' | 'compared' | 'away';

/** The first difference. */
export interface Difference {
  readonly sequence: number | null;
  readonly recordId: string | null;
  readonly window: string | null;
  readonly what: string;
}

/** Compares the records that a verification of the ledger reads with those of the archive. */
export class ArchiveComparison {
  state: ArchiveState;
  /** Number of records that both contain. */
  records = 0;
  readonly #archive: ComparedArchive | undefined;
  readonly #archivedHead: ArchivedHead | undefined;

  private constructor(archive: ComparedArchive | undefined, archivedHead: ArchivedHead | undefined) {
    this.#archive = archive;
    this.#archivedHead = archivedHead;
    this.state = !archive ? 'none' : archivedHead ? 'compared' : 'away';
  }

  /**
   * Starts a comparison. It must start before the ledger is read, so that the ledger contains everything that the
   * archive contains at that time. Never rejects.
   * @param hours whose windows are compared
   */
  static async start(archive: ComparedArchive | undefined, hours: readonly string[]): Promise<ArchiveComparison> {
    const reading = archive && Promise.all([archive.head(), archive.closedRevisions(hours)]);
    const archivedHead = await reading?.then(([head, revisions]) => ({ head, revisions })).catch(() => undefined);
    return new ArchiveComparison(archive, archivedHead);
  }

  /** Returns a difference if the archive contains records after the end of the ledger. */
  beyond(head: LedgerHead): Difference | undefined {
    const archived = this.#archivedHead?.head.sequence ?? 0;
    if (archived <= head.sequence) return undefined;
    const what = `The ledger has lost the records up to ${archived}, which the archive has.`;
    return { sequence: head.sequence + 1, recordId: null, window: null, what };
  }

  /**
   * Compares a batch of records and returns the first difference.
   * @param batch of the ledger, without gaps
   */
  async compare(batch: readonly StoredRecord[]): Promise<Difference | undefined> {
    const archivedHead = this.#archivedHead?.head;
    if (!archivedHead || this.state !== 'compared') return undefined;
    const both = batch.filter(
      ({ sequence }) => sequence > archivedHead.base.sequence && sequence <= archivedHead.sequence,
    );
    const first = both[0];
    const last = both.at(-1);
    if (!first || !last) return undefined;
    const rows = await this.#archive?.range(first.sequence, last.sequence).catch(() => undefined);
    if (!rows) {
      this.state = 'away';
      return undefined;
    }
    const archived = new Map(rows.map((row) => [row.sequence, row]));
    for (const stored of both) {
      const what = difference(stored, archived.get(stored.sequence));
      if (what) return { sequence: stored.sequence, recordId: idOf(stored), window: null, what };
      this.records += 1;
    }
    return undefined;
  }

  /** Compares the closed revisions of these hours with the archived ones and returns the first difference. */
  compareWindows(hours: readonly string[], views: readonly WindowView[]): Difference | undefined {
    const closed = new Map(views.map((view) => [view.window, view.closed]));
    const other = this.#archivedHead?.revisions.find(({ window, revision, json }) => {
      return hours.includes(window) && JSON.stringify(closed.get(window)?.[revision - 1]) !== json;
    });
    if (!other) return undefined;
    const what = `The archive has another revision ${other.revision} of the window.`;
    return { sequence: null, recordId: null, window: other.window, what };
  }
}

/** The state of the archive when the comparison started. */
interface ArchivedHead {
  readonly head: ArchiveHead;
  readonly revisions: readonly ArchivedRevision[];
}

function difference({ json }: StoredRecord, row: ArchiveRow | undefined): string | undefined {
  if (!row) return 'The archive does not have the record.';
  if (!isSameRecord(row.json, json)) return 'The archive has another record in its place.';
  const record = parseLedgerRecord(json);
  const columns = (['id', 'period', 'units', 'hash'] as const).filter((column) => row[column] !== record[column]);
  return columns.length > 0 ? `The archive has another ${columns.join(' and ')} beside the record.` : undefined;
}

function idOf({ json }: StoredRecord): string {
  return parseLedgerRecord(json).id;
}
