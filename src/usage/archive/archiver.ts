import type { LedgerRecord } from '../../protocol/usage.ts';
import type { Redis } from '../../redis/client.ts';
import type { Keys } from '../../redis/keys.ts';
import type { Consumers } from '../ledger/consumers.ts';
import {
  BEGINNING,
  following,
  type Ledger,
  type LedgerHead,
  type LedgerPosition,
  type StoredRecord,
} from '../ledger/ledger.ts';
import { DamagedWindow, type Windows } from '../ledger/windows.ts';
import { parseLedgerRecord } from '../records.ts';
import type { LedgerServer } from '../recovery/ledger-server.ts';
import { LossRepair, type Repaired } from '../recovery/loss-repair.ts';
import { ArchiveDisagrees, type ArchiveHead, type ArchiveWriter, type UsageArchive } from './archive.ts';

/** Records per transaction: about 600 KB, which PostgreSQL writes in well under 0.1 s. */
const BATCH = 1_000;
/** Name of the archive as a consumer of the ledger, so that unarchived records are not trimmed. */
export const ARCHIVE_CONSUMER = 'usage-archive';
const ARCHIVE_SERVICE = 'tollgate';

export interface ArchiverDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly ledger: Ledger;
  readonly server: LedgerServer;
  readonly consumers: Consumers;
  readonly windows: Windows;
  readonly archive: UsageArchive;
}

/** The result of one step. */
export interface Step {
  /** Number of records copied. */
  readonly archived: number;
  /** The repair of records that Redis had lost. */
  readonly repaired: Repaired | undefined;
  /** Whether more work is pending. */
  readonly more: boolean;
}

const IDLE: Step = { archived: 0, repaired: undefined, more: false };

/**
 * Copies the ledger into the archive in order, verifying the chain, and copies windows once they are closed. The last
 * archived record is the position. Several archivers may run; one at a time holds the lease.
 *
 * Each step begins with a comparison: the ledger must contain the last archived record under the same sequence and
 * hash, so both have the same history. If it does not, and the Redis server has changed since they last agreed, Redis
 * has lost records: see `LossRepair`.
 */
export class Archiver {
  readonly #deps: ArchiverDeps;
  readonly #repair: LossRepair;

  constructor(deps: ArchiverDeps) {
    this.#deps = deps;
    this.#repair = new LossRepair(deps);
  }

