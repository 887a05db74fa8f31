import { Cluster } from 'ioredis';
import type { TraceParent } from '../../lib/tracing.ts';
import type { Refusal, UsageRecord } from '../../protocol/usage.ts';
import type { Redis } from '../../redis/client.ts';
import { mapRedisErrors } from '../../redis/errors.ts';
import { type Keys, PARTITIONS } from '../../redis/keys.ts';
import { done, list, type Shape, text, tuple } from '../../redis/replies.ts';
import { LuaScript } from '../../redis/scripts.ts';
import { endOf } from '../hours.ts';
import { parseUsageRecord } from '../records.ts';
import { RECORD_SOURCES, type Resubmission, SINCE_FIELD, SOURCE_FIELD } from '../recovery/resubmitted-records.ts';

/**
 * Maximum number of entries read per outbox and pass. All outboxes together return about 6 MB, well within the command
 * timeout.
 */
const OUTBOX_BATCH = 128;
/** Maximum number of resubmitted records read per pass, about 2 MB. One search of the ledger serves all of them. */
const RESUBMITTED_BATCH = 2_000;
const streamEntry: Shape<StreamEntry> = tuple([text, list(text)]);
const readOutbox = LuaScript.load('readOutbox-1', tuple([text, text, list(streamEntry)]));
const trimOutbox = LuaScript.load('trimOutbox-1', done);

export const CORRECTIONS = 'corrections';
export const RESUBMITTED = 'returned';
const REFUSAL_FIELD = 'x';
const TRACE_FIELD = 't';

/** Fields of the ledger's state, per outbox: see rewindOutboxes-1.lua. */
export const SERVER_PREFIX = 'server:';
const COUNTED_PREFIX = 'counted:';

/** An entry of an outbox. */
export interface PendingEntry {
  readonly outbox: string;
  readonly entryId: string;
  readonly entry: UsageRecord | Refusal;
  /** Trace of the request that wrote the entry, if it was recorded. */
  readonly trace: TraceParent | undefined;
  /** Only on records that were resubmitted after a loss. */
  readonly resubmitted?: Resubmission;
  /** Whether a refusal was counted before its outbox was read again from the beginning. */
  readonly isCounted: boolean;
}

/** Where an outbox was read, on Redis Cluster. */
export interface OutboxServer {
  readonly id: string;
  /** The last entry id that this server has assigned. */
  readonly lastEntryId: string;
}

/** The pending entries of one outbox. */
export interface Outbox {
  readonly name: string;
  readonly key: string;
  readonly pending: readonly PendingEntry[];
  /** Whether the outbox contains no entries after these. */
  readonly drained: boolean;
  readonly unreadable: boolean;
  /** Undefined for an outbox that cannot go back without the ledger: they are on one server. */
  readonly server?: OutboxServer;
}

export interface PendingRecords {
  /** The outboxes of the partitions and the outbox of corrections. */
  readonly outboxes: readonly Outbox[];
  /** Records that were resubmitted after a loss. They are processed when all other outboxes are empty. */
  readonly resubmitted: Outbox;
  /** Whether ids of resubmitted records are stored. Ingestion skips any other record with one of these ids. */
  readonly hasResubmittedIds: boolean;
}

/**
 * Reads the entries of each outbox that have not been ingested yet, in one round trip.
 * @param state of the ledger: its cursors
 */
export async function readOutboxes(
  { redis, keys }: { readonly redis: Redis; readonly keys: Keys },
  state: Readonly<Record<string, string>>,
): Promise<PendingRecords> {
  const partitions = Array.from({ length: PARTITIONS }, (_, at) => [String(at), keys.outbox(at)] as const);
  const original = [...partitions, [CORRECTIONS, keys.corrections] as const];
  const cursorOf = (name: string) => state[`cursor:${name}`] ?? '0-0';
  const [hasResubmittedIds, returned, ...replies] = await mapRedisErrors(
    Promise.all([
      redis.exists(keys.resubmittedIds),
      redis.xrange(keys.resubmitted, after(cursorOf(RESUBMITTED)), '+', 'COUNT', batchOf(RESUBMITTED)),
      ...readStreams(
        { redis, keys },
        original.map(([name, key]) => ({ key, after: cursorOf(name) })),
      ),
    ]),
  );
  const read = new Map(replies.flat().map((stream) => [stream.key, stream]));
  const outboxes = original.map(([name, key]) => {
    const { entries = [], server } = read.get(key) ?? {};
    return { ...outbox(name, key, entries, state[COUNTED_PREFIX + name]), ...(server ? { server } : {}) };
  });
  const resubmitted = outbox(RESUBMITTED, keys.resubmitted, returned);
  return { outboxes, resubmitted, hasResubmittedIds: hasResubmittedIds === 1 };
}

interface ReadStream {
  readonly key: string;
  readonly entries: readonly StreamEntry[];
  readonly server?: OutboxServer;
}

/** Reads streams with one command on a single server, with one per stream on a cluster: they are in different slots. */
function readStreams(
  { redis, keys: { corrections } }: { readonly redis: Redis; readonly keys: Keys },
  streams: readonly { readonly key: string; readonly after: string }[],
): Promise<readonly ReadStream[]>[] {
  if (redis instanceof Cluster) {
    return streams.map(async ({ key, after: id }) => {
      // It is in the slot of the ledger.
      if (key === corrections)
        return [{ key, entries: await redis.xrange(key, after(id), '+', 'COUNT', OUTBOX_BATCH) }];
      const [serverId, lastEntryId, entries] = await readOutbox.run(redis, [key], [after(id), OUTBOX_BATCH]);
      return [{ key, entries, server: { id: serverId, lastEntryId } }];
    });
  }
  const [keys, ids] = [streams.map(({ key }) => key), streams.map((stream) => stream.after)];
  const read = redis.xread('COUNT', OUTBOX_BATCH, 'STREAMS', ...keys, ...ids);
  return [read.then((found) => (found ?? []).map(([key, entries]) => ({ key, entries })))];
}

