import type { Clock } from '../lib/clock.ts';
import { unreservedCommit } from '../limits/quotas.ts';
import type { Fields } from '../protocol/messages.ts';
import type { UsageStatus } from '../protocol/usage.ts';
import type { Billing } from '../tools/outcome.ts';
import { usageRecord } from '../usage/records.ts';
import type { RemoteEventType } from './run-append.ts';
import type { RunLog } from './run-log.ts';
import { TEXT_WINDOW_MS } from './step-log.ts';
import { type ClaimedRun, STEP_PREFIX } from './stored-run.ts';

/** Maximum length of buffered text, in characters. */
const TEXT_LENGTH = 4_000;
/** Journal entry with the position of the turn. */
const ENTRY = 'remote';

/** Tokens that a remote agent reported for a turn. */
export interface ReportedTokens {
  readonly input: number;
  readonly output: number;
}

/** What a worker that takes over the run needs to know about the turn. */
interface StoredTurn {
  /** First step of the current attempt. */
  readonly from: number;
  /** Latest step; 0 before the first. */
  readonly step: number;
  /** Whether the latest step has ended, so that further text begins another one. */
  readonly ended: boolean;
  /** Position in the stream of the remote agent, in the form of its kind. */
  readonly cursor?: unknown;
}

/** Writes the events of an agent that another server runs. Its methods must not be called concurrently. */
export interface RemoteTurn {
  /** Whether an earlier worker may have sent the task. */
  readonly takenOver: boolean;
  /** The position that an earlier worker stored last; undefined if it stored none. */
  readonly cursor: unknown;
  /** Number of events of the agent in the log, for `resume`. */
  readonly position: number;
  /**
   * Continues the attempt of the earlier worker after `cursor`.
   * @param position of the cursor, if events that follow it are emitted again; default: all events in the log
   */
  resume(position?: number): void;
  /** Begins another attempt after a takeover. Text of the earlier attempt is replaced. */
  restart(): void;
  /** Stores a position before the first event. One round trip. */
  save(cursor: unknown): Promise<void>;
  /** Appends a part of a message. @param cursor position after this part, stored together with its event */
  text(delta: string, cursor?: unknown): Promise<void>;
  reasoning(delta: string, cursor?: unknown): Promise<void>;
  /** Ends the message; further text begins another step. Writes nothing. */
  endMessage(cursor?: unknown): void;
  /** Appends another event, after all text. */
  event(type: RemoteEventType, fields: Fields, cursor?: unknown): Promise<void>;
  /** Appends the buffered text. */
  flush(): Promise<void>;
  /** Builds the usage record of the turn. @param tokens undefined if the agent reported none */
  billing(turn: BilledTurn): Billing;
}

export interface BilledTurn {
  readonly status: UsageStatus;
  readonly units: number;
  readonly tokens: ReportedTokens | undefined;
}

/**
 * Text and reasoning are appended four times per second at most, and at once after a pause, also if nothing follows. An
 * append stores the position that belongs to it in the run, in the same script: a worker that takes over continues with
 * the first part of the stream that is not in the log.
 */
