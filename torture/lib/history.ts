import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';

/** Milliseconds since the start of the round. */
type At = { readonly at: number };

/**
 * `chat`, `ag-ui` and `ask` start runs as `run` does, and `mcp` calls a tool as `tool` does. `ask` starts a run that asks
 * its user, and `answer` answers it. `plan` and `revoke` are admin actions, `message` is a message of a user whose plan
 * allows few, `thread` creates and reads a thread, and `rude` is a connection that breaks the protocol.
 */
export type OperationName =
  | 'run'
  | 'chat'
  | 'ag-ui'
  | 'ask'
  | 'answer'
  | 'tool'
  | 'mcp'
  | 'usage'
  | 'cancel'
  | 'plan'
  | 'revoke'
  | 'message'
  | 'thread'
  | 'rude';

/** An operation that a client has begun. */
export interface Invoked extends At {
  readonly t: 'invoked';
  readonly id: number;
  readonly op: OperationName;
  readonly user: string;
  readonly client: string;
  /** Request id of a run, idempotency key of a tool call, id of an input request, user or session of an admin action. */
  readonly key: string;
  /** Action of an answer, name of a plan. */
  readonly value?: string | undefined;
}

/** What the client knows about the end of an operation. `unknown`: it got no answer, so both outcomes are possible. */
interface EndedAs<T> extends At {
  readonly t: T;
  readonly id: number;
  /** Error code of `failed` and `unknown`. */
  readonly code?: string;
  readonly runId?: string;
  /** Type of the terminal event that the client received. */
  readonly end?: string;
  readonly callId?: string;
  readonly success?: boolean;
  /** Of an answer: whether the gateway had it already. */
  readonly repeated?: boolean;
}

export type Ended = EndedAs<'ok'> | EndedAs<'failed'> | EndedAs<'unknown'>;

/** A run that the gateway has accepted for a request id, as the client received it. */
export interface Accepted extends At {
  readonly t: 'accepted';
  readonly id: number;
  readonly runId: string;
}

/** A connection has opened. `after` is the position from which it resumes, otherwise that of its welcome. */
export interface Opened extends At {
  readonly t: 'opened';
  readonly connection: string;
  readonly user: string;
  readonly after: number;
  readonly epoch: string;
}

/** A durable event as it arrived on a connection, before any filter of the client. */
export interface Delivered extends At {
  readonly t: 'event';
  readonly connection: string;
  readonly user: string;
  readonly seq: number;
  readonly eventId: string;
  readonly eventUser: string;
  /** Redis may have lost the event after its delivery; see losses.ts. */
  readonly uncertain?: true;
}

/** The gateway answered `resume_failed`: the log no longer has what the client asked for. */
export interface Lost extends At {
  readonly t: 'lost';
  readonly connection: string;
  readonly user: string;
  readonly reason: string;
}

export interface FaultStarted extends At {
  readonly t: 'fault';
  readonly id: number;
  readonly kind: string;
  readonly target: string;
}

/** The fault has ended; what it broke may still recover. */
export interface FaultHealed extends At {
  readonly t: 'healed';
  readonly id: number;
}

/** Connections of a user between `from` and `at`, as the admin API lists them. */
export interface CapSample extends At {
  readonly t: 'cap';
  readonly user: string;
  readonly from: number;
  readonly connections: number;
}

/** The connection cap of a user in each plan that the user has during the round. The first plan is that of the token. */
export interface UserCaps {
  readonly t: 'caps';
  readonly user: string;
  readonly plan: string;
  readonly caps: Readonly<Record<string, number>>;
}

/** Calls of a tool per day that the plan of a user includes, if the round did not pass midnight (UTC). */
export interface UserQuota {
  readonly t: 'quota';
  readonly user: string;
  readonly calls: number;
}

/** Messages per minute that the plan of a user allows. */
export interface UserMessages {
  readonly t: 'messages';
  readonly user: string;
  readonly perMinute: number;
}

/** A request with the token of a session that a gateway served, from its begin on. */
export interface Served extends At {
  readonly t: 'served';
  readonly session: string;
  readonly from: number;
  readonly via: 'connection' | 'handshake' | 'http';
  /** Name of the gateway, as in faults. */
  readonly node: string;
}

/** The messages of the threads that a user has created, at the end. */
export interface UserThreads {
  readonly t: 'threads';
  readonly user: string;
  /** Runs whose messages may be lost; see losses.ts. */
  readonly uncertain?: readonly string[];
  readonly threads: readonly {
    readonly id: string;
    readonly messages: readonly { readonly role: string; readonly runId: string | null }[];
  }[];
}

