import { NO_TRACING, type Tracing } from '../../lib/tracing.ts';
import type { Refusal, UsageRecord } from '../../protocol/usage.ts';
import type { Redis } from '../../redis/client.ts';
import { mapRedisErrors } from '../../redis/errors.ts';
import type { Keys } from '../../redis/keys.ts';
import { type Outbox, type PendingEntry, readOutboxes, trimOutboxes } from '../outbox/outboxes.ts';
import { parseLedgerRecord } from '../records.ts';
import { movedAmong, rewind } from '../recovery/moved-outboxes.ts';
import type { RecordSource } from '../recovery/resubmitted-records.ts';
import { contentDigest, newSalt } from '../redaction.ts';
import { APPEND_BATCH, appendBatch } from './append-batch.ts';
import { type ChainedRecord, chained, Ledger, type LedgerPosition } from './ledger.ts';

/**
 * Maximum number of ledger records searched for copies of resubmitted records: a quarter of an hour at 1,000 records
 * per second.
 */
const MAX_SEARCHED = 1_000_000;
/**
 * Tolerance for `since`: records ingested before a failover carry the clock of another server, and a reply takes time.
 */
const CLOCK_SKEW_MS = 5 * 60_000;

export interface IngestResult {
  readonly records: number;
  /** Age of the oldest ingested record, in milliseconds. */
  readonly lagMs: number;
  /** Redis time before which every written record is in the ledger; undefined when entries remain in the outboxes. */
  readonly completeUntil: number | undefined;
  /** Names of the outboxes that are blocked by an unreadable entry. */
  readonly unreadable: readonly string[];
  /** Number of ingested records that were resubmitted after a loss, by source. */
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
 * Writes the ledger: ingests records from the outboxes of the partitions and from the outbox of corrections. When these
 * are empty, it also ingests the resubmitted records that the ledger lacks.
 *
 * Several writers may run concurrently; the schedule of the periodic tasks makes this rare, and the script makes it
 * safe. It accepts a batch only if the ledger head still has the hash from which the batch was computed. The hash acts
 * as the fencing token: a writer that resumes after an hour's pause presents an old hash, and the script rejects its
 * batch.
 */
export class LedgerWriter {
  readonly #deps: WriterDeps;

  constructor({ redis, keys }: { redis: Redis; keys: Keys }) {
    this.#deps = { redis, keys, ledger: new Ledger({ redis, keys }) };
  }

  /**
   * Ingests a bounded number of entries from each outbox.
   * @param now time for the lag, which is only reported
   * @param tracing receives a span per batch, linked to the requests of its records
   * @throws RedisUnavailable; batches that were already appended remain
   */
  async ingest(now: number, tracing: Tracing = NO_TRACING): Promise<IngestResult> {
    const { redis, keys } = this.#deps;
    // The order matters: the later reads see everything that was written before Redis returned its time, on other
    // shards too.
    const state = await mapRedisErrors(redis.hgetall(keys.ledgerState));
    const asOf = await this.#time();
    const { outboxes, resubmitted, hasResubmittedIds } = await readOutboxes(this.#deps, state);
    const pass = new IngestPass({ ...this.#deps, tracing }, state, now);
    const moved = movedAmong(outboxes, state);
    if (moved.length > 0) {
      await rewind(this.#deps, moved, { state, asOf });
      return pass.result({ completeUntil: undefined, unreadable: [] });
    }
    const pending = outboxes.flatMap((outbox) => outbox.pending);
    if (pending.length > 0 || resubmitted.pending.length > 0) await pass.begin();
    const skipped = hasResubmittedIds ? await this.#resubmittedAmong(pending) : NONE;
    const inTime = await pass.append(pending, skipped);
    const unreadable = [...outboxes, resubmitted].filter((outbox) => outbox.unreadable).map(({ name }) => name);
    if (!inTime) return pass.result({ completeUntil: undefined, unreadable });
    await trimOutboxes(redis, outboxes, pass.cursors);
    // Resubmitted records come last: the original of a record that was not lost was in another outbox, and is in the
    // ledger now.
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

  /** Returns the ids among these that were already resubmitted. Ingestion skips other records with these ids. */
  async #resubmittedAmong(pending: readonly PendingEntry[]): Promise<ReadonlySet<string>> {
    const ids = pending.flatMap(({ entry }) => ('id' in entry ? [entry.id] : []));
    if (ids.length === 0) return NONE;
    const isResubmitted = await mapRedisErrors(this.#deps.redis.smismember(this.#deps.keys.resubmittedIds, ...ids));
    return new Set(ids.filter((_, at) => isResubmitted[at] === 1));
  }

  /**
   * Appends the resubmitted records that the ledger lacks.
   * @returns `late` when another writer was faster; `unsearched` when the search for existing copies exceeds its bound
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
        const { id } = parseLedgerRecord(json);
        if (ids.has(id)) inLedger.add(id);
      }
    }
    return (await pass.append(pending, inLedger)) ? 'appended' : 'late';
  }
}

const NONE: ReadonlySet<string> = new Set();

/** The state of one ingestion pass: head, cursors and counters. */
class IngestPass {
  head: LedgerPosition;
  readonly cursors: Map<string, string>;
  readonly #deps: IngestPassDeps;
  readonly #now: number;
  readonly #rewinds: string;
  #records = 0;
  #lagMs = 0;
  /** Content digest of the head's record; undefined if the record is not available. */
  #contentBefore: string | undefined;
  readonly #recovered: Partial<Record<RecordSource, number>> = {};

  constructor(deps: IngestPassDeps, state: Readonly<Record<string, string>>, now: number) {
    this.#deps = deps;
    this.#now = now;
    this.head = { sequence: Number(state.sequence ?? 0), hash: state.hash ?? '' };
    this.#rewinds = state.rewinds ?? '';
    const cursors = Object.entries(state).filter(([field]) => field.startsWith(CURSOR_PREFIX));
    this.cursors = new Map(cursors.map(([field, cursor]) => [field.slice(CURSOR_PREFIX.length), cursor]));
  }

  /**
   * Reads the record to which the first record of this pass is chained; there is none if the ledger is new or
   * completely trimmed.
   */
  async begin(): Promise<void> {
    const { sequence } = this.head;
    const [last] = await this.#deps.ledger.range(sequence, sequence);
    this.#contentBefore = last && contentDigest(parseLedgerRecord(last.json));
  }

  /**
   * Appends the entries. For the ids in `skipped` only the cursors advance.
   * @returns false when another writer was faster; that writer or the next pass ingests the remaining entries
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

  /** @param excluded ids under which no more records are appended; the method adds those of the batch */
  async #appendOne(batch: readonly PendingEntry[], excluded: Set<string>): Promise<boolean> {
    const moves = new Map(batch.map(({ outbox, entryId }) => [outbox, entryId]));
    const records: UsageRecord[] = [];
    const refusals: Refusal[] = [];
    const recovered: RecordSource[] = [];
    for (const { entry, resubmitted, isCounted } of batch) {
      if (!('id' in entry)) {
        if (!isCounted) refusals.push(entry);
      } else if (!excluded.has(entry.id)) {
        records.push(entry);
        // Both a node and the archive may have resubmitted the record.
        excluded.add(entry.id);
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
      rewinds: this.#rewinds,
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

/** Splits entries into batches of one hour each, keeping the order within each outbox. */
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

/**
 * Runs `append` in a trace of its own that links the traces of the records, because a batch contains records of many
 * requests.
 */
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
