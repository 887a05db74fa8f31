import type { Metrics } from '../lib/metrics.ts';
import { isSampled, type Tracing } from '../lib/tracing.ts';
import type { DurableEventType, Fields, LogEntry, TerminalEventType } from '../protocol/messages.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import type { ReplicatedWrites } from '../redis/replicated-writes.ts';
import { LuaScript, type ScriptArgument, type ScriptReply } from '../redis/scripts.ts';

const appendEvents = LuaScript.load('appendEvents-10');
const readLog = LuaScript.load('readLog-2');

/** A log that is not written to keeps its epoch this long, far longer than its events: a `seq` is never given twice. */
export const LOG_STATE_SECONDS = 90 * 24 * 3_600;

export interface EventLogDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly metrics: Pick<Metrics, 'appends' | 'logReads' | 'usageRecords'>;
  readonly tracing: Pick<Tracing, 'traceParent'>;
}

export interface EventLogOptions {
  /** Events that a log keeps. Redis trims whole nodes of a stream, so that it may keep up to a hundred more. */
  readonly length: number;
  /** Milliseconds that an event is kept. */
  readonly maxAgeMs: number;
  /** Bytes of events that a log keeps; the newest event stays, whatever its size. */
  readonly maxBytes: number;
}

/** An event to append; the log adds `seq`. */
export interface NewEvent {
  readonly type: DurableEventType;
  readonly fields: Fields & { readonly timestamp: string };
  /** The usage record that is written in the same step. */
  readonly usageRecord?: Fields;
  /** Instead of a record, for a tool that was refused: what is counted in the same step. */
  readonly refusal?: Fields;
  /** What the run remembers in the same step, for a worker that takes it over. */
  readonly journal?: { readonly field: string; readonly value: string };
}

/** Who appends: a writer that no longer owns the run is refused. */
export interface RunWriter {
  readonly runId: string;
  /** The epoch under which the writer claimed the run. */
  readonly fencingToken: number;
  /** Events of the run that the writer knows to be in the log. */
  readonly eventsInLog: number;
}

export interface Append {
  readonly userId: string;
  readonly events: readonly NewEvent[];
  readonly run?: RunWriter;
  /** Ends the run with these events. */
  readonly ends?: TerminalEventType;
  /** Adds a message to a thread of the user in the same step. */
  readonly threadMessage?: { readonly threadId: string; readonly message: Fields };
  /** Counts a tool call and gives its place back in the same step: see `Reservation` of policy/quotas.ts. */
  readonly quotaCommit?: string;
}

/**
 * - `appended`, `repeated`: the events are in the log; repeated, because an earlier attempt had put them there.
 * - `fenced`: another worker has the run. - `finished`: the run has its terminal event.
 */
export type AppendResult =
  | { readonly outcome: 'appended' | 'repeated'; readonly seq: number; readonly cancelRequested: boolean }
  | { readonly outcome: 'fenced' | 'finished' };

/** Where a reader stands. */
export interface LogPosition {
  /** The epoch known to the reader; undefined for none. */
  readonly epoch: string | undefined;
  /** The last `seq` that the reader has. */
  readonly after: number;
  /**
   * What this node knows of that event because it delivered it: its timestamp, or "" when it delivered others. Only a
   * node can prove that the log was lost; undefined for a place that a client named.
   */
  readonly delivered: string | undefined;
}

export interface LogPage {
  readonly epoch: string;
  /** The log's last `seq` when the page was read. */
  readonly head: number;
  /** The oldest `seq` that can be read; `head + 1` when there is none. */
  readonly oldest: number;
  readonly entries: readonly LogEntry[];
}

const STATUS_AFTER: Record<TerminalEventType, string> = {
  agent_completed: 'completed',
  agent_failed: 'failed',
  agent_cancelled: 'cancelled',
};

type AppendOptions = [channel: string, length: number, maxAgeMs: number, stateSeconds: number, maxBytes: number];

/** Usage records kept per user for the user's own tools. */
export const RECENT_USAGE = 1_000;
/** Messages kept per thread, and bytes of them: the oldest ones leave first. */
export const THREAD_MESSAGES = 200;
export const THREAD_BYTES = 512 * 1024;

/** Who is told of usage records that Redis has acknowledged. */
export interface RecordObserver {
  onAcknowledged(record: object): void;
}

export interface EventLogDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly metrics: Pick<Metrics, 'appends' | 'logReads' | 'usageRecords'>;
  /** What becomes of the records of paid executions on replicas; without it nothing is waited for. */
  readonly replicated?: ReplicatedWrites | undefined;
  readonly recordObserver?: RecordObserver | undefined;
}

/** The durable events of each user, in order, without holes: one Redis stream a user. Every call is one round trip. */
export class EventLog {
  readonly #deps: EventLogDeps;
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #metrics: EventLogDeps['metrics'];
  readonly #tracing: EventLogDeps['tracing'];
  readonly #options: EventLogOptions;

  constructor(deps: EventLogDeps, options: EventLogOptions) {
    this.#deps = deps;
    this.#redis = deps.redis;
    this.#keys = deps.keys;
    this.#metrics = deps.metrics;
    this.#tracing = deps.tracing;
    this.#options = options;
  }

