import type { LedgerRecord } from '../../protocol/usage.ts';
import type { Redis } from '../../redis/client.ts';
import type { Keys } from '../../redis/keys.ts';
import { ArchiveDisagrees, type ArchivedRecord, type ArchiveHead, type ArchiveWriter } from '../archive/archive.ts';
import { APPEND_BATCH, appendBatch } from '../ledger/append-batch.ts';
import { following, type Ledger, type LedgerHead, type LedgerPosition } from '../ledger/ledger.ts';
import type { Windows } from '../ledger/windows.ts';
import { parseLedgerRecord } from '../records.ts';
import { resubmit } from './resubmitted-records.ts';

/**
 * Maximum loss that is repaired automatically. A greater loss means an emptied or restored Redis, not a failover, and
 * requires an operator.
 */
const MAX_LOSS = 1_000_000;
/** Maximum number of records restored per step. The lease is released between steps. */
const RESTORED_AT_ONCE = 10_000;
/** Records read from the archive per query. */
const READ_BATCH = 1_000;

/** The result of a repair step for records that Redis lost. */
export interface Repaired {
  /** Number of records restored unchanged: same sequence, same hash. */
  readonly restored: number;
  /** Number of records resubmitted, to be appended again under the same id. */
  readonly resubmitted: number;
  /** Ids of records that the ledger contains again, but with other units than before. */
  readonly chargedOtherwise: readonly string[];
  readonly more: boolean;
}

const NOTHING: Repaired = { restored: 0, resubmitted: 0, chargedOtherwise: [], more: false };

interface Deps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly ledger: Ledger;
  readonly windows: Windows;
}

/**
 * Restores records from the archive that the ledger in Redis has lost, in a failover to a lagging replica or with the
 * last second of an append-only file.
 *
 * As long as no other records occupy their sequences, the records are restored unchanged: cursors of consumers, hashes
 * and windows remain valid, and no consumer notices the loss. If the ledger has meanwhile appended other records, its
 * own history is kept, because consumers have read it. The history of the archive becomes superseded, and those of its
 * records that exist nowhere else are resubmitted under the same id, like records that arrive late.
 */
export class LossRepair {
  readonly #deps: Deps;

  constructor(deps: Deps) {
    this.#deps = deps;
  }

  /**
   * Repairs the ledger, one step per call.
   * @throws ArchiveDisagrees when the repair requires the decision of an operator
   */
  async repair(writer: ArchiveWriter, archived: ArchiveHead, head: LedgerHead): Promise<Repaired> {
    const common = await this.#lastCommon(writer, archived, head);
    if (archived.sequence - common > MAX_LOSS) {
      throw new ArchiveDisagrees(common + 1, `the ledger has lost ${archived.sequence - common} records`);
    }
    if (common === head.sequence) return this.#restore(writer, archived, head);
    await writer.supersede(common);
    return { ...NOTHING, more: true };
  }

  /**
   * Resubmits superseded records that the ledger lacks. Call it only when the archive contains the whole ledger: then
   * an id that the archive lacks is missing in both.
   */
  async resubmitSuperseded(writer: ArchiveWriter, head: LedgerHead): Promise<Repaired | undefined> {
    await writer.markRestored();
    const chargedOtherwise = await writer.chargedOtherwise();
    const lost = await writer.claimLost(APPEND_BATCH);
    if (lost.length === 0 && chargedOtherwise.length === 0) return undefined;
    if (lost.length > 0) {
      const [last] = await this.#deps.ledger.range(head.sequence, head.sequence);
      // Everything up to the last record of the ledger was searched, with the id index of the archive.
      await resubmit(this.#deps, lost, { source: 'archive', since: last?.appendedAt ?? 0 });
    }
    return { restored: 0, resubmitted: lost.length, chargedOtherwise, more: lost.length === APPEND_BATCH };
  }

  /** Closes windows again if Redis lost their closing but not their records, before more records are added to them. */
  async closeAgain(writer: ArchiveWriter, { sequence }: LedgerHead): Promise<void> {
    for (const revision of await writer.windows.recent(sequence)) await this.#deps.windows.closeAgain(revision);
  }

  /**
   * Returns the last sequence up to which both have the same history. Equal hashes imply that everything before them is
   * equal too.
   * @throws ArchiveDisagrees when they share no record that both still contain
   */
  async #lastCommon(writer: ArchiveWriter, archived: ArchiveHead, head: LedgerHead): Promise<number> {
    const same = async (sequence: number) => {
      const one = await this.#ledgerHash(sequence, head);
      const other = await archivedHash(writer, sequence, archived);
      return one !== undefined && one === other;
    };
    let low = Math.max(archived.base.sequence, head.trimmed.sequence);
    let high = Math.min(archived.sequence, head.sequence);
    if (low > high || !(await same(low))) {
      throw new ArchiveDisagrees(low, 'the ledger and the archive share no history');
    }
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (await same(middle)) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  async #ledgerHash(sequence: number, { trimmed }: LedgerHead): Promise<string | undefined> {
    if (sequence === trimmed.sequence) return trimmed.hash;
    const [stored] = await this.#deps.ledger.range(sequence, sequence);
    return stored && parseLedgerRecord(stored.json).hash;
  }

