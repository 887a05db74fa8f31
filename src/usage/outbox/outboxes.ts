import type { TraceParent } from '../../lib/tracing.ts';
import type { Redis } from '../../redis/client.ts';
import { mapRedisErrors } from '../../redis/errors.ts';
import { type Keys, PARTITIONS } from '../../redis/keys.ts';
import { endOf } from '../hours.ts';
import type { Refusal, UsageRecord } from '../records.ts';
import { RECORD_SOURCES, type Resubmission, SINCE_FIELD, SOURCE_FIELD } from '../recovery/resubmitted-records.ts';

/** Entries read of one outbox in one round: all of them together are some 6 MB, which Redis gives well within its time. */
const OUTBOX_BATCH = 128;
/** Of those that were given back: one search of the ledger serves them all. Some 2 MB. */
const RESUBMITTED_BATCH = 2_000;
export const CORRECTIONS = 'corrections';
export const RESUBMITTED = 'returned';
const REFUSAL_FIELD = 'x';
const TRACE_FIELD = 't';

/** An entry of an outbox. */
export interface PendingEntry {
  readonly outbox: string;
  readonly entryId: string;
  readonly entry: UsageRecord | Refusal;
  /** Of the request that it was written for, where that is recorded. */
  readonly trace: TraceParent | undefined;
  /** Of a record that was given back after a loss. */
  readonly resubmitted?: Resubmission;
}

/** What one outbox has. */
export interface Outbox {
  readonly name: string;
  readonly key: string;
  readonly pending: readonly PendingEntry[];
  /** Whether nothing is left behind these. */
  readonly drained: boolean;
  readonly unreadable: boolean;
}

export interface PendingRecords {
  /** Of the partitions, and that of corrections. */
  readonly outboxes: readonly Outbox[];
  /** What was given back after a loss: to be looked at when all the others are empty. */
  readonly resubmitted: Outbox;
  /** Whether the ids of such are remembered: nothing else may be folded under one of them. */
  readonly hasResubmittedIds: boolean;
}

/**
 * What each outbox holds beyond what has been folded: one round trip for all.
 * @param state of the ledger: its cursors
 */
export async function readOutboxes(
  { redis, keys }: { readonly redis: Redis; readonly keys: Keys },
  state: Readonly<Record<string, string>>,
): Promise<PendingRecords> {
  const partitions = Array.from({ length: PARTITIONS }, (_, at) => [String(at), keys.outbox(at)] as const);
  const named = [...partitions, [CORRECTIONS, keys.corrections] as const, [RESUBMITTED, keys.resubmitted] as const];
  // Sent together; a pipeline would have to stay on one shard.
  const reads = named.map(([name, key]) => {
    return redis.xrange(key, after(state[`cursor:${name}`] ?? '0-0'), '+', 'COUNT', batchOf(name));
  });
  const [hasResubmittedIds, ...replies] = await mapRedisErrors(
    Promise.all([redis.exists(keys.resubmittedIds), ...reads]),
  );
  const outboxes = named.map(([name, key], at) => outbox(name, key, replies[at] ?? []));
  const resubmitted = outboxes.pop() as Outbox;
  return { outboxes, resubmitted, hasResubmittedIds: hasResubmittedIds === 1 };
}

/** Removes what has been folded. What a crash leaves lies behind the cursor, and goes with the next that is folded. */
export async function trimOutboxes(
  redis: Redis,
  outboxes: readonly Outbox[],
  cursors: ReadonlyMap<string, string>,
): Promise<void> {
  const ingested = outboxes.filter(({ pending }) => pending.length > 0);
  if (ingested.length === 0) return;
  await Promise.allSettled(
    ingested.map(({ name, key }) => redis.xtrim(key, 'MINID', after(cursors.get(name) ?? '0-0'))),
  );
}

/** Whether everything of an outbox up to an entry is in the ledger and no more in the outbox. @param mark "" for none */
export async function isIngestedUpTo(
  { redis, keys }: { readonly redis: Redis; readonly keys: Keys },
  { name, key }: Pick<Outbox, 'name' | 'key'>,
  mark: string,
): Promise<boolean> {
  if (mark === '') return true;
  const cursor = await mapRedisErrors(redis.hget(keys.ledgerState, `cursor:${name}`));
  // What a crash between the folding and the trimming has left.
  if (cursor !== null) await mapRedisErrors(redis.xtrim(key, 'MINID', after(cursor)));
  return (await mapRedisErrors(redis.xrange(key, '-', mark, 'COUNT', 1))).length === 0;
}

type StreamEntry = [id: string, fields: string[]];

function outbox(name: string, key: string, entries: readonly StreamEntry[]): Outbox {
  const pending = readable(name, entries);
  const unreadable = pending.length < entries.length;
  return { name, key, pending, unreadable, drained: !unreadable && entries.length < batchOf(name) };
}

function batchOf(name: string): number {
  return name === RESUBMITTED ? RESUBMITTED_BATCH : OUTBOX_BATCH;
}

/** The smallest id after `id`. */
function after(id: string): string {
  const [ms = '0', n = '0'] = id.split('-');
  return `${ms}-${BigInt(n) + 1n}`;
}

/**
 * The entries up to the first that cannot be read. It is not passed over, since it stands for something that was
 * executed: its outbox waits for an operator, no window closes, and all other outboxes go on.
 */
function readable(name: string, entries: readonly StreamEntry[]): PendingEntry[] {
  const pending: PendingEntry[] = [];
  for (const [entryId, [field, json = '', ...rest]] of entries) {
    const entry = parsed(json, field === REFUSAL_FIELD);
    if (!entry) break;
    const resubmitted = resubmissionOf(rest);
    if (name === RESUBMITTED && !resubmitted) break;
    pending.push({ outbox: name, entryId, entry, trace: traceOf(rest), ...(resubmitted ? { resubmitted } : {}) });
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
    const entry = JSON.parse(json) as UsageRecord;
    endOf(entry.period);
    const numbers = isRefusal ? [] : [entry.units, entry.duration_ms];
    const names = isRefusal ? [entry.user_id] : [entry.user_id, entry.id];
    const isValid = numbers.every(Number.isSafeInteger) && names.every((name) => typeof name === 'string');
    return isValid ? entry : undefined;
  } catch {
    return undefined;
  }
}
