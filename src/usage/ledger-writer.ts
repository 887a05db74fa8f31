import { NO_TRACING, type TraceParent, type Tracing } from '../lib/tracing.ts';
import type { Redis } from '../redis/client.ts';
import { asked } from '../redis/errors.ts';
import { type Keys, PARTITIONS } from '../redis/keys.ts';
import { LuaScript } from '../redis/scripts.ts';
import { endOf } from './hours.ts';
import { type ChainedRecord, chained } from './ledger.ts';
import { type Measures, measuresOf, NOTHING, packed, rowOf, Sums, sum } from './measures.ts';
import type { Refusal, UsageRecord } from './records.ts';

const foldUsage = LuaScript.load('foldUsage-5');

/** Entries moved in one step: bounds the time that the script holds Redis (about 5 ms). */
const FOLD_BATCH = 500;
/** Entries read of one outbox in one round: all of them together are some 6 MB, which Redis gives well within its time. */
const OUTBOX_BATCH = 128;
/** A window closes this long after the end of its hour: what arrives later goes into its next revision. */
export const WINDOW_GRACE_MS = 15 * 60_000;
/** Tallies are kept for a year and a month, so that a year can be compared with the one before. */
const TALLY_SECONDS = 396 * 24 * 3_600;
const CORRECTIONS = 'corrections';
const REFUSAL_FIELD = 'x';

export interface Folded {
  readonly records: number;
  /** Age of the oldest record among them, in milliseconds. */
  readonly lagMs: number;
  /** Redis's time before which everything that was written is in the ledger; undefined when some was left. */
  readonly passedAt: number | undefined;
  /** Outboxes that stopped at an entry which cannot be read. */
  readonly unreadable: readonly string[];
}

/** An entry of an outbox. */
interface Waiting {
  readonly outbox: string;
  readonly entryId: string;
  readonly entry: UsageRecord | Refusal;
  /** Of the request that it was written for, where that is recorded. */
  readonly trace: TraceParent | undefined;
}

/** What one outbox has. */
interface Outbox {
  readonly name: string;
  readonly key: string;
  readonly waiting: readonly Waiting[];
  /** Whether nothing is left behind these. */
  readonly drained: boolean;
  readonly unreadable: boolean;
}

/**
 * Writes the ledger: takes records from the outboxes of the partitions, where they were written with their events, and
 * from that of corrections.
 *
 * Any number of writers may run, on any number of workers; a schedule sees to it that mostly one does, and the script
 * that two can never both write: a batch is appended only onto the record that its hashes were computed from. That hash
 * is the fencing token. A writer that was frozen for an hour wakes up with an old one, and is refused.
 */
export class LedgerWriter {
  readonly #redis: Redis;
  readonly #keys: Keys;

  constructor({ redis, keys }: { redis: Redis; keys: Keys }) {
    this.#redis = redis;
    this.#keys = keys;
  }

