import { createHash } from 'node:crypto';
import type { Redis } from '../../redis/client.ts';
import { mapRedisErrors, redisError } from '../../redis/errors.ts';
import type { Keys } from '../../redis/keys.ts';
import { LuaScript } from '../../redis/scripts.ts';
import { type Measures, measuresOf, NOTHING, packed, sum, unpacked } from '../measures.ts';
import type { LedgerRecord } from '../records.ts';
import type { Ledger } from './ledger.ts';

const closeWindow = LuaScript.load('closeWindow-2');

/** Windows closed in one go: what is left is closed by the next round, half a second later. */
const CLOSE_AT_ONCE = 24;
/** A window that disagrees with its records is looked at again after this long: somebody may have repaired it. */
const CHECK_AGAIN_MS = 10 * 60_000;
/** Windows asked for in one round trip. */
const READ_AT_ONCE = 100;

/** Refusals are in the tallies only: they belong to no record. */
export type WindowTotals = Omit<Measures, 'refusals'>;

interface Revision {
  /** The hour, e.g. `2026-11-20T10`, UTC. */
  readonly window: string;
  /** 1, and for what arrived after that one was closed 2, 3, … */
  readonly revision: number;
  readonly record_count: number;
  readonly totals: WindowTotals;
  readonly first_sequence: number;
  readonly last_sequence: number;
}

/** Never changes again: the same bytes for ever. */
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

/** What is stored of a window is not what was written there. */
export class DamagedWindow extends Error {
  readonly window: string;

  constructor(window: string) {
    super(`a closed revision of the window ${window} cannot be read`);
    this.name = 'DamagedWindow';
    this.window = window;
  }
}

/** A window as it is stored. */
export interface WindowView {
  readonly window: string;
  readonly closed: readonly ClosedRevision[];
  readonly open: OpenRevision | undefined;
}

/** What the records of one revision add up to. */
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

  /** Ends the sum: nothing can be added afterwards. */
  sha256(): string {
    return this.#ids.digest('hex');
  }
}

/**
 * The hourly windows of the ledger. Each record is in exactly one revision of the window of its hour: the one that was
 * open when it was folded.
 *
 * A revision is `open` from its first record until the quarter of an hour after its hour is over and every outbox has
 * been folded beyond that time; then `closed`, for good.
 */
export class Windows {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #ledger: Ledger;
  /** Windows that could not be closed, with the time at which they were looked at last; as many as are due at most. */
  readonly #disagreeing = new Map<string, number>();

  constructor({ redis, keys, ledger }: { redis: Redis; keys: Keys; ledger: Ledger }) {
    this.#redis = redis;
    this.#keys = keys;
    this.#ledger = ledger;
  }

  /** The windows of these hours, in their order; an hour without a record has none. @throws DamagedWindow */
  async read(hours: readonly string[]): Promise<WindowView[]> {
    const views: WindowView[] = [];
    for (let at = 0; at < hours.length; at += READ_AT_ONCE) {
      const some = hours.slice(at, at + READ_AT_ONCE);
      const pipeline = this.#redis.pipeline();
      for (const hour of some) pipeline.hgetall(this.#keys.window(hour));
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
    return viewOf(hour, await mapRedisErrors(this.#redis.hgetall(this.#keys.window(hour))));
  }

  /**
   * The records of a revision, a batch at a time, in order. What was trimmed is missing: the caller compares the count.
   */
  async *records({ window, first_sequence, last_sequence }: Revision): AsyncGenerator<LedgerRecord[]> {
    for await (const batch of this.#ledger.batches(first_sequence, last_sequence)) {
      const records = batch.map(({ json }) => JSON.parse(json) as LedgerRecord);
      yield records.filter(({ period }) => period === window);
    }
  }

  /**
   * Closes every revision that is due. Several may do so at once: each is closed by one of them.
   * @param completeUntil Redis's time before which everything that was written is in the ledger
   * @returns how many were closed, and the hours whose records do not add up to what was counted when they were folded:
   * these stay open, since nobody can say what they should be billed at
   */
  async closeDue(completeUntil: number): Promise<{ closed: number; disagreeing: string[] }> {
    const limit = CLOSE_AT_ONCE + this.#disagreeing.size;
    const due = await mapRedisErrors(
      this.#redis.zrangebyscore(this.#keys.openWindows, '-inf', String(completeUntil), 'LIMIT', 0, limit),
    );
    let closed = 0;
    for (const hour of due) {
      // Its records are read again now and then only, and it keeps no other window from being closed.
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
   * Closes a revision as it was closed before that was lost, with the same bytes.
   * @returns false when it is closed, or its records are not those of the document
   */
  async closeAgain(revision: ClosedRevision): Promise<boolean> {
    const { open, closed } = await this.view(revision.window);
    if (!open || closed.length + 1 !== revision.revision) return false;
    const found = await this.#sumOf(open);
    if (!agrees(open, found) || !agrees(revision, found) || found.sha256() !== revision.sha256) return false;
    return this.#write(revision, open, closed.length);
  }

  /** The lowest sequence that a revision which is still open needs. */
  async lowestOpen(): Promise<number | undefined> {
    const hours = await mapRedisErrors(this.#redis.zrange(this.#keys.openWindows, '0', '-1'));
    const firsts = await Promise.all(
      hours.map((hour) => mapRedisErrors(this.#redis.hget(this.#keys.window(hour), 'first'))),
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
      this.#redis,
      [this.#keys.window(hour), this.#keys.openWindows],
      [hour, closed, open.last_sequence, packed({ ...open.totals, refusals: 0 }), JSON.stringify(revision)],
    );
    return done === 1;
  }
}

function undefinedIfDamaged(error: unknown): undefined {
  if (!(error instanceof DamagedWindow)) throw error;
}

/** All of a window's revisions, in their order. */
export function revisionsOf({ closed, open }: WindowView): (ClosedRevision | OpenRevision)[] {
  return open ? [...closed, open] : [...closed];
}

/** Whether a revision says of its records what they say themselves. */
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
    // Said below.
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
