import type { LedgerHead, StoredRecord } from '../ledger.ts';
import type { LedgerRecord } from '../records.ts';
import type { ArchiveHead, ArchiveRow, UsageArchive } from './archive.ts';

/** `away`: PostgreSQL did not answer, so that nothing is said about the rest. */
export type ArchiveState = 'none' | 'compared' | 'away';

/** The first thing that does not fit. */
export interface Difference {
  readonly sequence: number;
  readonly recordId: string | null;
  readonly what: string;
}

/** Compares the records that a check of the ledger comes by with those of the archive. */
export class ArchiveComparison {
  state: ArchiveState;
  /** Records that both have. */
  records = 0;
  readonly #archive: Pick<UsageArchive, 'range'> | undefined;
  readonly #head: ArchiveHead | undefined;

  private constructor(archive: Pick<UsageArchive, 'range'> | undefined, head: ArchiveHead | undefined) {
    this.#archive = archive;
    this.#head = head;
    this.state = !archive ? 'none' : head ? 'compared' : 'away';
  }

  /** To be begun before the ledger's head is read: what the archive has then, the ledger has. Never rejects. */
  static async begin(archive: Pick<UsageArchive, 'head' | 'range'> | undefined): Promise<ArchiveComparison> {
    return new ArchiveComparison(archive, await archive?.head().catch(() => undefined));
  }

  /** What the archive has behind the end of the ledger. */
  beyond(head: LedgerHead): Difference | undefined {
    if (!this.#head || this.#head.sequence <= head.sequence) return undefined;
    const what = `The ledger has lost the records up to ${this.#head.sequence}, which the archive has.`;
    return { sequence: head.sequence + 1, recordId: null, what };
  }

  /** @param batch of the ledger, without gaps */
  async compare(batch: readonly StoredRecord[]): Promise<Difference | undefined> {
    const known = this.#head;
    if (!known || this.state !== 'compared') return undefined;
    const both = batch.filter(({ sequence }) => sequence > known.base.sequence && sequence <= known.sequence);
    const [first, last] = [both[0], both.at(-1)];
    if (!first || !last) return undefined;
    const rows = await this.#archive?.range(first.sequence, last.sequence).catch(() => undefined);
    if (!rows) {
      this.state = 'away';
      return undefined;
    }
    const archived = new Map(rows.map((row) => [row.sequence, row]));
    for (const stored of both) {
      const what = difference(stored, archived.get(stored.sequence));
      if (what) return { sequence: stored.sequence, recordId: idOf(stored), what };
      this.records += 1;
    }
    return undefined;
  }
}

function difference({ json }: StoredRecord, row: ArchiveRow | undefined): string | undefined {
  if (!row) return 'The archive does not have the record.';
  if (row.json !== json) return 'The archive has another record in its place.';
  const record = JSON.parse(json) as LedgerRecord;
  const columns = (['id', 'period', 'units', 'hash'] as const).filter((column) => row[column] !== record[column]);
  return columns.length > 0 ? `The archive has another ${columns.join(' and ')} beside the record.` : undefined;
}

function idOf({ json }: StoredRecord): string {
  return (JSON.parse(json) as LedgerRecord).id;
}