  /**
   * One round over all outboxes, at most `OUTBOX_BATCH` entries of each.
   * @param now for the lag, which is shown and decides nothing
   * @param tracing where each batch is seen with the requests that its records are of
   * @throws TollgateError OVERLOADED while Redis is away; what was moved before stays moved
   */
  async fold(now: number, tracing: Tracing = NO_TRACING): Promise<Folded> {
    // In this order: what was written before Redis told the time is seen by the reads after it, on other shards too.
    const state = await asked(this.#redis.hgetall(this.#keys.ledgerState));
    const asOf = await this.#time();
    const outboxes = await this.#outboxes(state);
    const unreadable = outboxes.filter((outbox) => outbox.unreadable).map(({ name }) => name);

    let head = { sequence: Number(state.sequence ?? 0), hash: state.hash ?? '' };
    const cursors = new Map(outboxes.map(({ name }) => [name, state[`cursor:${name}`] ?? '']));
    let moved = 0;
    let lagMs = 0;
    for (const batch of batchesOf(outboxes.flatMap(({ waiting }) => waiting))) {
      const records = chain(batch, head.sequence, head.hash);
      if (!(await seen(tracing, batch, () => this.#append(batch, records, head.hash, cursors)))) {
        // Another writer was faster; what is left is its, or the next round's.
        return { records: moved, lagMs, passedAt: undefined, unreadable };
      }
      head = records.at(-1)?.record ?? head;
      moved += records.length;
      lagMs = Math.max(lagMs, ...batch.map(({ entryId }) => now - Number.parseInt(entryId, 10)));
    }
    await this.#empty(outboxes, cursors);
    const drained = outboxes.every((outbox) => outbox.drained);
    return { records: moved, lagMs, passedAt: drained ? asOf : undefined, unreadable };
  }

  async #time(): Promise<number> {
    const [seconds, micros] = await asked(this.#redis.time());
    return Number(seconds) * 1000 + Math.floor(Number(micros) / 1000);
  }

  /** What each outbox holds beyond what has been folded: one round trip for all. */
  async #outboxes(state: Record<string, string>): Promise<Outbox[]> {
    const keys = Array.from({ length: PARTITIONS }, (_, at) => [String(at), this.#keys.outbox(at)] as const);
    const named = [...keys, [CORRECTIONS, this.#keys.corrections] as const];
    // Sent together; a pipeline would have to stay on one shard.
    const replies = await asked(
      Promise.all(
        named.map(([name, key]) => {
          return this.#redis.xrange(key, after(state[`cursor:${name}`] ?? '0-0'), '+', 'COUNT', OUTBOX_BATCH);
        }),
      ),
    );
    return named.map(([name, key], at) => {
      const entries: StreamEntry[] = replies[at] ?? [];
      const waiting = readable(name, entries);
      const unreadable = waiting.length < entries.length;
      return { name, key, waiting, unreadable, drained: !unreadable && entries.length < OUTBOX_BATCH };
    });
  }

  /** Appends the batch and moves `cursors` behind it. False when the ledger has moved on. */
  async #append(
    batch: readonly Waiting[],
    records: readonly ChainedRecord[],
    headHash: string,
    cursors: Map<string, string>,
  ): Promise<boolean> {
    const hour = batch[0]?.entry.period ?? '';
    const moves = new Map(batch.map(({ outbox, entryId }) => [outbox, entryId]));
    const rows = new Sums();
    for (const { entry } of batch) rows.add(rowOf(entry), measuresOf(entry));
    const totals = records.reduce<Measures>((all, { record }) => sum(all, measuresOf(record)), NOTHING);
    const { ledger, ledgerState, openWindows } = this.#keys;
    const appended = await foldUsage.run(
      this.#redis,
      [ledger, ledgerState, this.#keys.tally(hour), this.#keys.window(hour), openWindows],
      [
        headHash,
        records.at(-1)?.record.hash ?? headHash,
        hour,
        endOf(hour),
        WINDOW_GRACE_MS,
        TALLY_SECONDS,
        packed(totals),
        moves.size,
        rows.rows.size,
        ...[...moves].flatMap(([outbox, to]) => [outbox, cursors.get(outbox) ?? '', to]),
        ...[...rows.rows].flatMap(([row, measures]) => [row, packed(measures)]),
        ...records.map(({ json }) => json),
      ],
    );
    if (appended !== 1) return false;
    for (const [outbox, to] of moves) cursors.set(outbox, to);
    return true;
  }

  /** Removes what has been folded. What a crash leaves lies behind the cursor, and goes with the next that is folded. */
  async #empty(outboxes: readonly Outbox[], cursors: ReadonlyMap<string, string>): Promise<void> {
    const folded = outboxes.filter(({ waiting }) => waiting.length > 0);
    if (folded.length === 0) return;
    await Promise.allSettled(
      folded.map(({ name, key }) => this.#redis.xtrim(key, 'MINID', after(cursors.get(name) ?? '0-0'))),
    );
  }
}

type StreamEntry = [id: string, fields: string[]];

/** The smallest id after `id`. */
function after(id: string): string {
  const [ms = '0', n = '0'] = id.split('-');
  return `${ms}-${BigInt(n) + 1n}`;
}

/**
 * The entries up to the first that cannot be read. It is not passed over, since it stands for something that was
 * executed: its outbox waits for an operator, no window closes, and all other outboxes go on.
 */
function readable(outbox: string, entries: readonly StreamEntry[]): Waiting[] {
  const waiting: Waiting[] = [];
  for (const [entryId, [field, json = '', , trace]] of entries) {
    const entry = parsed(json, field === REFUSAL_FIELD);
    if (!entry) break;
    waiting.push({ outbox, entryId, entry, trace });
  }
  return waiting;
}

function parsed(json: string, isRefusal: boolean): UsageRecord | Refusal | undefined {
  try {
    const entry = JSON.parse(json) as UsageRecord;
    endOf(entry.period);
    const numbers = isRefusal ? [] : [entry.units, entry.duration_ms];
    const names = isRefusal ? [entry.user_id] : [entry.user_id, entry.id];
    const sound = numbers.every(Number.isSafeInteger) && names.every((name) => typeof name === 'string');
    return sound ? entry : undefined;
  } catch {
    return undefined;
  }
}

/** Batches of one hour each, every outbox in its order. */
function* batchesOf(waiting: readonly Waiting[]): Generator<Waiting[]> {
  let batch: Waiting[] = [];
  for (const one of waiting) {
    if (batch.length === FOLD_BATCH || (batch[0] && batch[0].entry.period !== one.entry.period)) {
      yield batch;
      batch = [];
    }
    batch.push(one);
  }
  if (batch.length > 0) yield batch;
}

/** A batch holds records of many requests: its trace is one of its own, which names theirs. */
function seen(tracing: Tracing, batch: readonly Waiting[], append: () => Promise<boolean>): Promise<boolean> {
  const links = batch.flatMap(({ trace }) => trace ?? []);
  if (links.length === 0) return append();
  const attributes = {
    'messaging.system': 'redis',
    'messaging.destination.name': 'usage',
    'messaging.operation.type': 'process',
    'messaging.batch.message_count': batch.length,
  };
  return tracing.root('process usage', { kind: 'consumer', links, attributes }, append);
}

function chain(batch: readonly Waiting[], sequence: number, hash: string): ChainedRecord[] {
  let previous = hash;
  const records = batch.flatMap(({ entry }) => ('id' in entry ? [entry] : []));
  return records.map((record, at) => {
    const link = chained(previous, { ...record, sequence: sequence + at + 1 });
    previous = link.record.hash;
    return link;
  });
}
