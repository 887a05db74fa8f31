import { isObject } from '../lib/json.ts';
import type { Metrics } from '../lib/metrics.ts';
import { isSampled, type Tracing } from '../lib/tracing.ts';
import type { DurableEventType, TerminalEventType } from '../protocol/messages.ts';
import type { UsageRecord } from '../protocol/usage.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import type { ReplicatedWrites } from '../redis/replicated-writes.ts';
import { integer, literal, oneOf, text, tuple } from '../redis/replies.ts';
import { LuaScript, type ScriptArgument } from '../redis/scripts.ts';
import type { UserKeys } from '../redis/user-keys.ts';
import type { Append, AppendResult, NewEvent } from './append.ts';
import { AppendBatches, isPlain } from './append-batches.ts';
import { LOG_STATE_SECONDS } from './event-log.ts';

const appendEvents = LuaScript.load(
  'appendEvents-n',
  oneOf(
    tuple([literal('appended', 'repeated'), integer, text, integer]),
    tuple([literal('appended', 'repeated'), integer, text, integer, literal('reserved', 'refused'), integer], integer),
    tuple([literal('fenced', 'finished', 'behind')]),
  ),
);

/** Number of runs that failed or were cancelled that are listed per partition, and for how long after the latest of them. */
const UNSUCCESSFUL_RUNS = 200;
const UNSUCCESSFUL_RUNS_SECONDS = 25 * 3_600;
/** Number of usage records kept per user, for the user's own tools. */
const RECENT_USAGE = 1_000;
/** Maximum number of messages and bytes per thread. The oldest messages are removed first. */
export const THREAD_MESSAGES = 200;
export const THREAD_BYTES = 512 * 1024;

export interface LogBounds {
  /** Maximum number of events per log. Every 16th event removes whole nodes of the stream, so a log may keep up to 120 more. */
  readonly length: number;
  /** Maximum age of an event, in milliseconds. */
  readonly maxAgeMs: number;
  /** Maximum size of a log, in bytes. The newest event always stays. */
  readonly maxBytes: number;
}

/** A script of another component that appends one event in the same step as its own change. */
export interface AppendingScript<Reply> {
  readonly script: LuaScript<Reply>;
  readonly keys: readonly string[];
  /** The arguments after those of the log: see include/events.lua. */
  readonly args: readonly ScriptArgument[];
  /** `published` for an event of a service, which chooses its type: all of them count together in the metrics. */
  readonly event: DurableEventType | 'published';
  /** The usage record that the script writes with the event. */
  readonly usageRecord?: UsageRecord | undefined;
  /** Whether this call appended the event, or an earlier attempt had; otherwise there is none. */
  readonly outcomeOf: (reply: Reply) => 'appended' | 'repeated' | 'none';
}

const STATUS_AFTER: Record<TerminalEventType, string> = {
  agent_completed: 'completed',
  agent_failed: 'failed',
  agent_cancelled: 'cancelled',
};

/** Observes the usage records that Redis acknowledged. */
export interface RecordObserver {
  onAcknowledged(record: UsageRecord): void;
}

export interface UserLogWriterDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly metrics: Pick<Metrics, 'appends' | 'usageRecords'>;
  readonly tracing: Pick<Tracing, 'traceParent'>;
  /** Waits for replicas to acknowledge the records of paid executions; without it, replication is not awaited. */
  readonly replicated?: ReplicatedWrites | undefined;
  readonly recordObserver?: RecordObserver | undefined;
}

/**
 * Writes the partitions of users: one script appends durable events to the event log of a user, publishes them, and
 * writes their usage records, journal entries and quota commits. Every call is one round trip; plain appends of several
 * users share one while an earlier one is in flight (see `AppendBatches`).
 */
export class UserLogWriter {
  readonly #deps: UserLogWriterDeps;
  readonly #bounds: LogBounds;
  readonly #batches: AppendBatches;

  constructor(deps: UserLogWriterDeps, bounds: LogBounds) {
    this.#deps = deps;
    this.#bounds = bounds;
    const { redis, keys } = deps;
    const logArguments = () => this.#logArguments('');
    this.#batches = new AppendBatches({ redis, keys, logArguments, send: (append) => this.#append(append) });
  }

  /**
   * Appends all of the events or none. The same step publishes them to the nodes that serve the user and writes their
   * records.
   */
  async append(append: Append): Promise<AppendResult> {
    const result = await (isPlain(append) ? this.#batches.append(append) : this.#append(append));
    if ('seq' in result) this.#observe(append.events, result.outcome);
    return result;
  }

  async #append(append: Append): Promise<AppendResult> {
    const { userId, events } = append;
    const keys = appendKeys(append, this.#deps.keys.user(userId));
    const reply = await this.#run(userId, appendEvents, keys, appendArguments(append), events);
    if (reply[0] !== 'appended' && reply[0] !== 'repeated') return { outcome: reply[0] };
    const [outcome, seq, , cancel, ...reservation] = reply;
    const [decision, now = 0, ...rest] = reservation;
    const reserved = decision && { reserved: { allowed: decision === 'reserved', reply: [now, ...rest] as const } };
    return { outcome, seq, cancelRequested: cancel === 1, ...reserved };
  }

  /** Runs a script of another component that appends an event. */
  async appendWith<Reply>(userId: string, appending: AppendingScript<Reply>): Promise<Reply> {
    const { script, keys, args, event, usageRecord, outcomeOf } = appending;
    const events = [{ type: event, usageRecord }];
    const reply = await this.#run(userId, script, keys, args, events);
    const outcome = outcomeOf(reply);
    if (outcome !== 'none') this.#observe(events, outcome);
    return reply;
  }

  /** Runs an appending script. If one of its usage records costs units, it waits for the replicas. */
  #run<Reply>(
    userId: string,
    script: LuaScript<Reply>,
    keys: readonly string[],
    args: readonly ScriptArgument[],
    events: readonly WrittenEvent[],
  ): Promise<Reply> {
    const { redis, replicated } = this.#deps;
    const all = [...this.#logArguments(this.#deps.keys.user(userId).channel), ...args];
    const isPaid = events.some(({ usageRecord }) => usageRecord !== undefined && usageRecord.units !== 0);
    return replicated && isPaid ? replicated.run(script, keys, all) : script.run(redis, keys, all);
  }

  /** Returns the first arguments of every appending script: see include/events.lua. */
  #logArguments(channel: string): ScriptArgument[] {
    const { length, maxAgeMs, maxBytes } = this.#bounds;
    const { traceParent = '' } = this.#deps.tracing;
    // The trace is stored with the usage record, for the trace of its ingestion.
    const trace = traceParent !== '' && isSampled(traceParent) ? traceParent : '';
    return [channel, length, maxAgeMs, LOG_STATE_SECONDS, maxBytes, RECENT_USAGE, trace];
  }

