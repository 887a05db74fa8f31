import type { Metrics } from '../lib/metrics.ts';
import { isSampled, type Tracing } from '../lib/tracing.ts';
import type { DurableEventType, Fields, LogEntry, TerminalEventType } from '../protocol/messages.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import type { ReplicatedWrites } from '../redis/replicated-writes.ts';
import { LuaScript, type ScriptArgument, type ScriptReply } from '../redis/scripts.ts';

const appendEvents = LuaScript.load('appendEvents-10');
const readLog = LuaScript.load('readLog-2');

/**
 * Lifetime of the log epoch of an unused log. It is far longer than that of the events, so that no `seq` is assigned
 * twice.
 */
export const LOG_STATE_SECONDS = 90 * 24 * 3_600;

export interface EventLogOptions {
  /** Maximum number of events per log. Redis trims whole nodes of a stream, so a log may keep up to 100 more. */
  readonly length: number;
  /** Maximum age of an event, in milliseconds. */
  readonly maxAgeMs: number;
  /** Maximum size of a log, in bytes. The newest event always stays. */
  readonly maxBytes: number;
}

/** An event to append; the log assigns `seq`. */
export interface NewEvent {
  readonly type: DurableEventType;
  readonly fields: Fields & { readonly timestamp: string };
  /** The usage record that the same step writes. */
  readonly usageRecord?: Fields;
  /** The refusal that the same step counts, instead of a record, for a tool call that was denied. */
  readonly refusal?: Fields;
  /** The journal entry that the same step stores with the run, for a worker that takes it over. */
  readonly journal?: { readonly field: string; readonly value: string };
}

/** The run that the events belong to. The log rejects a writer that no longer owns the run. */
export interface RunWriter {
  readonly runId: string;
  /** The fencing token of the claim. */
  readonly fencingToken: number;
  /** Number of events of the run that the writer knows to be in the log. */
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
  /** Commits the reservation of a tool call in the same step: see `Reservation` in src/limits/quotas.ts. */
  readonly quotaCommit?: string;
}

/**
 * - `appended`: the events are in the log.
 * - `repeated`: an earlier attempt had already appended them.
 * - `fenced`: another worker owns the run.
 * - `finished`: the run already has its terminal event.
 */
export type AppendResult =
  | { readonly outcome: 'appended' | 'repeated'; readonly seq: number; readonly cancelRequested: boolean }
  | { readonly outcome: 'fenced' | 'finished' };

/** The position of a reader. */
export interface LogPosition {
  /** The log epoch that the reader knows; undefined for none. */
  readonly epoch: string | undefined;
  /** The last `seq` that the reader received. */
  readonly after: number;
  /**
   * Timestamp of the event at `after`, if this node delivered it; "" if it delivered other events. Undefined for a
   * position that a client named, because only a node can prove that the log lost events.
   */
  readonly delivered: string | undefined;
}

export interface LogPage {
  readonly epoch: string;
  /** The log's last `seq` when the page was read. */
  readonly head: number;
  /** The oldest `seq` in the log; `head + 1` when it is empty. */
  readonly oldest: number;
  readonly entries: readonly LogEntry[];
}

const STATUS_AFTER: Record<TerminalEventType, string> = {
  agent_completed: 'completed',
  agent_failed: 'failed',
  agent_cancelled: 'cancelled',
};

type AppendOptions = [channel: string, length: number, maxAgeMs: number, stateSeconds: number, maxBytes: number];

/** Number of usage records kept per user, for the user's own tools. */
export const RECENT_USAGE = 1_000;
/** Maximum number of messages and bytes per thread. The oldest messages are removed first. */
export const THREAD_MESSAGES = 200;
export const THREAD_BYTES = 512 * 1024;

/** Observes the usage records that Redis acknowledged. */
export interface RecordObserver {
  onAcknowledged(record: object): void;
}

export interface EventLogDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly metrics: Pick<Metrics, 'appends' | 'logReads' | 'usageRecords'>;
  readonly tracing: Pick<Tracing, 'traceParent'>;
  /** Waits for replicas to acknowledge the records of paid executions; without it, replication is not awaited. */
  readonly replicated?: ReplicatedWrites | undefined;
  readonly recordObserver?: RecordObserver | undefined;
}

/**
 * The event logs: durable events per user, ordered and without gaps, in one Redis stream per user. Every call is one
 * round trip.
 */
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

  /**
   * Appends all of the events or none. The same step publishes them to the nodes that serve the user and writes their
   * records.
   */
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

  /** Returns the arguments that every appending script takes: the user channel and the bounds of the log. */
  appendOptions(userId: string): AppendOptions {
    const { length, maxAgeMs, maxBytes } = this.#options;
    return [this.#keys.user(userId).channel, length, maxAgeMs, LOG_STATE_SECONDS, maxBytes];
  }

  /**
   * Returns the trace parent to store next to a usage record in its outbox, for the trace of the ingestion; "" when the
   * trace is not sampled.
   */
  recordTrace(): string {
    const { traceParent = '' } = this.#tracing;
    return traceParent !== '' && isSampled(traceParent) ? traceParent : '';
  }

  /** Runs an appending script. If one of its usage records costs units, it waits for the replicas. */
  write(
    { script, records }: { readonly script: LuaScript; readonly records: readonly Fields[] },
    keys: readonly string[],
    args: readonly ScriptArgument[],
  ): Promise<ScriptReply> {
    const { replicated } = this.#deps;
    const isPaid = records.some(({ units }) => units !== 0);
    return replicated && isPaid ? replicated.run(script, keys, args) : script.run(this.#redis, keys, args);
  }

  /** Notifies the observer of a written record, also when the acknowledgement arrives only with a repetition. */
  onAcknowledged(record: object): void {
    this.#deps.recordObserver?.onAcknowledged(record);
  }

  /** Counts an appended event in the metrics; those of services count together, because they choose the type. */
  appended(type: DurableEventType | 'published', record?: Fields): void {
    this.#metrics.appends.inc({ type });
    if (record) this.#metrics.usageRecords.inc({ tool: String(record.tool), status: String(record.status) });
  }

  /**
   * Reads the events after a position, oldest first. There are none when the log has another log epoch.
   * @param limit maximum number of entries
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

/** Returns the member of a run in the set of active runs of its partition. */
export function activeRunMember(userId: string, runId: string): string {
  return `${userId} ${runId}`;
}

/** A stream entry. The fields after the first eight are for the scripts only. */
type StreamEntry = [
  id: string,
  fields: [string, LogEntry['type'], string, string, string, string, string, string, ...string[]],
];

function parseEntry([id, [, type, , timestamp, , , , json]]: StreamEntry, epoch: string): LogEntry {
  return { type, seq: Number.parseInt(id, 10), epoch, timestamp, json };
}

/** Parses an event as the append script publishes it: `<epoch> <seq> <type> <timestamp> <fields>`. */
export function parsePublished(payload: string): LogEntry {
  const [epoch = '', seq = '', type = '', timestamp = ''] = payload.split(' ', 4);
  const json = payload.slice(epoch.length + seq.length + type.length + timestamp.length + 4);
  return { type: type as LogEntry['type'], seq: Number(seq), epoch, timestamp, json };
}
