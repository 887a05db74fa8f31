import type { EventLog } from '../events/event-log.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import { type Keys, PARTITIONS } from '../redis/keys.ts';
import type { Runs } from '../runs/runs.ts';
import type { Threads } from '../threads/threads.ts';
import { cursorOf, otherList, positionOf, UNSUCCESSFUL, unsuccessfulRuns } from './unsuccessful-runs.ts';

/** Messages of a thread that are searched for the one of a run. */
const MESSAGES_SEARCHED = 200;
/** Runs of a user that one page reads at most while it searches for those of a filter. */
const MAX_SEARCHED = 1_000;
const MESSAGE_CHARS = 200;
/** Events of the log that are read for one run; a run has at most a few hundred. */
const MAX_EVENTS = 2_000;
const EVENTS_AT_ONCE = 500;
const FIELDS = [
  'status',
  'agent',
  'thread_id',
  'request_id',
  'transport',
  'message',
  'accepted_at',
  'ended_at',
  'failure',
  'trace',
] as const;

export interface ListedRun {
  readonly run_id: string;
  readonly user_id: string;
  readonly status: string;
  readonly agent: string;
  readonly thread_id: string;
  readonly request_id: string;
  readonly transport: string;
  readonly message: string;
  readonly accepted_at: string;
  readonly ended_at: string | null;
  /** Error code of a failed run. */
  readonly reason: string | null;
  /** Trace in which the run was accepted; null if traces are not recorded. */
  readonly trace_id: string | null;
}

export interface RunFilter {
  readonly agent: string | undefined;
  readonly status: string | undefined;
}

export interface RunPage {
  readonly runs: readonly ListedRun[];
  readonly next: string | null;
}

export interface RunEvent {
  readonly seq: number;
  readonly type: string;
  readonly at: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

export interface RunReaderDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly eventLog: Pick<EventLog, 'read'>;
  readonly runs: Pick<Runs, 'locate'>;
  readonly threads: Pick<Threads, 'history'>;
}

/** Reads runs for operators: those of a user, those that need attention, and the events of one. */
export class RunReader {
  readonly #deps: RunReaderDeps;

  constructor(deps: RunReaderDeps) {
    this.#deps = deps;
  }

  /** Lists the runs of a user, newest first. @throws RedisUnavailable */
  async ofUser(userId: string, filter: RunFilter, limit: number, cursor: string | undefined): Promise<RunPage> {
    const { redis, keys } = this.#deps;
    const found: ListedRun[] = [];
    let offset = Number(cursor ?? 0);
    if (Number.isNaN(offset)) throw otherList();
    for (const end = offset + MAX_SEARCHED; offset < end; ) {
      const ids = await mapRedisErrors(redis.zrevrange(keys.user(userId).runs, offset, offset + limit - 1));
      const runs = await Promise.all(ids.map((id) => this.read(userId, id)));
      for (const run of runs) {
        offset += 1;
        if (run && matches(run, filter)) found.push(run);
        if (found.length === limit) return { runs: found, next: String(offset) };
      }
      if (ids.length < limit) return { runs: found, next: null };
    }
    return { runs: found, next: String(offset) };
  }

  /**
   * Lists the runs of all users that have not ended, then those that failed or were cancelled, the latest first.
   * @throws RedisUnavailable
   */
  async ofAll(filter: RunFilter, limit: number, cursor: string | undefined): Promise<RunPage> {
    const { status } = filter;
    if (status === 'completed') return { runs: [], next: null };
    const isUnsuccessful = status === 'failed' || status === 'cancelled';
    if (isUnsuccessful || cursor?.startsWith(UNSUCCESSFUL)) return this.#unsuccessful(filter, limit, cursor);
    const active = await this.#active(filter, limit, cursor);
    if (status !== undefined || active.next !== null) return active;
    if (active.runs.length === limit) return { ...active, next: UNSUCCESSFUL };
    const ended = await this.#unsuccessful(filter, limit - active.runs.length, undefined);
    return { runs: [...active.runs, ...ended.runs], next: ended.next };
  }

