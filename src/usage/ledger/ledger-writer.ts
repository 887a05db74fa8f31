import { NO_TRACING, type Tracing } from '../../lib/tracing.ts';
import type { Redis } from '../../redis/client.ts';
import { mapRedisErrors } from '../../redis/errors.ts';
import type { Keys } from '../../redis/keys.ts';
import { type Outbox, type PendingEntry, readOutboxes, trimOutboxes } from '../outbox/outboxes.ts';
import type { LedgerRecord, Refusal, UsageRecord } from '../records.ts';
import type { RecordSource } from '../recovery/resubmitted-records.ts';
import { contentDigest, newSalt } from '../redaction.ts';
import { APPEND_BATCH, appendBatch } from './append-batch.ts';
import { type ChainedRecord, chained, Ledger, type LedgerPosition } from './ledger.ts';

/** Records of the ledger that are looked through for copies of what was given back: a quarter of an hour at 1,000 a second. */
const MAX_SEARCHED = 1_000_000;
/** What was folded before a fail-over has the time of another server, and an answer takes its time. */
const CLOCK_SKEW_MS = 5 * 60_000;

export interface IngestResult {
  readonly records: number;
  /** Age of the oldest record among them, in milliseconds. */
  readonly lagMs: number;
  /** Redis's time before which everything that was written is in the ledger; undefined when some was left. */
  readonly completeUntil: number | undefined;
  /** Outboxes that stopped at an entry which cannot be read. */
  readonly unreadable: readonly string[];
  /** Of the records, those that were lost and given back, by who had them. */
  readonly recovered: Readonly<Partial<Record<RecordSource, number>>>;
}

interface WriterDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly ledger: Ledger;
}

interface IngestPassDeps extends WriterDeps {
  readonly tracing: Tracing;
}

/**
 * Writes the ledger: takes records from the outboxes of the partitions, where they were written with their events, and
 * from that of corrections; and, when these are empty, what was given back after a loss and is not there.
 *
 * Any number of writers may run, on any number of workers; a schedule sees to it that mostly one does, and the script
 * that two can never both write: a batch is appended only onto the record that its hashes were computed from. That hash
 * is the fencing token. A writer that was frozen for an hour wakes up with an old one, and is refused.
 */
export class LedgerWriter {
  readonly #deps: WriterDeps;

  constructor({ redis, keys }: { redis: Redis; keys: Keys }) {
    this.#deps = { redis, keys, ledger: new Ledger({ redis, keys }) };
  }