export interface LoggedEvent {
  readonly seq: number;
  readonly type: string;
  readonly eventId: string;
  readonly user: string;
  readonly runId?: string;
  readonly requestId?: string;
  readonly callId?: string;
  readonly success?: boolean;
  readonly recordId?: string;
  readonly threadId?: string;
  /** Of `input_requested`, `input_received` and `input_expired`. */
  readonly inputId?: string;
  readonly action?: string;
  readonly toolName?: string;
}

/** The whole event log of a user, by replay at the end. */
export interface UserLog {
  readonly t: 'log';
  readonly user: string;
  readonly epoch: string;
  readonly events: readonly LoggedEvent[];
}

/** `usage_summary` of a user at the end. */
export interface UserUsage {
  readonly t: 'usage';
  readonly user: string;
  /** Charged units of the calendar month `period`, YYYY-MM. */
  readonly units: number;
  readonly period: string;
}

export interface BilledRecord {
  readonly id: string;
  readonly sequence: number;
  readonly user: string;
  readonly tool: string;
  readonly status: string;
  readonly units: number;
  readonly period: string;
  readonly runId: string | null;
  readonly key: string | null;
}

/** The whole ledger at the end, and what `/v1/usage/verify` answered. */
export interface LedgerPulled {
  readonly t: 'ledger';
  readonly records: readonly BilledRecord[];
  /** Records of calls whose events may be lost, or differ; see losses.ts. */
  readonly unnamed?: readonly string[];
  readonly verified: { readonly ok: boolean; readonly checked: number; readonly problem: unknown };
}

/** Idempotency keys of the calls that the tool server has executed, once per execution. */
export interface Executions {
  readonly t: 'executions';
  readonly keys: readonly string[];
  /** Keys of operations whose outcome may be lost; see losses.ts. Their executions are not among `keys`. */
  readonly uncertain?: readonly string[];
}

/** A resource at the end, beside its value before the first operation. */
export interface Resource {
  readonly t: 'resource';
  readonly name: string;
  readonly before: number;
  readonly after: number;
  /** What may remain beyond `before`, for resources that vary. */
  readonly slack?: number;
}

/** A process of the product ended by itself or printed an unhandled error. */
export interface ProcessFailed {
  readonly t: 'process';
  readonly what: string;
}

/** The last line: a history without it is incomplete. */
export interface Finished {
  readonly t: 'finished';
  readonly users: readonly string[];
}

export type HistoryLine =
  | Invoked
  | Ended
  | Accepted
  | Opened
  | Delivered
  | Lost
  | FaultStarted
  | FaultHealed
  | CapSample
  | UserCaps
  | UserQuota
  | UserMessages
  | Served
  | UserThreads
  | UserLog
  | UserUsage
  | LedgerPulled
  | Executions
  | Resource
  | ProcessFailed
  | Finished;

/** A line without its time. */
export type Timed<Line extends HistoryLine = HistoryLine> = Line extends At ? Omit<Line, 'at'> : never;

/** Lines that are written at once: a crash of the recorder loses the rest. */
const BUFFERED_LINES = 200;

/** Writes the history of a round to a file, one JSON object per line. */
export class Recorder {
  readonly #file: string;
  readonly #startedAt = performance.now();
  #operations = 0;
  #buffer: string[] = [];

  constructor(file: string) {
    this.#file = file;
    writeFileSync(file, '');
  }

  now(): number {
    return Math.round(performance.now() - this.#startedAt);
  }

  /** Records something that happens now. */
  add(line: Timed): void {
    this.write({ ...line, at: this.now() } as HistoryLine);
  }

  /** Records the begin of an operation, and returns its id. */
  invoke(operation: Omit<Invoked, 't' | 'id' | 'at'>): number {
    this.#operations += 1;
    this.add({ t: 'invoked', id: this.#operations, ...operation });
    return this.#operations;
  }

  write(line: HistoryLine): void {
    this.#buffer.push(JSON.stringify(line));
    if (this.#buffer.length >= BUFFERED_LINES) this.flush();
  }

  flush(): void {
    if (this.#buffer.length > 0) appendFileSync(this.#file, `${this.#buffer.join('\n')}\n`);
    this.#buffer = [];
  }
}

export function readHistory(file: string): HistoryLine[] {
  const lines = readFileSync(file, 'utf8').split('\n');
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as HistoryLine);
}

/** Returns the lines of one kind, in their order. */
export function linesOf<T extends HistoryLine['t']>(
  history: readonly HistoryLine[],
  kind: T,
): Extract<HistoryLine, { readonly t: T }>[] {
  return history.filter((line): line is Extract<HistoryLine, { readonly t: T }> => line.t === kind);
}
