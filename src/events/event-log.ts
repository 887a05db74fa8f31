import type { Metrics } from '../lib/metrics.ts';
import type { LogEntry } from '../protocol/messages.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import { integer, list, text, tuple } from '../redis/replies.ts';
import { LuaScript } from '../redis/scripts.ts';

/** A stream entry: its id, and field, value, … The fields after the first eight are for the scripts only. */
const streamEntry = tuple([text, tuple([text, text, text, text, text, text, text, text], text)]);
const readLog = LuaScript.load('readLog-2', tuple([text, integer, integer, list(streamEntry)]));

/**
 * Lifetime of the log epoch of an unused log. It is far longer than that of the events, so that no `seq` is assigned
 * twice.
 */
export const LOG_STATE_SECONDS = 90 * 24 * 3_600;

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

export interface EventLogDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly metrics: Pick<Metrics, 'logReads'>;
}

/**
 * Reads the event logs: durable events per user, ordered and without gaps, in one Redis stream per user.
 * `UserLogWriter` appends to them.
 */
export class EventLog {
  readonly #deps: EventLogDeps;

  constructor(deps: EventLogDeps) {
    this.#deps = deps;
  }

  /**
   * Reads the events after a position, oldest first, in one round trip. There are none when the log has another log
   * epoch.
   * @param limit maximum number of entries
   */
  async read(userId: string, position: LogPosition, limit: number): Promise<LogPage> {
    const { redis, keys, metrics } = this.#deps;
    const { log, logState } = keys.user(userId);
    const { delivered } = position;
    const isVerifiable = delivered !== undefined;
    metrics.logReads.inc();
    const [epoch, head, oldest, entries] = await readLog.run(
      redis,
      [log, logState],
      [position.epoch ?? '', position.after, limit, LOG_STATE_SECONDS, isVerifiable ? 1 : 0, delivered ?? ''],
    );
    return { epoch, head, oldest, entries: entries.map((entry) => parseEntry(entry, epoch)) };
  }
}

type StreamEntry = typeof streamEntry extends (value: unknown) => value is infer T ? T : never;

function parseEntry([id, [, type, , timestamp, , , , json]]: StreamEntry, epoch: string): LogEntry {
  return { type, seq: Number.parseInt(id, 10), epoch, timestamp, json };
}

/** Parses an event as the append script publishes it: `<epoch> <seq> <type> <timestamp> <fields>`. */
export function parsePublished(payload: string): LogEntry {
  const [epoch = '', seq = '', type = '', timestamp = ''] = payload.split(' ', 4);
  const json = payload.slice(epoch.length + seq.length + type.length + timestamp.length + 4);
  return { type, seq: Number(seq), epoch, timestamp, json };
}