  /** Appends all of the events or none, publishes them to the nodes that hold the user, and writes their records. */
  async append({ userId, events, run, ends, threadMessage, quotaCommit = '' }: Append): Promise<AppendResult> {
    const keys = this.#keys.user(userId);
    const runKey = run ? keys.run(run.runId) : keys.logState;
    const thread = threadMessage ? keys.thread(threadMessage.threadId) : keys.log;
    const records = events.flatMap(({ usageRecord }) => (usageRecord ? [usageRecord] : []));
    const reply = (await this.write(
      { script: appendEvents, records },
      [
        keys.log,
        keys.logState,
        runKey,
        keys.activeRuns,
        keys.outbox,
        keys.recentUsage,
        thread,
        keys.quota,
        keys.reservations,
        keys.runsInFlight,
      ],
      [
        ...this.appendOptions(userId),
        run ? activeRunMember(userId, run.runId) : '',
        run?.fencingToken ?? '',
        run?.eventsInLog ?? 0,
        ends ? STATUS_AFTER[ends] : '',
        RECENT_USAGE,
        threadMessage ? JSON.stringify(threadMessage.message) : '',
        THREAD_MESSAGES,
        THREAD_BYTES,
        quotaCommit,
        this.recordTrace(),
        ...events.flatMap(eventArguments),
      ],
    )) as [AppendResult['outcome'], number, string, number];
    const [outcome, seq, , cancel] = reply;
    if (outcome === 'fenced' || outcome === 'finished') return { outcome };
    for (const record of records) this.onAcknowledged(record);
    if (outcome === 'appended') for (const { type, usageRecord } of events) this.appended(type, usageRecord);
    return { outcome, seq, cancelRequested: cancel === 1 };
  }

  /** What every script that appends is told: the user's channel, and how much of the log is kept. */
  appendOptions(userId: string): AppendOptions {
    const { length, maxAgeMs, maxBytes } = this.#options;
    return [this.#keys.user(userId).channel, length, maxAgeMs, LOG_STATE_SECONDS, maxBytes];
  }

  /** What stands beside a usage record in its outbox, for the trace of the ledger to name; "" where nobody sees it. */
  recordTrace(): string {
    const { traceParent = '' } = this.#tracing;
    return traceParent !== '' && isSampled(traceParent) ? traceParent : '';
  }

  /** Runs a script that appends, with usage records or without: those that cost something are waited for on replicas. */
  write(
    { script, records }: { readonly script: LuaScript; readonly records: readonly Fields[] },
    keys: readonly string[],
    args: readonly ScriptArgument[],
  ): Promise<ScriptReply> {
    const { replicated } = this.#deps;
    const isPaid = records.some(({ units }) => units !== 0);
    return replicated && isPaid ? replicated.run(script, keys, args) : script.run(this.#redis, keys, args);
  }

  /** A record that is written is known to this process, also when its answer came late, to a repetition. */
  onAcknowledged(record: object): void {
    this.#deps.recordObserver?.onAcknowledged(record);
  }

  /** Counts an event that was appended. */
  appended(type: DurableEventType, record?: Fields): void {
    this.#metrics.appends.inc({ type });
    if (record) this.#metrics.usageRecords.inc({ tool: String(record.tool), status: String(record.status) });
  }

  /**
   * Events after a position, oldest first; none when the log has another epoch by now.
   * @param limit greatest number of entries
   */
  async read(userId: string, position: LogPosition, limit: number): Promise<LogPage> {
    const keys = this.#keys.user(userId);
    const { delivered } = position;
    const isVerifiable = delivered !== undefined;
    this.#metrics.logReads.inc();
    const reply = (await readLog.run(
      this.#redis,
      [keys.log, keys.logState],
      [position.epoch ?? '', position.after, limit, LOG_STATE_SECONDS, isVerifiable ? 1 : 0, delivered ?? ''],
    )) as [string, number, number, ScriptReply[]];
    const [epoch, head, oldest, entries] = reply;
    return { epoch, head, oldest, entries: entries.map((entry) => parseEntry(entry as StreamEntry, epoch)) };
  }
}

function eventArguments({ type, fields, usageRecord, refusal, journal }: NewEvent): string[] {
  return [
    type,
    fields.timestamp,
    JSON.stringify(fields),
    usageRecord ? JSON.stringify(usageRecord) : '',
    refusal ? JSON.stringify(refusal) : '',
    journal?.field ?? '',
    journal?.value ?? '',
  ];
}

/** How a run stands among the active ones of its partition. */
export function activeRunMember(userId: string, runId: string): string {
  return `${userId} ${runId}`;
}

/** What follows the first eight is for the scripts alone. */
type StreamEntry = [
  id: string,
  fields: [string, DurableEventType, string, string, string, string, string, string, ...string[]],
];

function parseEntry([id, [, type, , timestamp, , , , json]]: StreamEntry, epoch: string): LogEntry {
  return { type, seq: Number.parseInt(id, 10), epoch, timestamp, json };
}

/** An event as the append published it: `<epoch> <seq> <type> <timestamp> <fields>`. */
export function parsePublished(payload: string): LogEntry {
  const [epoch = '', seq = '', type = '', timestamp = ''] = payload.split(' ', 4);
  const json = payload.slice(epoch.length + seq.length + type.length + timestamp.length + 4);
  return { type: type as DurableEventType, seq: Number(seq), epoch, timestamp, json };
}