/**
 * Removes ingested entries. Entries that remain after a crash are behind the cursor and are removed by the next trim of
 * that outbox. Call it in the turn in which Redis confirmed their ingestion: a Redis that has lost the ingestion in a
 * failover must not remove them (`survivorsAreCharged` in models/ledger.qnt).
 */
export async function trimOutboxes(
  redis: Redis,
  outboxes: readonly Outbox[],
  cursors: ReadonlyMap<string, string>,
): Promise<void> {
  const ingested = outboxes.filter(({ pending }) => pending.length > 0);
  if (ingested.length === 0) return;
  await Promise.allSettled(
    ingested.map(({ name, key, server }) => trim(redis, key, cursors.get(name) ?? '0-0', server?.id)),
  );
}

/** @param serverId of the server on which `cursor` was read, on Redis Cluster */
function trim(redis: Redis, key: string, cursor: string, serverId: string | undefined): Promise<unknown> {
  if (serverId === undefined) return mapRedisErrors(redis.xtrim(key, 'MINID', after(cursor)));
  return trimOutbox.run(redis, [key], [serverId, after(cursor)]);
}

/**
 * Returns whether all entries of an outbox up to `mark` are in the ledger and removed from the outbox.
 * @param mark entry id; "" for none
 */
export async function isIngestedUpTo(
  { redis, keys }: { readonly redis: Redis; readonly keys: Keys },
  { name, key }: Pick<Outbox, 'name' | 'key'>,
  mark: string,
): Promise<boolean> {
  if (mark === '') return true;
  const fields = [`cursor:${name}`, SERVER_PREFIX + name];
  const [cursor, serverId] = await mapRedisErrors(redis.hmget(keys.ledgerState, ...fields));
  // Removes entries that a crash between ingestion and trimming left behind.
  if (cursor) await trim(redis, key, cursor, serverId ?? undefined);
  return (await mapRedisErrors(redis.xrange(key, '-', mark, 'COUNT', 1))).length === 0;
}

type StreamEntry = readonly [id: string, fields: string[]];

/** @param countedUntil refusals up to this entry are counted already */
function outbox(name: string, key: string, entries: readonly StreamEntry[], countedUntil = '0-0'): Outbox {
  const pending = readable(name, entries, countedUntil);
  const unreadable = pending.length < entries.length;
  return { name, key, pending, unreadable, drained: !unreadable && entries.length < batchOf(name) };
}

function batchOf(name: string): number {
  return name === RESUBMITTED ? RESUBMITTED_BATCH : OUTBOX_BATCH;
}

/** Returns whether one entry id is greater than another. */
function isAfter(id: string, other: string): boolean {
  const [[ms, n], [otherMs, otherN]] = [numbersOf(id), numbersOf(other)];
  return ms === otherMs ? n > otherN : ms > otherMs;
}

function numbersOf(id: string): readonly [ms: number, n: number] {
  const [ms, n] = id.split('-');
  return [Number(ms), Number(n)];
}

/** Returns the smallest id after `id`. */
function after(id: string): string {
  const [ms = '0', n = '0'] = id.split('-');
  return `${ms}-${BigInt(n) + 1n}`;
}

/**
 * Returns the entries before the first unreadable one. An unreadable entry is not skipped, because it represents an
 * execution: its outbox waits for an operator and no window closes, while all other outboxes continue.
 */
function readable(name: string, entries: readonly StreamEntry[], countedUntil: string): PendingEntry[] {
  const pending: PendingEntry[] = [];
  for (const [entryId, [field, json = '', ...rest]] of entries) {
    const entry = parsed(json, field === REFUSAL_FIELD);
    if (!entry) break;
    const resubmitted = resubmissionOf(rest);
    if (name === RESUBMITTED && !resubmitted) break;
    const isCounted = !('id' in entry) && !isAfter(entryId, countedUntil);
    const trace = traceOf(rest);
    pending.push({ outbox: name, entryId, entry, isCounted, trace, ...(resubmitted ? { resubmitted } : {}) });
  }
  return pending;
}

function traceOf([field, trace]: readonly string[]): TraceParent | undefined {
  return field === TRACE_FIELD ? trace : undefined;
}

function resubmissionOf([sourceField, name, sinceField, time]: readonly string[]): Resubmission | undefined {
  const source = RECORD_SOURCES.find((candidate) => candidate === name);
  const since = Number(time);
  const isValid = sourceField === SOURCE_FIELD && sinceField === SINCE_FIELD && Number.isSafeInteger(since);
  return isValid && source ? { source, since } : undefined;
}

function parsed(json: string, isRefusal: boolean): UsageRecord | Refusal | undefined {
  try {
    const entry = parseUsageRecord(json);
    endOf(entry.period);
    const numbers = isRefusal ? [] : [entry.units, entry.duration_ms];
    const names = isRefusal ? [entry.user_id] : [entry.user_id, entry.id];
    const isValid = numbers.every(Number.isSafeInteger) && names.every((name) => typeof name === 'string');
    return isValid ? entry : undefined;
  } catch {
    return undefined;
  }
}