  async #active(filter: RunFilter, limit: number, cursor: string | undefined): Promise<RunPage> {
    const { redis, keys } = this.#deps;
    const found: ListedRun[] = [];
    const [first = '0', from = '0'] = (cursor ?? '').split('-');
    let offset = Number(from);
    for (let partition = Number(first); partition < PARTITIONS; partition += 1) {
      const members = await mapRedisErrors(
        redis.zrange(keys.activeRuns(partition), String(offset), String(offset + limit - 1)),
      );
      const runs = await Promise.all(members.map((member) => this.#readMember(member)));
      for (const run of runs) {
        offset += 1;
        if (run && matches(run, filter)) found.push(run);
        if (found.length === limit) return { runs: found, next: `${partition}-${offset}` };
      }
      if (members.length === limit) return { runs: found, next: `${partition}-${offset}` };
      offset = 0;
    }
    return { runs: found, next: null };
  }

  async #unsuccessful(filter: RunFilter, limit: number, cursor: string | undefined): Promise<RunPage> {
    const found: ListedRun[] = [];
    let position = positionOf(cursor);
    for (let searched = 0; searched < MAX_SEARCHED; ) {
      const entries = await unsuccessfulRuns(this.#deps, position, limit);
      const runs = await Promise.all(entries.map(({ member }) => this.#readMember(member)));
      for (const [index, { at }] of entries.entries()) {
        const run = runs[index];
        position = { at, skip: at === position.at ? position.skip + 1 : 1 };
        if (run && matches(run, filter)) found.push(run);
        if (found.length === limit) return { runs: found, next: cursorOf(position) };
      }
      if (entries.length < limit) return { runs: found, next: null };
      searched += entries.length;
    }
    return { runs: found, next: cursorOf(position) };
  }

  /** Returns undefined for a run that is not stored. @throws RedisUnavailable */
  async read(userId: string, runId: string): Promise<ListedRun | undefined> {
    const values = await mapRedisErrors(this.#deps.redis.hmget(this.#deps.keys.user(userId).run(runId), ...FIELDS));
    const [status, agent, threadId, requestId, transport, message, acceptedAt, endedAt, failure, trace] = values;
    if (!status) return undefined;
    return {
      run_id: runId,
      user_id: userId,
      status,
      agent: agent ?? '',
      thread_id: threadId ?? '',
      request_id: requestId ?? '',
      transport: transport ?? '',
      message: shortened(message ?? (await this.message(userId, runId, threadId ?? '')) ?? ''),
      accepted_at: new Date(Number(acceptedAt)).toISOString(),
      ended_at: endedAt ? new Date(Number(endedAt)).toISOString() : null,
      reason: failure ?? null,
      trace_id: trace?.split('-')[1] ?? null,
    };
  }

  /**
   * Returns the message that started a run. A run that has ended no longer stores it, but its thread does.
   * @returns undefined if the thread no longer has it among its latest 200 messages
   */
  async message(userId: string, runId: string, threadId: string): Promise<string | undefined> {
    const page = { threadId, before: undefined, limit: MESSAGES_SEARCHED };
    const { messages } = await this.#deps.threads.history(userId, page);
    const message = messages.find(({ role, run_id }) => role === 'user' && run_id === runId);
    return typeof message?.text === 'string' ? message.text : undefined;
  }

  /**
   * Reads the events of a run from the log of its user.
   * @returns `complete` is false if the log no longer has the first event, or the run has more than 2,000
   * @throws RedisUnavailable
   */
  async events(userId: string, runId: string): Promise<{ events: RunEvent[]; complete: boolean }> {
    const located = await this.#deps.runs.locate(userId, { runId });
    if (!located) return { events: [], complete: false };
    const { epoch, oldest, endedAtSeq } = located;
    let { after } = located;
    const events: RunEvent[] = [];
    const isTrimmed = oldest > after + 1;
    for (let read = 0; read < MAX_EVENTS; read += EVENTS_AT_ONCE) {
      const position = { epoch, after: Math.max(after, oldest - 1), delivered: undefined };
      const { entries, head } = await this.#deps.eventLog.read(userId, position, EVENTS_AT_ONCE);
      for (const { seq, type, timestamp, json } of entries) {
        const fields = JSON.parse(json) as Record<string, unknown>;
        if (fields.run_id === runId) events.push({ seq, type, at: timestamp, fields });
      }
      after = entries.at(-1)?.seq ?? head;
      if (after >= Math.min(head, endedAtSeq ?? head)) return { events, complete: !isTrimmed };
    }
    return { events, complete: false };
  }

  #readMember(member: string): Promise<ListedRun | undefined> {
    const space = member.lastIndexOf(' ');
    return this.read(member.slice(0, space), member.slice(space + 1));
  }
}

function shortened(message: string): string {
  return message.slice(0, MESSAGE_CHARS).toWellFormed();
}

function matches(run: ListedRun, { agent, status }: RunFilter): boolean {
  return (agent === undefined || run.agent === agent) && (status === undefined || run.status === status);
}
