import type { Clock } from '../../lib/clock.ts';
import type { LedgerRecord } from '../../protocol/usage.ts';
import { ArchiveComparison, type ArchiveState, type ComparedArchive, type Difference } from '../archive/comparison.ts';
import { startOf } from '../hours.ts';
import { measuresOf, NOTHING, packed, rowOf, Sums, underPseudonyms } from '../measures.ts';
import { parseLedgerRecord } from '../records.ts';
import { isErased } from '../redaction.ts';
import { confirms, RedactionCheck } from '../redaction-check.ts';
import type { Tallies } from '../reports/tallies.ts';
import { TALLY_SECONDS } from './append-batch.ts';
import { chained, type Ledger, type LedgerHead, type StoredRecord } from './ledger.ts';
import {
  agrees,
  type ClosedRevision,
  DamagedWindow,
  type OpenRevision,
  RevisionSum,
  revisionsOf,
  type Windows,
  type WindowView,
} from './windows.ts';

/** Maximum number of records per call, rounded up to whole hours: about a second of work. */
const RECORDS_PER_CALL = 50_000;

/** The first inconsistency. */
export interface Problem {
  readonly kind: 'chain' | 'window' | 'tally' | 'archive';
  /** Sequence of the first inconsistent record; null if no record can be named. */
  readonly sequence: number | null;
  readonly record_id: string | null;
  /** The hour of the inconsistent window, tally or archived window. */
  readonly window: string | null;
  readonly what: string;
}

export interface Verification {
  readonly ok: boolean;
  readonly problem: Problem | null;
  readonly checked_records: number;
  readonly checked_windows: number;
  /**
   * Whether the records were compared with the archive; `away` when the archive did not answer, or stopped answering.
   */
  readonly archive: ArchiveState;
  /** Number of checked records that the archive also contains. */
  readonly archived_records: number;
  /**
   * Hours whose sums were not all compared: records were added or trimmed during the check, or the tally has expired.
   */
  readonly unsettled: readonly string[];
  /** The hour at which the next call continues; null when all requested hours are checked. */
  readonly next: string | null;
}

type Revision = ClosedRevision | OpenRevision;

interface VerifierDeps {
  /** Undefined in a deployment without an archive. */
  readonly archive?: ComparedArchive | undefined;
  readonly ledger: Ledger;
  readonly windows: Windows;
  readonly tallies: Tallies;
  readonly clock: Clock;
  /** While an erasure is in progress, records and tallies contain the user under the user id or the pseudonym. */
  readonly pseudonymsInUse?: () => Promise<ReadonlyMap<string, string>>;
}

/** Carries the first problem and ends the check. */
class Misfit extends Error {
  readonly problem: Problem;
  constructor(problem: Problem) {
    super(problem.what);
    this.problem = problem;
  }
}

/**
 * Recomputes the chain, the windows and the tallies from the records of the ledger, and compares the records with the
 * archive. It only reads, one batch at a time.
 */
export class Verifier {
  readonly #deps: VerifierDeps;

  constructor(deps: VerifierDeps) {
    this.#deps = deps;
  }