  /**
   * One round over all outboxes, a bounded number of entries of each.
   * @param now for the lag, which is shown and decides nothing
   * @param tracing where each batch is seen with the requests that its records are of
   * @throws TollgateError OVERLOADED while Redis is away; what was moved before stays moved
   */
  async ingest(now: number, tracing: Tracing = NO_TRACING): Promise<IngestResult> {
    const { redis, keys } = this.#deps;
    // In this order: what was written before Redis told the time is seen by the reads after it, on other shards too.
    const state = await mapRedisErrors(redis.hgetall(keys.ledgerState));
    const asOf = await this.#time();
    const { outboxes, resubmitted, hasResubmittedIds } = await readOutboxes(this.#deps, state);
    const pass = new IngestPass({ ...this.#deps, tracing }, state, now);
    const pending = outboxes.flatMap((outbox) => outbox.pending);
    if (pending.length > 0 || resubmitted.pending.length > 0) await pass.begin();
    const skipped = hasResubmittedIds ? await this.#resubmittedAmong(pending) : NONE;
    const inTime = await pass.append(pending, skipped);
    const unreadable = [...outboxes, resubmitted].filter((outbox) => outbox.unreadable).map(({ name }) => name);
    if (!inTime) return pass.result({ completeUntil: undefined, unreadable });
    await trimOutboxes(redis, outboxes, pass.cursors);
    // Only now: a copy that was not lost was in one of the others, and is in the ledger by now.
    if (!outboxes.every(({ drained }) => drained)) return pass.result({ completeUntil: undefined, unreadable });
    const ingested = await this.#ingestResubmitted(resubmitted, pass);
    if (ingested === 'unsearched') unreadable.push(resubmitted.name);
    if (ingested === 'appended') await trimOutboxes(redis, [resubmitted], pass.cursors);
    return pass.result({
      completeUntil: ingested === 'appended' && resubmitted.drained ? asOf : undefined,
      unreadable,
    });
  }

  async #time(): Promise<number> {
    const [seconds, micros] = await mapRedisErrors(this.#deps.redis.time());
    return Number(seconds) * 1000 + Math.floor(Number(micros) / 1000);
  }

  /** The ids among these that were given back to the ledger already, under which nothing else is folded. */
  async #resubmittedAmong(pending: readonly PendingEntry[]): Promise<ReadonlySet<string>> {
    const ids = pending.flatMap(({ entry }) => ('id' in entry ? [entry.id] : []));
    if (ids.length === 0) return NONE;
    const isResubmitted = await mapRedisErrors(this.#deps.redis.smismember(this.#deps.keys.resubmittedIds, ...ids));
    return new Set(ids.filter((_, at) => isResubmitted[at] === 1));
  }

  /**
   * Appends what was given back and is not in the ledger.
   * @returns `late` when another writer was faster, `unsearched` when nobody can say in time whether the ledger has it
   */
  async #ingestResubmitted({ pending }: Outbox, pass: IngestPass): Promise<'appended' | 'late' | 'unsearched'> {
    if (pending.length === 0) return 'appended';
    const ids = new Set(pending.flatMap(({ entry }) => ('id' in entry ? [entry.id] : [])));
    const since = Math.min(...pending.map(({ resubmitted }) => resubmitted?.since ?? 0)) - CLOCK_SKEW_MS;
    const inLedger = new Set(await this.#resubmittedAmong(pending));
    let searched = 0;
    for await (const batch of this.#deps.ledger.backwards(pass.head.sequence, since)) {
      searched += batch.length;
      if (searched > MAX_SEARCHED) return 'unsearched';
      for (const { json } of batch) {
        const { id } = JSON.parse(json) as LedgerRecord;
        if (ids.has(id)) inLedger.add(id);
      }
    }
    return (await pass.append(pending, inLedger)) ? 'appended' : 'late';
  }
}

const NONE: ReadonlySet<string> = new Set();

/** What one round appends, and where it stands. */
class IngestPass {
  head: LedgerPosition;
  readonly cursors: Map<string, string>;
  readonly #deps: IngestPassDeps;
  readonly #now: number;
  #records = 0;
  #lagMs = 0;
  /** Content digest of the head's record; undefined where it is not known. */
  #contentBefore: string | undefined;
  readonly #recovered: Partial<Record<RecordSource, number>> = {};

  constructor(deps: IngestPassDeps, state: Readonly<Record<string, string>>, now: number) {
    this.#deps = deps;
    this.#now = now;
    this.head = { sequence: Number(state.sequence ?? 0), hash: state.hash ?? '' };
    const cursors = Object.entries(state).filter(([field]) => field.startsWith(CURSOR_PREFIX));
    this.cursors = new Map(cursors.map(([field, cursor]) => [field.slice(CURSOR_PREFIX.length), cursor]));
  }

  /** Reads the record that the first of this round follows; there is none when the ledger is new or trimmed to its end. */
  async begin(): Promise<void> {
    const { sequence } = this.head;
    const [last] = await this.#deps.ledger.range(sequence, sequence);
    this.#contentBefore = last && contentDigest(JSON.parse(last.json) as LedgerRecord);
  }

  /**
   * Appends these, but for the ids that are passed over, of which the cursors move on alone.
   * @returns false when another writer was faster; what is left is its, or the next round's
   */
  async append(pending: readonly PendingEntry[], skipped: ReadonlySet<string>): Promise<boolean> {
    const excluded = new Set(skipped);
    for (const batch of batchesOf(pending)) {
      if (!(await traced(this.#deps.tracing, batch, () => this.#appendOne(batch, excluded)))) return false;
    }
    return true;
  }

  result({ completeUntil, unreadable }: Pick<IngestResult, 'completeUntil' | 'unreadable'>): IngestResult {
    return { records: this.#records, lagMs: this.#lagMs, completeUntil, unreadable, recovered: this.#recovered };
  }

  /** @param excluded ids under which nothing is appended any more; those that are given back are added */
  async #appendOne(batch: readonly PendingEntry[], excluded: Set<string>): Promise<boolean> {
    const moves = new Map(batch.map(({ outbox, entryId }) => [outbox, entryId]));
    const records: UsageRecord[] = [];
    const refusals: Refusal[] = [];
    const recovered: RecordSource[] = [];
    for (const { entry, resubmitted } of batch) {
      if (!('id' in entry)) refusals.push(entry);
      else if (!excluded.has(entry.id)) {
        records.push(entry);
        // Both a node and the archive may have given it back.
        if (resubmitted) excluded.add(entry.id);
        if (resubmitted) recovered.push(resubmitted.source);
      }
    }
    const chainedRecords = chain(records, this.head, this.#contentBefore);
    const appended = await appendBatch(this.#deps, {
      head: this.head.hash,
      hour: batch[0]?.entry.period ?? '',
      records: chainedRecords,
      refusals,
      moves: [...moves].map(([outbox, to]) => ({ outbox, from: this.cursors.get(outbox) ?? '', to })),
      resubmitted: batch.flatMap(({ entry, resubmitted }) => (resubmitted && 'id' in entry ? [entry.id] : [])),
    });
    if (!appended) return false;
    for (const [outbox, to] of moves) this.cursors.set(outbox, to);
    const last = chainedRecords.at(-1)?.record;
    if (last) {
      this.head = last;
      this.#contentBefore = contentDigest(last);
    }
    this.#records += records.length;
    this.#lagMs = Math.max(this.#lagMs, ...batch.map(({ entryId }) => this.#now - Number.parseInt(entryId, 10)));
    for (const source of recovered) this.#recovered[source] = (this.#recovered[source] ?? 0) + 1;
    return true;
  }
}

const CURSOR_PREFIX = 'cursor:';

/** Batches of one hour each, every outbox in its order. */
function* batchesOf(pending: readonly PendingEntry[]): Generator<PendingEntry[]> {
  let batch: PendingEntry[] = [];
  for (const one of pending) {
    if (batch.length === APPEND_BATCH || (batch[0] && batch[0].entry.period !== one.entry.period)) {
      yield batch;
      batch = [];
    }
    batch.push(one);
  }
  if (batch.length > 0) yield batch;
}

/** A batch holds records of many requests: its trace is one of its own, which names theirs. */
function traced(tracing: Tracing, batch: readonly PendingEntry[], append: () => Promise<boolean>): Promise<boolean> {
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

function chain(
  records: readonly UsageRecord[],
  head: LedgerPosition,
  contentBefore: string | undefined,
): ChainedRecord[] {
  let previous = head.hash;
  let before = contentBefore;
  return records.map((record, at) => {
    const bound = before === undefined ? {} : { content_before: before };
    const link = chained(previous, { ...record, sequence: head.sequence + at + 1, salt: newSalt(), ...bound });
    previous = link.record.hash;
    before = contentDigest(link.record);
    return link;
  });
}