export class RemoteLog implements RemoteTurn {
  readonly takenOver: boolean;
  readonly #log: RunLog;
  readonly #clock: Clock;
  readonly #run: ClaimedRun;
  readonly #stored: StoredTurn | undefined;
  readonly #startedAt: number;
  #from = 1;
  #step = 0;
  #ended = true;
  #cursor: unknown;
  /** Steps of an earlier attempt whose text does not count any more. */
  #replaces: number[] = [];
  #kind: 'agent_thinking' | 'agent_reasoning' = 'agent_thinking';
  #buffered = '';
  #lastEventAt = 0;
  #cancelTimer: (() => void) | undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor({ log, clock }: { log: RunLog; clock: Clock }, run: ClaimedRun) {
    this.#log = log;
    this.#clock = clock;
    this.#run = run;
    this.#startedAt = clock.now();
    // An earlier worker sends the task after `agent_started` only.
    this.takenOver = run.previousToken > 0 && run.events > 0;
    const stored = run.steps.get(ENTRY);
    this.#stored = stored === undefined ? undefined : JSON.parse(stored);
  }

  get cursor(): unknown {
    return this.#stored?.cursor;
  }

  get position(): number {
    return this.#log.emitted;
  }

  resume(position?: number): void {
    this.#log.skipReplayed(position === undefined ? undefined : position - this.#log.emitted);
    const { from = 1, step = 0, ended = true, cursor } = this.#stored ?? {};
    this.#from = from;
    this.#step = step;
    this.#ended = ended;
    this.#cursor = cursor;
  }

  restart(): void {
    this.#log.skipReplayed();
    const { from = 1, step = 0 } = this.#stored ?? {};
    this.#replaces = Array.from({ length: step - from + 1 }, (_, at) => from + at);
    this.#step = step;
    this.#from = step + 1;
  }

  async save(cursor: unknown): Promise<void> {
    this.#cursor = cursor;
    await this.#log.journal(this.#entry());
  }

  text(delta: string, cursor?: unknown): Promise<void> {
    return this.#add('agent_thinking', delta, cursor);
  }

  reasoning(delta: string, cursor?: unknown): Promise<void> {
    return this.#add('agent_reasoning', delta, cursor);
  }

  endMessage(cursor?: unknown): void {
    // The buffered part still belongs to the message. Its append is in order before all that follow.
    if (this.#buffered !== '') void this.#appendBuffered();
    this.#ended = true;
    this.#cursor = cursor ?? this.#cursor;
  }

  async event(type: RemoteEventType, fields: Fields, cursor?: unknown): Promise<void> {
    await this.flush();
    this.#cursor = cursor ?? this.#cursor;
    await this.#append(type, fields);
  }

  async flush(): Promise<void> {
    if (this.#buffered !== '') await this.#appendBuffered();
    this.#throwFailure();
  }

  billing({ status, units, tokens }: BilledTurn): Billing {
    const { userId, runId, threadId, requestId, transport, caller, acceptedAt, agent } = this.#run;
    const reported = tokens && { units_by_kind: { input_tokens: tokens.input, output_tokens: tokens.output } };
    const record = usageRecord({
      callId: 'agent',
      user_id: userId,
      plan: caller.plan,
      tool: `agent:${agent}`,
      permission: 'basic',
      status,
      units,
      ...(reported ? { ...reported, reported: true } : {}),
      run_id: runId,
      thread_id: threadId,
      request_id: requestId,
      idempotency_key: null,
      transport,
      acceptedAt,
      startedAt: this.#startedAt,
      completedAt: this.#clock.now(),
    });
    return { record, quotaCommit: unreservedCommit({ units: record.units, completedAt: record.completed_at }) };
  }

  async #add(kind: 'agent_thinking' | 'agent_reasoning', delta: string, cursor: unknown): Promise<void> {
    this.#throwFailure();
    if (delta === '') {
      this.#cursor = cursor ?? this.#cursor;
      return;
    }
    if (kind !== this.#kind) await this.flush();
    this.#kind = kind;
    this.#buffered += delta;
    this.#cursor = cursor ?? this.#cursor;
    const waitMs = this.#lastEventAt + TEXT_WINDOW_MS - this.#clock.now();
    if (waitMs <= 0 || this.#buffered.length >= TEXT_LENGTH) await this.flush();
    else this.#cancelTimer ??= this.#clock.after(waitMs, () => void this.#appendBuffered());
  }

  /** Never rejects: the failure is thrown by the next call of the agent. */
  async #appendBuffered(): Promise<void> {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    const text = this.#buffered;
    if (text === '') return;
    this.#buffered = '';
    const field = this.#kind === 'agent_thinking' ? 'thought' : 'reasoning';
    try {
      await this.#appendPart(this.#kind, (step) => ({ [field]: text, ...step }));
    } catch (error) {
      this.#failure ??= { error };
    }
  }

  /** Appends a part of the current step, or the first one of the next step. */
  #appendPart(type: RemoteEventType, fieldsOf: (step: Fields) => Fields): Promise<void> {
    const appends: Promise<void>[] = [];
    if (this.#ended) {
      this.#ended = false;
      this.#step += 1;
      const replaced = this.#replaces.splice(0);
      const last = replaced.pop();
      // One event replaces one step.
      for (const one of replaced) {
        appends.push(this.#append('agent_thinking', { thought: '', step: this.#step, replaces_step: one }));
      }
      const step = { step: this.#step, ...(last === undefined ? {} : { replaces_step: last }) };
      appends.push(this.#append(type, fieldsOf(step), true));
    } else appends.push(this.#append(type, fieldsOf({ step: this.#step })));
    return Promise.all(appends).then(() => undefined);
  }

  #append(type: RemoteEventType, fields: Fields, isFirst = false): Promise<void> {
    this.#lastEventAt = this.#clock.now();
    const stores = isFirst || this.#cursor !== undefined;
    return this.#log.remoteEvent(type, fields, stores ? { journal: this.#entry() } : {});
  }

  #entry() {
    const turn: StoredTurn = { from: this.#from, step: this.#step, ended: this.#ended, cursor: this.#cursor };
    return { field: STEP_PREFIX + ENTRY, value: JSON.stringify(turn) };
  }

  #throwFailure(): void {
    if (this.#failure) throw this.#failure.error;
  }
}