  /**
   * Checks as many hours as contain `recordsPerCall` records together, starting with the first, at least one hour.
   * @param hours in order, without gaps
   * @throws RedisUnavailable
   */
  async verify(hours: readonly string[], recordsPerCall = RECORDS_PER_CALL): Promise<Verification> {
    const comparison = await ArchiveComparison.start(this.#deps.archive, hours);
    let views: WindowView[];
    try {
      views = await this.#deps.windows.read(hours);
    } catch (thrown) {
      return { ...UNCHECKED, archive: comparison.state, problem: problemOf(thrown) };
    }
    // The head is read after the windows, so that no window extends past it.
    const head = await this.#deps.ledger.head();
    const { group, next } = firstHours(hours, views, recordsPerCall);
    const check = new Check({ ...this.#deps, comparison }, group, head);
    const problem = await check.run().then(() => null, problemOf);
    return {
      ok: problem === null,
      problem,
      checked_records: check.records,
      checked_windows: group.views.length,
      archive: comparison.state,
      archived_records: comparison.records,
      unsettled: [...check.unsettled].sort(),
      next: problem ? null : next,
    };
  }
}

const UNCHECKED = { ok: false, checked_records: 0, checked_windows: 0, archived_records: 0, unsettled: [], next: null };

/**
 * Returns the problem that the error carries.
 * @throws any error that does not describe a problem of the ledger
 */
function problemOf(thrown: unknown): Problem {
  if (thrown instanceof Misfit) return thrown.problem;
  if (!(thrown instanceof DamagedWindow)) throw thrown;
  const { window } = thrown;
  return { kind: 'window', sequence: null, record_id: null, window, what: 'A closed revision cannot be read.' };
}

interface Hours {
  readonly hours: readonly string[];
  readonly views: readonly WindowView[];
}

function firstHours(
  hours: readonly string[],
  views: readonly WindowView[],
  limit: number,
): { group: Hours; next: string | null } {
  const counts = new Map(views.map((view) => [view.window, revisionsOf(view).reduce((n, r) => n + r.record_count, 0)]));
  let records = 0;
  let end = 0;
  while (end < hours.length) {
    records += counts.get(hours[end] ?? '') ?? 0;
    if (end > 0 && records > limit) break;
    end += 1;
  }
  const included = new Set(hours.slice(0, end));
  const group = { hours: [...included], views: views.filter(({ window }) => included.has(window)) };
  return { group, next: hours[end] ?? null };
}

interface CheckDeps extends VerifierDeps {
  readonly comparison: ArchiveComparison;
}

/** The state of one call. */
class Check {
  records = 0;
  readonly unsettled = new Set<string>();
  readonly #deps: CheckDeps;
  readonly #group: Hours;
  readonly #head: LedgerHead;
  readonly #redactions: RedactionCheck;
  readonly #views: Map<string, WindowView>;
  readonly #sums = new Map<Revision, RevisionSum>();
  readonly #rows = new Map<string, Sums>();
  /** The first record per hour and tally row: it identifies an inconsistent tally. */
  readonly #firstOfRow = new Map<string, LedgerRecord>();

  constructor(deps: CheckDeps, group: Hours, head: LedgerHead) {
    this.#deps = deps;
    this.#group = group;
    this.#head = head;
    this.#redactions = new RedactionCheck(deps.ledger);
    this.#views = new Map(group.views.map((view) => [view.window, view]));
    for (const view of group.views) {
      this.#rows.set(view.window, new Sums());
      for (const revision of revisionsOf(view)) this.#sums.set(revision, new RevisionSum());
    }
  }

  async run(): Promise<void> {
    throwIfDifferent(this.#deps.comparison.beyond(this.#head));
    for (const { from, to } of this.#ranges()) await this.#walk(from, to);
    for (const view of this.#group.views) this.#compareWindow(view);
    throwIfDifferent(this.#deps.comparison.compareWindows(this.#group.hours, this.#group.views));
    for (const hour of this.#group.hours) await this.#compareTally(hour);
  }

  /**
   * Returns the ranges of sequences to check. One range spans the first revisions of all hours, the records between
   * them and one record on each side, so that a completely missing window is detected. Later revisions have ranges of
   * their own.
   */
  #ranges(): { from: number; to: number }[] {
    const revisions = this.#group.views.flatMap(revisionsOf);
    const firsts = revisions.filter(({ revision }) => revision === 1);
    const ranges = revisions.map((r) => ({ from: r.first_sequence, to: r.last_sequence }));
    if (firsts.length > 0) {
      const from = Math.min(...firsts.map((r) => r.first_sequence)) - 1;
      const to = Math.max(...firsts.map((r) => r.last_sequence)) + 1;
      ranges.push({ from, to });
    }
    const { sequence: head, trimmed } = this.#head;
    return merged(
      ranges.map(({ from, to }) => ({ from: Math.max(from, trimmed.sequence + 1), to: Math.min(to, head) })),
    );
  }

  async #walk(from: number, to: number): Promise<void> {
    let before = await this.#recordBefore(from);
    let previous = before?.hash ?? this.#head.trimmed.hash;
    let next = from;
    for await (const batch of this.#deps.ledger.batches(from, to)) {
      for (const stored of batch) {
        if (stored.sequence !== next) throw chainMisfit(next, null, 'The record is missing.');
        const record = await this.#checked(stored, previous);
        if (before && isErased(before) && !confirms(record, before)) {
          throw chainMisfit(
            before.sequence,
            before.id,
            'The next record contains another content digest for this erased record.',
          );
        }
        before = record;
        previous = record.hash;
        next += 1;
        this.records += 1;
        if (!this.#assigned(record)) await this.#assignUnwindowed(record);
      }
      throwIfDifferent(await this.#deps.comparison.compare(batch));
    }
    if (next <= to) throw chainMisfit(next, null, 'The record is missing.');
    if (to === this.#head.sequence && previous !== this.#head.hash) {
      throw chainMisfit(to, null, 'The last record does not have the hash of the ledger head.');
    }
  }

  /** Returns the record before `from`; undefined at the beginning of the ledger, which may be trimmed. */
  async #recordBefore(from: number): Promise<LedgerRecord | undefined> {
    if (from === this.#head.trimmed.sequence + 1) return undefined;
    const [stored] = await this.#deps.ledger.range(from - 1, from - 1);
    if (!stored) throw chainMisfit(from - 1, null, 'The record is missing.');
    return recordIn(stored);
  }

  async #checked(stored: StoredRecord, previous: string): Promise<LedgerRecord> {
    const record = recordIn(stored);
    if (!isErased(record) || record.sequence !== stored.sequence) return checkedRecord(stored, previous);
    if (await this.#redactions.covers(record, stored.json)) return record;
    throw chainMisfit(stored.sequence, record.id, 'No redaction entry covers this erased record.');
  }

  /** Adds the record to the revision that contains it; false when no known window contains it. */
  #assigned(record: LedgerRecord): boolean {
    const { period, sequence } = record;
    const view = this.#views.get(period);
    const revision = view && covering(view, sequence);
    if (!revision) return false;
    this.#sums.get(revision)?.add(record);
    const rows = this.#rows.get(period);
    if (!rows) return true;
    const row = rowOf(record);
    rows.add(row, measuresOf(record));
    const name = `${period} ${row}`;
    if (!this.#firstOfRow.has(name)) this.#firstOfRow.set(name, record);
    return true;
  }

  /**
   * Finds the revision of a record that no known window contains: its window is of another hour, or has grown since it
   * was read.
   */
  async #assignUnwindowed(record: LedgerRecord): Promise<void> {
    const { period } = record;
    if (this.#views.has(period)) this.unsettled.add(period);
    this.#views.set(period, await this.#deps.windows.view(period));
    if (this.#assigned(record)) return;
    throw new Misfit({ ...named(record), kind: 'window', what: `No revision of the window ${period} has the record.` });
  }

  #compareWindow(view: WindowView): void {
    if (this.#isTrimmed(view)) return void this.unsettled.add(view.window);
    if (this.unsettled.has(view.window)) return;
    for (const [at, revision] of revisionsOf(view).entries()) {
      const found = this.#sums.get(revision) ?? new RevisionSum();
      const named = revision.window === view.window && revision.revision === at + 1;
      const sound = revision.status === 'open' || revision.sha256 === found.sha256();
      if (named && sound && agrees(revision, found)) continue;
      throw new Misfit({
        kind: 'window',
        sequence: found.first?.sequence ?? revision.first_sequence ?? null,
        record_id: found.first?.id ?? null,
        window: view.window,
        what: `Revision ${at + 1} of the window does not agree with its records.`,
      });
    }
  }

  async #compareTally(hour: string): Promise<void> {
    if (this.unsettled.has(hour)) return;
    const stored = await this.#deps.tallies.rows(hour);
    if (stored.size === 0 && this.#mayHaveExpired(hour)) return void this.unsettled.add(hour);
    const now = await this.#deps.windows.view(hour);
    const expected = this.#views.get(hour);
    // Every ingestion batch that changes the tally also changes the window.
    if (lastSequence(now) !== (expected ? lastSequence(expected) : 0)) return void this.unsettled.add(hour);
    const pseudonyms = await this.#deps.pseudonymsInUse?.();
    const found = underPseudonyms(this.#rows.get(hour)?.rows ?? new Map(), pseudonyms);
    const tallied = underPseudonyms(stored, pseudonyms);
    for (const row of new Set([...found.keys(), ...tallied.keys()])) {
      const expected = packed(found.get(row) ?? NOTHING);
      if (packed({ ...(tallied.get(row) ?? NOTHING), refusals: 0 }) === expected) continue;
      const first = this.#firstOfRow.get(`${hour} ${row}`);
      throw new Misfit({
        kind: 'tally',
        sequence: first?.sequence ?? null,
        record_id: first?.id ?? null,
        window: hour,
        what: `The tally of ${row} does not agree with its records.`,
      });
    }
  }

  /**
   * Returns whether the tally may have expired. The ledger can be older than its tallies, because nothing is trimmed
   * without a confirmation.
   */
  #mayHaveExpired(hour: string): boolean {
    return this.#deps.clock.now() >= startOf(hour) + TALLY_SECONDS * 1000;
  }

  #isTrimmed(view: WindowView): boolean {
    return revisionsOf(view).some(({ first_sequence }) => first_sequence <= this.#head.trimmed.sequence);
  }
}

function merged(ranges: readonly { from: number; to: number }[]): { from: number; to: number }[] {
  const result: { from: number; to: number }[] = [];
  for (const { from, to } of ranges.toSorted((one, other) => one.from - other.from)) {
    if (from > to) continue;
    const last = result.at(-1);
    if (last && from <= last.to + 1) last.to = Math.max(last.to, to);
    else result.push({ from, to });
  }
  return result;
}

/**
 * Parses a stored record and checks its hash.
 * @throws Misfit unless the bytes are those of a record that follows from the one before
 */
function checkedRecord(stored: StoredRecord, previous: string): LedgerRecord {
  const record = recordIn(stored);
  const { hash: _, ...rest } = record;
  if (record.sequence !== stored.sequence) {
    throw chainMisfit(stored.sequence, record.id, `The record contains the sequence ${record.sequence}.`);
  }
  if (chained(previous, rest).json !== stored.json) {
    throw chainMisfit(stored.sequence, record.id, 'The hash does not match the record and the previous hash.');
  }
  return record;
}

function recordIn({ sequence, json }: StoredRecord): LedgerRecord {
  try {
    return parseLedgerRecord(json);
  } catch {
    throw chainMisfit(sequence, null, 'The record cannot be read.');
  }
}

function covering(view: WindowView, sequence: number): Revision | undefined {
  return revisionsOf(view).find((r) => r.first_sequence <= sequence && sequence <= r.last_sequence);
}

function lastSequence(view: WindowView): number {
  return revisionsOf(view).at(-1)?.last_sequence ?? 0;
}

function named({ sequence, id, period }: LedgerRecord): Pick<Problem, 'sequence' | 'record_id' | 'window'> {
  return { sequence, record_id: id, window: period };
}

/** @throws Misfit */
function throwIfDifferent(found: Difference | undefined): void {
  if (!found) return;
  const { sequence, recordId, window, what } = found;
  throw new Misfit({ kind: 'archive', sequence, record_id: recordId, window, what });
}

function chainMisfit(sequence: number, recordId: string | null, what: string): Misfit {
  return new Misfit({ kind: 'chain', sequence, record_id: recordId, window: null, what });
}