  /**
   * Runs one step in one transaction. A step can be repeated, whatever its outcome.
   * @throws ArchiveDisagrees if the repair requires an operator; RedisUnavailable; Error while PostgreSQL is
   *   unavailable
   */
  async step(): Promise<Step> {
    const { archive, ledger, server } = this.#deps;
    const done = await archive.alone(async (writer) => {
      const { serverId, agreed } = await server.identify();
      const head = await ledger.head();
      const archived = await started(writer, await writer.head(), head);
      await this.#confirm(archived);
      if (!(await this.#continues(archived, head))) {
        if (agreed) return { position: archived, step: await this.#lookAgain(serverId, archived) };
        return { position: archived, step: await this.#repairLoss(writer, archived, head) };
      }
      if (!agreed) {
        await this.#repair.closeAgain(writer, head);
        await server.agree(serverId);
      }
      const position = await this.#copy(writer, archived, head);
      const atHead = position.sequence === head.sequence;
      if (atHead) await this.#copyWindows(writer);
      const repaired = atHead ? await this.#repair.resubmitSuperseded(writer, head) : undefined;
      const copied = position.sequence - archived.sequence;
      return { position, step: { archived: copied, repaired, more: !atHead || (repaired?.more ?? false) } };
    });
    if (!done) return IDLE;
    // The position is confirmed after the commit, because records that are not in the archive must not be trimmed.
    await this.#confirm(done.position);
    return done.step;
  }

  async #repairLoss(writer: ArchiveWriter, archived: ArchiveHead, head: LedgerHead): Promise<Step> {
    const repaired = await this.#repair.repair(writer, archived, head);
    return { archived: 0, repaired, more: repaired.more };
  }

  /**
   * Handles a ledger that lacks archived records although it agreed with the archive before. Unless the Redis server
   * has changed since the step began, one of the two was manipulated.
   */
  async #lookAgain(serverId: string, { sequence }: ArchiveHead): Promise<Step> {
    const same = (await this.#deps.server.identify()).serverId === serverId;
    if (same) throw new ArchiveDisagrees(sequence, 'the archive contains it, but the ledger no longer does');
    return { ...IDLE, more: true };
  }

  /**
   * Returns whether the ledger contains the last archived record, and so everything before it.
   * @throws ArchiveDisagrees when records between the archive and the ledger are missing
   */
  async #continues({ sequence, hash }: ArchiveHead, { sequence: last, trimmed }: LedgerHead): Promise<boolean> {
    if (sequence > last) return false;
    if (sequence === trimmed.sequence) return hash === trimmed.hash;
    if (sequence < trimmed.sequence) {
      throw new ArchiveDisagrees(sequence + 1, 'the ledger has trimmed records that are not archived');
    }
    const [stored] = await this.#deps.ledger.range(sequence, sequence);
    return stored !== undefined && parseLedgerRecord(stored.json).hash === hash;
  }

  /**
   * Copies the next records.
   * @returns the new end of the archive
   */
  async #copy(writer: ArchiveWriter, archived: LedgerPosition, head: LedgerHead): Promise<LedgerPosition> {
    const stored = await this.#deps.ledger.range(archived.sequence + 1, head.sequence, BATCH);
    if (stored.length === 0) return archived;
    const records = chainOf(stored, archived);
    await writer.add(records);
    const { sequence, hash } = records.at(-1)?.record ?? archived;
    return { sequence, hash };
  }

  /** Copies newly closed revisions of hours that have archived records. */
  async #copyWindows(writer: ArchiveWriter): Promise<void> {
    for (const { window, revisions } of await writer.windows.openHours()) {
      const { closed } = await this.#deps.windows.view(window).catch(nothingIfDamaged);
      for (const revision of closed.slice(revisions)) await writer.windows.add(revision, JSON.stringify(revision));
    }
  }

  async #confirm({ sequence, hash }: LedgerPosition): Promise<void> {
    const confirmed = await this.#deps.consumers.confirm(ARCHIVE_CONSUMER, ARCHIVE_SERVICE, { sequence, hash });
    // A position that the ledger has lost is unknown to it. The previous confirmation remains, which keeps more
    // records.
    if (confirmed === 'confirmed' || confirmed === 'unknown') return;
    throw new Error(
      `the archive cannot be a consumer of the ledger (${confirmed}): records could be trimmed too early`,
    );
  }
}

/**
 * Returns no revisions for a damaged window: it must not prevent records from being archived. Verification reports it.
 */
function nothingIfDamaged(error: unknown): { closed: [] } {
  if (error instanceof DamagedWindow) return { closed: [] };
  throw error;
}

/**
 * Returns the head of the archive. An empty archive begins at the beginning of the ledger, which may already be
 * trimmed.
 */
async function started(writer: ArchiveWriter, archived: ArchiveHead, { trimmed }: LedgerHead): Promise<ArchiveHead> {
  const isEmpty = archived.sequence === BEGINNING.sequence;
  if (!isEmpty || trimmed.sequence === BEGINNING.sequence) return archived;
  await writer.startAfter(trimmed);
  return { ...trimmed, base: trimmed };
}

/**
 * Parses the stored records and verifies their chain.
 * @throws ArchiveDisagrees at the first record that does not follow from the one before
 */
function chainOf(
  stored: readonly StoredRecord[],
  archived: LedgerPosition,
): (StoredRecord & { record: LedgerRecord })[] {
  let previous = archived;
  return stored.map((one) => {
    const record = one.sequence === previous.sequence + 1 ? following(previous.hash, one) : undefined;
    if (!record)
      throw new ArchiveDisagrees(previous.sequence + 1, 'the ledger is broken at this record, verify it for details');
    previous = record;
    return { ...one, record };
  });
}
