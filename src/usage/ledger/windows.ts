import { createHash } from 'node:crypto';
import type { LedgerRecord } from '../../protocol/usage.ts';
import type { Redis } from '../../redis/client.ts';
import { mapRedisErrors, redisError } from '../../redis/errors.ts';
import type { Keys } from '../../redis/keys.ts';
import { done } from '../../redis/replies.ts';
import { LuaScript } from '../../redis/scripts.ts';
import { type Measures, measuresOf, NOTHING, packed, sum, unpacked } from '../measures.ts';
import { parseLedgerRecord } from '../records.ts';
import type { Ledger } from './ledger.ts';

const closeWindow = LuaScript.load('closeWindow-2', done);

/** Maximum number of windows closed per call. The next ingestion pass, half a second later, closes the rest. */
const CLOSE_AT_ONCE = 24;
/** Interval between two checks of a window that does not agree with its records. An operator may have repaired it. */
const CHECK_AGAIN_MS = 10 * 60_000;
/** Windows read per round trip. */
const READ_AT_ONCE = 100;

/** Refusals are counted only in the tallies, because they belong to no record. */
export type WindowTotals = Omit<Measures, 'refusals'>;

interface Revision {
  /** The hour, e.g. `2026-11-20T10`, UTC. */
  readonly window: string;
  /** 1 for the first revision; 2, 3, … for records that arrived after a revision was closed. */
  readonly revision: number;
  readonly record_count: number;
  readonly totals: WindowTotals;
  readonly first_sequence: number;
  readonly last_sequence: number;
}

/** A closed revision never changes: its bytes are always the same. */
export interface ClosedRevision extends Revision {
  readonly status: 'closed';
  /** SHA-256 over the ids of its records in the order of the ledger, each followed by a line break. */
  readonly sha256: string;
  /** ISO 8601, UTC. */
  readonly closed_at: string;
}

export interface OpenRevision extends Revision {
  readonly status: 'open';
}

/** A stored closed revision is unreadable, so it is not what was written. */
export class DamagedWindow extends Error {
  readonly window: string;

  constructor(window: string) {
    super(`a closed revision of the window ${window} cannot be read`);
    this.name = 'DamagedWindow';
    this.window = window;
  }
}

/** The stored state of a window. */
export interface WindowView {
  readonly window: string;
  readonly closed: readonly ClosedRevision[];
  readonly open: OpenRevision | undefined;
}

/** The sum of the records of one revision. */
export class RevisionSum {
  readonly #ids = createHash('sha256');
  #measures: Measures = NOTHING;
  count = 0;
  first: LedgerRecord | undefined;
  last: LedgerRecord | undefined;

  add(record: LedgerRecord): void {
    this.#ids.update(`${record.id}\n`);
    this.#measures = sum(this.#measures, measuresOf(record));
    this.count += 1;
    this.first ??= record;
    this.last = record;
  }

  get measures(): Measures {
    return this.#measures;
  }

  /** Returns the digest of the ids. No record can be added afterwards. */
  sha256(): string {
    return this.#ids.digest('hex');
  }
}

export interface WindowsDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly ledger: Ledger;
}

/**
 * The hourly windows of the ledger. Each record is in exactly one revision of the window of its hour: the one that was
 * open when the record was ingested.
 *
 * A revision is `open` from its first record. It becomes `closed`, permanently, a quarter of an hour after the end of
 * its hour, once every outbox has been ingested past that time.
 */
export class Windows {
  readonly #deps: WindowsDeps;
  /** Windows that could not be closed, with the time of the last check. Bounded by the number of due windows. */
  readonly #disagreeing = new Map<string, number>();

  constructor(deps: WindowsDeps) {
    this.#deps = deps;
  }