  /** Reports the records also when the acknowledgement arrives only with a repetition; counts what was appended. */
  #observe(events: readonly WrittenEvent[], outcome: 'appended' | 'repeated'): void {
    const { metrics, recordObserver } = this.#deps;
    for (const { type, usageRecord } of events) {
      if (usageRecord) recordObserver?.onAcknowledged(usageRecord);
      if (outcome === 'repeated') continue;
      metrics.appends.inc({ type });
      if (usageRecord) metrics.usageRecords.inc({ tool: usageRecord.tool, status: usageRecord.status });
    }
  }
}

interface WrittenEvent {
  readonly type: DurableEventType | 'published';
  readonly usageRecord?: UsageRecord | undefined;
}

/** Returns the keys of the script up to the last one that it needs. */
function appendKeys({ events, run, ends, threadMessage, quotaCommit, reserve }: Append, keys: UserKeys): string[] {
  // Without a run, its key is only a place before the others.
  const all = [keys.log, keys.logState, run ? keys.run(run.runId) : keys.logState];
  const hasRecords = events.some(({ usageRecord, refusal }) => usageRecord ?? refusal);
  const isMore = hasRecords || ends !== undefined || threadMessage !== undefined;
  if (isMore || quotaCommit !== undefined || reserve !== undefined) all.push(keys.quota, keys.reservations);
  else if (!run) all.pop();
  if (isMore) all.push(keys.outbox, keys.recentUsage);
  if (ends ?? threadMessage) all.push(keys.activeRuns, keys.runsInFlight);
  if (threadMessage) all.push(keys.thread(threadMessage.threadId));
  if (isUnsuccessful(ends)) all.push(keys.unsuccessfulRuns);
  return all;
}

/** Returns the arguments after those of the log: see `appendEvents-n.lua`. */
function appendArguments(append: Append): ScriptArgument[] {
  const { userId, events, run, ends, threadMessage, quotaCommit, reserve, hasNoJournal } = append;
  const ending = ends ? `e${isUnsuccessful(ends) ? 'u' : ''}` : '';
  const options = `${reserve ? 'q' : ''}${quotaCommit ? 'c' : ''}${ending}${threadMessage ? 't' : ''}`;
  const args: ScriptArgument[] = [run?.fencingToken ?? '', run?.eventsInLog ?? 0, events.length, options];
  if (reserve) args.push(reserve);
  if (quotaCommit) args.push(quotaCommit);
  if (ends) args.push(STATUS_AFTER[ends], run ? activeRunMember(userId, run.runId) : '', hasNoJournal ? 0 : 1);
  if (isUnsuccessful(ends)) args.push(failureCode(events), UNSUCCESSFUL_RUNS, UNSUCCESSFUL_RUNS_SECONDS);
  if (threadMessage) args.push(JSON.stringify(threadMessage.message), THREAD_MESSAGES, THREAD_BYTES);
  // No worker takes a run over that ends in this step, so it needs no journal.
  for (const event of events) addEventArguments(args, event, run !== undefined && ends === undefined);
  return args;
}

function addEventArguments(args: ScriptArgument[], event: NewEvent, hasJournal: boolean): void {
  const { type, fields, json, usageRecord, refusal } = event;
  const journal = hasJournal ? event.journal : undefined;
  const effects = `${usageRecord ? 'r' : ''}${refusal ? 'x' : ''}${journal ? 'j' : ''}`;
  args.push(type, fields.timestamp, (json ?? JSON.stringify(fields)).slice(1), effects);
  if (usageRecord) args.push(JSON.stringify(usageRecord));
  if (refusal) args.push(JSON.stringify(refusal));
  if (journal) args.push(journal.field, journal.value);
}

function isUnsuccessful(ends: TerminalEventType | undefined): boolean {
  return ends === 'agent_failed' || ends === 'agent_cancelled';
}

/** Returns the error code of the terminal event, which is the last one; "" for a cancelled run. */
function failureCode(events: readonly NewEvent[]): string {
  const error = events.at(-1)?.fields.error;
  return isObject(error) && typeof error.code === 'string' ? error.code : '';
}

/** Returns the member of a run in the set of active runs of its partition. */
export function activeRunMember(userId: string, runId: string): string {
  return `${userId} ${runId}`;
}
