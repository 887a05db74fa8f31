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
import type { LedgerRecord } from '../records.ts';
import type { LedgerServer } from '../recovery/ledger-server.ts';
import { LossRepair, type Repaired } from '../recovery/loss-repair.ts';
import { ArchiveDisagrees, type ArchiveHead, type ArchiveWriter, type UsageArchive } from './archive.ts';

/** Records of one transaction: some 600 KB, which PostgreSQL takes in well under a tenth of a second. */
const BATCH = 1_000;
/** How the archive stands among the consumers of the ledger: what it does not have is not trimmed. */
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

/** What one step did. */
export interface Step {
  /** Records copied. */
  readonly archived: number;
  /** What was done about records that Redis had lost. */
  readonly repaired: Repaired | undefined;
  /** Whether there is more to do at once. */
  readonly more: boolean;
}

const IDLE: Step = { archived: 0, repaired: undefined, more: false };

/**
 * Copies the ledger into the archive, in its order, checking the chain as it goes, and its windows as they are closed. How
 * far it has come stands in the archive itself: its last record. Any number of archivers may run; one at a time has the lease.
 *
 * Each step begins with a comparison: the archive's last record must be the ledger's of the same sequence, hash by hash the
 * same history. If it is not, and Redis is another one than when they agreed last, it has lost what it had: see `LossRepair`.
 */
export class Archiver {
  readonly #deps: ArchiverDeps;
  readonly #repair: LossRepair;

  constructor(deps: ArchiverDeps) {
    this.#deps = deps;
    this.#repair = new LossRepair(deps);
  }

  /**
   * One transaction's worth of work; can be made again whatever became of it.
   * @throws ArchiveDisagrees for what only an operator can decide; TollgateError OVERLOADED while Redis is away; Error while
   *   PostgreSQL is
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
    // When it is committed: what the archive does not have may not be trimmed.
    await this.#confirm(done.position);
    return done.step;
  }

  async #repairLoss(writer: ArchiveWriter, archived: ArchiveHead, head: LedgerHead): Promise<Step> {
    const repaired = await this.#repair.repair(writer, archived, head);
    return { archived: 0, repaired, more: repaired.more };
  }

  /**
   * A Redis that had everything of the archive's once does not lose it by itself: one of the two was tampered with. Unless it
   * is another one since it was asked.
   */
  async #lookAgain(serverId: string, { sequence }: ArchiveHead): Promise<Step> {
    const same = (await this.#deps.server.identify()).serverId === serverId;
    if (same) throw new ArchiveDisagrees(sequence, 'the archive has it, and the ledger has it no more');
    return { ...IDLE, more: true };
  }

  /** Whether the ledger has what the archive has last, and so everything before it. @throws ArchiveDisagrees over a gap */
  async #continues({ sequence, hash }: ArchiveHead, { sequence: last, trimmed }: LedgerHead): Promise<boolean> {
    if (sequence > last) return false;
    if (sequence === trimmed.sequence) return hash === trimmed.hash;
    if (sequence < trimmed.sequence) {
      throw new ArchiveDisagrees(sequence + 1, 'the ledger has trimmed what the archive does not have');
    }
    const [stored] = await this.#deps.ledger.range(sequence, sequence);
    return stored !== undefined && (JSON.parse(stored.json) as LedgerRecord).hash === hash;
  }

  /** The next records. @returns where the archive ends then */
  async #copy(writer: ArchiveWriter, archived: LedgerPosition, head: LedgerHead): Promise<LedgerPosition> {
    const stored = await this.#deps.ledger.range(archived.sequence + 1, head.sequence, BATCH);
    if (stored.length === 0) return archived;
    const records = chainOf(stored, archived);
    await writer.add(records);
    const { sequence, hash } = records.at(-1)?.record ?? archived;
    return { sequence, hash };
  }

  /** The revisions that were closed since, of hours whose records are archived. */
  async #copyWindows(writer: ArchiveWriter): Promise<void> {
    for (const { window, revisions } of await writer.windows.openHours()) {
      const { closed } = await this.#deps.windows.view(window).catch(nothingIfDamaged);
      for (const revision of closed.slice(revisions)) await writer.windows.add(revision, JSON.stringify(revision));
    }
  }

  async #confirm({ sequence, hash }: LedgerPosition): Promise<void> {
    const confirmed = await this.#deps.consumers.confirm(ARCHIVE_CONSUMER, ARCHIVE_SERVICE, { sequence, hash });
    // A place that the ledger has lost is unknown to it: the one of before stands, and keeps more.
    if (confirmed === 'confirmed' || confirmed === 'unknown') return;
    throw new Error(
      `the archive cannot be a consumer of the ledger (${confirmed}): records could be trimmed too early`,
    );
  }
}

/** One that was tampered with keeps no record from being archived; verify names it. */
function nothingIfDamaged(error: unknown): { closed: [] } {
  if (error instanceof DamagedWindow) return { closed: [] };
  throw error;
}

/** The archive's head; an empty archive begins where the ledger does, which may have been trimmed by then. */
async function started(writer: ArchiveWriter, archived: ArchiveHead, { trimmed }: LedgerHead): Promise<ArchiveHead> {
  const isEmpty = archived.sequence === BEGINNING.sequence;
  if (!isEmpty || trimmed.sequence === BEGINNING.sequence) return archived;
  await writer.startAfter(trimmed);
  return { ...trimmed, base: trimmed };
}

/** @throws ArchiveDisagrees at the first record that does not follow from the one before */
function chainOf(
  stored: readonly StoredRecord[],
  archived: LedgerPosition,
): (StoredRecord & { record: LedgerRecord })[] {
  let previous = archived;
  return stored.map((one) => {
    const record = one.sequence === previous.sequence + 1 ? following(previous.hash, one) : undefined;
    if (!record)
      throw new ArchiveDisagrees(previous.sequence + 1, 'the ledger is broken there: verify names what is wrong');
    previous = record;
    return { ...one, record };
  });
}
