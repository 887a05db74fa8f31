import type { Redis } from '../../redis/client.ts';
import type { Keys } from '../../redis/keys.ts';
import { ArchiveDisagrees, type ArchivedRecord, type ArchiveHead, type ArchiveWriter } from '../archive/archive.ts';
import { APPEND_BATCH, appendBatch } from '../ledger/append-batch.ts';
import { following, type Ledger, type LedgerHead, type LedgerPosition } from '../ledger/ledger.ts';
import type { Windows } from '../ledger/windows.ts';
import type { LedgerRecord } from '../records.ts';
import { resubmit } from './resubmitted-records.ts';

/** A greater loss than this is no fail-over: a Redis that was emptied, or restored from an old copy. An operator decides. */
const MAX_LOSS = 1_000_000;
/** Records put back in one step, between which the lease is given up. */
const RESTORED_AT_ONCE = 10_000;
/** Records read from the archive at once. */
const READ_BATCH = 1_000;

/** What was done about records that Redis had lost. */
export interface Repaired {
  /** Put back as they were: same sequence, same hash. */
  readonly restored: number;
  /** Given to the ledger, to be appended again under the same id. */
  readonly resubmitted: number;
  /** Ids of records that the ledger has again, with other units than they had. */
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
 * Brings back what the ledger in Redis had and has lost, by a fail-over to a replica that lagged or an append-only file
 * without its last second, and the archive still has.
 *
 * While nothing else has taken their places, the records are put back as they were, so that nobody can tell: consumers'
 * cursors, hashes and windows are those of before. When the ledger has grown otherwise meanwhile, its own history stands,
 * since consumers read it: the archive's is superseded, and what of it is nowhere else is appended again, under the same
 * id, as what arrives late.
 */
export class LossRepair {
  readonly #deps: Deps;

  constructor(deps: Deps) {
    this.#deps = deps;
  }

  /** @throws ArchiveDisagrees when that is more than may be decided without an operator */
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
   * Has superseded records appended again that the ledger does not have. To be called when the archive has everything of
   * the ledger: then an id that it does not have is in neither.
   */
  async resubmitSuperseded(writer: ArchiveWriter, head: LedgerHead): Promise<Repaired | undefined> {
    await writer.markRestored();
    const chargedOtherwise = await writer.chargedOtherwise();
    const lost = await writer.claimLost(APPEND_BATCH);
    if (lost.length === 0 && chargedOtherwise.length === 0) return undefined;
    if (lost.length > 0) {
      const [last] = await this.#deps.ledger.range(head.sequence, head.sequence);
      // Up to its last record the ledger was looked through, by the archive's index of ids.
      await resubmit(this.#deps, lost, { source: 'archive', since: last?.appendedAt ?? 0 });
    }
    return { restored: 0, resubmitted: lost.length, chargedOtherwise, more: lost.length === APPEND_BATCH };
  }

  /** Closes windows again whose closing was lost, and not their records, before anything more comes into them. */
  async closeAgain(writer: ArchiveWriter, { sequence }: LedgerHead): Promise<void> {
    for (const revision of await writer.windows.recent(sequence)) await this.#deps.windows.closeAgain(revision);
  }

  /**
   * The last sequence up to which both have the same history: where the hashes agree, everything before agrees too.
   * @throws ArchiveDisagrees when they have nothing in common that is still in both
   */
  async #lastCommon(writer: ArchiveWriter, archived: ArchiveHead, head: LedgerHead): Promise<number> {
    const same = async (sequence: number) => {
      const [one, other] = [await this.#ledgerHash(sequence, head), await archivedHash(writer, sequence, archived)];
      return one !== undefined && one === other;
    };
    let low = Math.max(archived.base.sequence, head.trimmed.sequence);
    let high = Math.min(archived.sequence, head.sequence);
    if (low > high || !(await same(low))) {
      throw new ArchiveDisagrees(low, 'the ledger and the archive have nothing in common');
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
    return stored && (JSON.parse(stored.json) as LedgerRecord).hash;
  }

  /** Puts records behind the ledger's last one as they were, until something else is there. */
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
          // What of them still waits in an outbox, or is executed again since its call was lost too, is this.
          resubmitted: batch.map(({ record }) => record.id),
        });
        // The folding did not wait: the next step finds a ledger that has grown otherwise.
        if (!appended) return { ...NOTHING, restored: position.sequence - head.sequence, more: true };
        position = batch.at(-1)?.record ?? position;
        // What came late to a window that was closed is in another revision of it.
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

/** @throws ArchiveDisagrees at the first that does not follow: what was tampered with is not put back */
function chainOf(rows: readonly ArchivedRecord[], position: LedgerPosition): { record: LedgerRecord; json: string }[] {
  let previous = position;
  const records = rows.map((row) => {
    const record = row.sequence === previous.sequence + 1 ? following(previous.hash, row) : undefined;
    if (!record) throw new ArchiveDisagrees(previous.sequence + 1, 'the archive is broken there');
    previous = record;
    return { record, json: row.json };
  });
  if (records.length === 0) throw new ArchiveDisagrees(position.sequence + 1, 'the archive is broken there');
  return records;
}

/** Of one hour each, and up to one of the sequences `ends`. */
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