  /**
   * Returns the windows of these hours, in order. An hour without records has none.
   * @throws DamagedWindow
   */
  async read(hours: readonly string[]): Promise<WindowView[]> {
    const views: WindowView[] = [];
    for (let at = 0; at < hours.length; at += READ_AT_ONCE) {
      const some = hours.slice(at, at + READ_AT_ONCE);
      const pipeline = this.#deps.redis.pipeline();
      for (const hour of some) pipeline.hgetall(this.#deps.keys.window(hour));
      const replies = (await mapRedisErrors(pipeline.exec())) ?? [];
      for (const [index, [error, stored]] of replies.entries()) {
        if (error) throw redisError(error);
        const view = viewOf(some[index] ?? '', stored as Record<string, string>);
        if (view.open || view.closed.length > 0) views.push(view);
      }
    }
    return views;
  }

  async view(hour: string): Promise<WindowView> {
    return viewOf(hour, await mapRedisErrors(this.#deps.redis.hgetall(this.#deps.keys.window(hour))));
  }

  /**
   * Yields the records of a revision in order, in batches. Trimmed records are missing: the caller compares the count.
   */
  async *records({ window, first_sequence, last_sequence }: Revision): AsyncGenerator<LedgerRecord[]> {
    for await (const batch of this.#deps.ledger.batches(first_sequence, last_sequence)) {
      const records = batch.map(({ json }) => parseLedgerRecord(json));
      yield records.filter(({ period }) => period === window);
    }
  }

  /**
   * Closes every revision that is due. Concurrent calls are safe: each revision is closed by one of them.
   * @param completeUntil Redis time before which every written record is in the ledger
   * @returns the number of closed revisions, and the hours whose records do not match the totals counted at ingestion;
   *   these revisions stay open, because the billable amount is unclear
   */
  async closeDue(completeUntil: number): Promise<{ closed: number; disagreeing: string[] }> {
    const limit = CLOSE_AT_ONCE + this.#disagreeing.size;
    const due = await mapRedisErrors(
      this.#deps.redis.zrangebyscore(this.#deps.keys.openWindows, '-inf', String(completeUntil), 'LIMIT', 0, limit),
    );
    let closed = 0;
    for (const hour of due) {
      // The records of a disagreeing window are read again only at intervals, and it does not prevent other windows
      // from closing.
      const checkedAt = this.#disagreeing.get(hour);
      if (checkedAt !== undefined && completeUntil - checkedAt < CHECK_AGAIN_MS) continue;
      const outcome = await this.#close(hour, completeUntil);
      if (outcome === 'closed') closed += 1;
      if (outcome === 'disagreeing') this.#disagreeing.set(hour, completeUntil);
      else this.#disagreeing.delete(hour);
    }
    for (const hour of this.#disagreeing.keys()) if (!due.includes(hour)) this.#disagreeing.delete(hour);
    return { closed, disagreeing: [...this.#disagreeing.keys()] };
  }

  /**
   * Closes a revision again, with the same bytes, after Redis lost its closing.
   * @returns false when it is closed, or its records are not those of the document
   */
  async closeAgain(revision: ClosedRevision): Promise<boolean> {
    const { open, closed } = await this.view(revision.window);
    if (!open || closed.length + 1 !== revision.revision) return false;
    const found = await this.#sumOf(open);
    if (!agrees(open, found) || !agrees(revision, found) || found.sha256() !== revision.sha256) return false;
    return this.#write(revision, open, closed.length);
  }

  /** Returns the lowest sequence that an open revision needs. */
  async lowestOpen(): Promise<number | undefined> {
    const hours = await mapRedisErrors(this.#deps.redis.zrange(this.#deps.keys.openWindows, '0', '-1'));
    const firsts = await Promise.all(
      hours.map((hour) => mapRedisErrors(this.#deps.redis.hget(this.#deps.keys.window(hour), 'first'))),
    );
    const sequences = firsts.flatMap((first) => (first === null ? [] : [Number(first)]));
    return sequences.length > 0 ? Math.min(...sequences) : undefined;
  }

  async #close(hour: string, closedAt: number): Promise<'closed' | 'changed' | 'disagreeing'> {
    const view = await this.view(hour).catch(undefinedIfDamaged);
    if (!view) return 'disagreeing';
    const { open, closed } = view;
    if (!open) return 'changed';
    const found = await this.#sumOf(open);
    if (!agrees(open, found)) return 'disagreeing';
    const revision: ClosedRevision = {
      ...open,
      status: 'closed',
      sha256: found.sha256(),
      closed_at: new Date(closedAt).toISOString(),
    };
    return (await this.#write(revision, open, closed.length)) ? 'closed' : 'changed';
  }

  async #sumOf(open: OpenRevision): Promise<RevisionSum> {
    const found = new RevisionSum();
    for await (const records of this.records(open)) for (const record of records) found.add(record);
    return found;
  }

  async #write(revision: ClosedRevision, open: OpenRevision, closed: number): Promise<boolean> {
    const hour = open.window;
    const done = await closeWindow.run(
      this.#deps.redis,
      [this.#deps.keys.window(hour), this.#deps.keys.openWindows],
      [hour, closed, open.last_sequence, packed({ ...open.totals, refusals: 0 }), JSON.stringify(revision)],
    );
    return done === 1;
  }
}

function undefinedIfDamaged(error: unknown): undefined {
  if (!(error instanceof DamagedWindow)) throw error;
}

/** Returns all revisions of a window, in order. */
export function revisionsOf({ closed, open }: WindowView): (ClosedRevision | OpenRevision)[] {
  return open ? [...closed, open] : [...closed];
}

/** Returns whether the stored sums of a revision equal those of its records. */
export function agrees({ record_count, totals, first_sequence, last_sequence }: Revision, found: RevisionSum): boolean {
  return (
    record_count === found.count &&
    first_sequence === found.first?.sequence &&
    last_sequence === found.last?.sequence &&
    packed({ ...totals, refusals: 0 }) === packed(found.measures)
  );
}

function viewOf(window: string, stored: Record<string, string>): WindowView {
  const count = Number(stored.closed ?? 0);
  const closed = Array.from({ length: count }, (_, at) => closedRevision(window, stored[`r${at + 1}`]));
  return { window, closed, open: openRevision(window, count + 1, stored) };
}

function closedRevision(window: string, json: string | undefined): ClosedRevision {
  try {
    const revision = JSON.parse(json ?? '') as ClosedRevision;
    const { first_sequence, last_sequence } = revision;
    if (Number.isSafeInteger(first_sequence) && Number.isSafeInteger(last_sequence) && revision.totals) return revision;
  } catch {
    // Reported below.
  }
  throw new DamagedWindow(window);
}

function openRevision(window: string, revision: number, stored: Record<string, string>): OpenRevision | undefined {
  const { first, last, count, totals } = stored;
  if (first === undefined || last === undefined || count === undefined || totals === undefined) return undefined;
  const { refusals: _, ...measures } = unpacked(totals);
  return {
    window,
    revision,
    status: 'open',
    record_count: Number(count),
    totals: measures,
    first_sequence: Number(first),
    last_sequence: Number(last),
  };
}