  /** Restores records unchanged after the last record of the ledger, until it meets other records. */
  async #restore(writer: ArchiveWriter, archived: ArchiveHead, head: LedgerHead): Promise<Repaired> {
    const to = Math.min(archived.sequence, head.sequence + RESTORED_AT_ONCE);
    let position: LedgerPosition = head;
    while (position.sequence < to) {
      const rows = await writer.range(position.sequence + 1, Math.min(to, position.sequence + READ_BATCH));
      const records = chainOf(rows, position);
      const closed = await writer.windows.endingIn(position.sequence + 1, position.sequence + records.length);
      for (const batch of batchesOf(records, new Set(closed.map(({ last_sequence }) => last_sequence)))) {
        const [first] = batch;
        const appended = await appendBatch(this.#deps, {
          head: position.hash,
          hour: first?.record.period ?? '',
          records: batch,
          refusals: [],
          moves: [],
          // A copy of these records may still be in an outbox, or their call may be repeated because it was lost too.
          // Ingestion skips such copies.
          resubmitted: batch.map(({ record }) => record.id),
        });
        // Ingestion has resumed meanwhile. The next step finds a ledger with another history.
        if (!appended) return { ...NOTHING, restored: position.sequence - head.sequence, more: true };
        position = batch.at(-1)?.record ?? position;
        // Records that arrived after the window closed belong to another revision, so the window is closed at the same
        // record as before.
        const ended = closed.find(({ last_sequence }) => last_sequence === position.sequence);
        if (ended) await this.#deps.windows.closeAgain(ended);
      }
    }
    return { ...NOTHING, restored: position.sequence - head.sequence, more: true };
  }
}

async function archivedHash(
  writer: ArchiveWriter,
  sequence: number,
  { base }: ArchiveHead,
): Promise<string | undefined> {
  return sequence === base.sequence ? base.hash : writer.hashAt(sequence);
}

/**
 * Returns the archived records as a verified chain.
 * @throws ArchiveDisagrees at the first record that does not follow: manipulated records are not restored
 */
function chainOf(rows: readonly ArchivedRecord[], position: LedgerPosition): { record: LedgerRecord; json: string }[] {
  let previous = position;
  const records = rows.map((row) => {
    const record = row.sequence === previous.sequence + 1 ? following(previous.hash, row) : undefined;
    if (!record) throw new ArchiveDisagrees(previous.sequence + 1, 'the archive is broken at this record');
    previous = record;
    return { record, json: row.json };
  });
  if (records.length === 0) throw new ArchiveDisagrees(position.sequence + 1, 'the archive is broken at this record');
  return records;
}

/** Splits records into batches of one hour. A batch also ends at each of the sequences `ends`. */
function* batchesOf<T extends { readonly record: LedgerRecord }>(
  records: readonly T[],
  ends: ReadonlySet<number>,
): Generator<T[]> {
  let batch: T[] = [];
  for (const one of records) {
    const last = batch.at(-1)?.record;
    if (last && (batch.length === APPEND_BATCH || last.period !== one.record.period || ends.has(last.sequence))) {
      yield batch;
      batch = [];
    }
    batch.push(one);
  }
  if (batch.length > 0) yield batch;
}
