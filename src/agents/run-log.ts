import type { Append, EventLog, NewEvent } from '../events/event-log.ts';
import type { Clock } from '../lib/clock.ts';
import { newId } from '../lib/ids.ts';
import { publicError, type TollgateError } from '../protocol/errors.ts';
import { type DurableEventType, type Fields, isTerminalEvent } from '../protocol/messages.ts';
import { whileAway } from '../redis/errors.ts';
import type { Refusal, UsageRecord } from '../usage/records.ts';
import { type ClaimedRun, JOURNAL_PREFIX } from './runs.ts';

/** The run belongs to somebody else now, or has ended: whoever gets this stops without another word. */
export class RunLost extends Error {
  constructor(outcome: 'fenced' | 'finished') {
    super(`the run was ${outcome}`);
    this.name = 'RunLost';
  }
}

/** A tool call's outcome as the run remembers it. */
export interface ToolOutcome {
  readonly success: boolean;
  readonly result?: unknown;
  readonly error?: Fields;
  readonly duration_ms: number;
  readonly usage_record_id: string | null;
}

/** What an execution is written down with: its record, and the use that it counts; "" where it counts none. */
export interface Billing {
  readonly record: UsageRecord;
  readonly settlement: string;
}

export interface RunAnswer {
  readonly final_response: string;
  readonly summary: string;
}

/** Longer than a run may take: by then a sweep has ended it. */
export const OUTAGE_PATIENCE_MS = 60_000;

/**
 * The events of one run, written by the worker that claimed it.
 *
 * A worker that takes a run over runs the agent again from its beginning: tool results come from the run's journal, and
 * the events that are in the log already are passed over, so that clients see one uninterrupted sequence.
 */
export class RunLog {
  readonly #log: EventLog;
  readonly #clock: Clock;
  readonly #run: ClaimedRun;
  readonly #asked: () => void;
  readonly #startedAt: number;
  readonly #toolsUsed = new Set<string>();
  /** Events that this worker has emitted or passed over. */
  #emitted = 0;
  #steps = 0;
  #ended = false;
  #last: Promise<void> = Promise.resolve();

  /** @param cancelRequested called when an append brings word that the run is to be cancelled */
  constructor(deps: { log: EventLog; clock: Clock }, run: ClaimedRun, cancelRequested: () => void) {
    this.#log = deps.log;
    this.#clock = deps.clock;
    this.#run = run;
    this.#asked = cancelRequested;
    this.#startedAt = deps.clock.now() - run.waitedMs;
  }

  started(): Promise<void> {
    return this.#emit('agent_started', { message: this.#run.message, status: 'started' });
  }

  thinking(thought: string): Promise<void> {
    this.#steps += 1;
    return this.#emit('agent_thinking', { thought, step: this.#steps });
  }

  toolExecuting(call: { tool: string; callId: string; args: Fields }): Promise<void> {
    return this.#emit('tool_executing', {
      tool_name: call.tool,
      tool_call_id: call.callId,
      arguments: call.args,
      status: 'executing',
    });
  }

  /** The outcome of a call that an earlier worker completed. */
  remembered(callId: string): ToolOutcome | undefined {
    const stored = this.#run.journal.get(callId);
    return stored === undefined ? undefined : (JSON.parse(stored) as ToolOutcome);
  }

  /** Appends the outcome, remembers it and writes its usage record or counts its refusal, in one step. */
  toolCompleted(
    call: { tool: string; callId: string },
    outcome: ToolOutcome,
    usage?: Billing | Refusal,
  ): Promise<void> {
    const billing = usage && 'record' in usage ? usage : undefined;
    if (outcome.success) this.#toolsUsed.add(call.tool);
    return this.#emit(
      'tool_completed',
      { tool_name: call.tool, tool_call_id: call.callId, ...outcome, status: 'completed' },
      {
        ...(billing ? { usageRecord: { ...billing.record } } : usage && { refusal: { ...usage } }),
        journal: { field: JOURNAL_PREFIX + call.callId, value: JSON.stringify(outcome) },
      },
      billing?.settlement ? { settlement: billing.settlement } : {},
    );
  }

  completed(answer: RunAnswer): Promise<void> {
    const fields = {
      ...answer,
      duration_ms: this.#elapsed(),
      tools_used: [...this.#toolsUsed],
      status: 'completed',
    };
    const { runId: run_id, threadId } = this.#run;
    const message = { role: 'assistant', text: answer.final_response, run_id };
    return this.#emit('agent_completed', fields, {}, { threadMessage: { threadId, message } });
  }

  failed(error: TollgateError): Promise<void> {
    return this.#emit('agent_failed', { error: publicError(error), duration_ms: this.#elapsed(), status: 'failed' });
  }

  cancelled(): Promise<void> {
    return this.#emit('agent_cancelled', { duration_ms: this.#elapsed(), status: 'cancelled' });
  }

  /** Ends a run that nobody works on, with the start that it may never have had. */
  async abandoned(error: TollgateError): Promise<void> {
    if (this.#run.events === 0) await this.started();
    await this.failed(error);
  }

  /** Events are written one after the other, in the order in which they were asked for. */
  #emit(
    type: DurableEventType,
    fields: Fields,
    extra: Pick<NewEvent, 'usageRecord' | 'refusal' | 'journal'> = {},
    beside: Pick<Append, 'threadMessage' | 'settlement'> = {},
  ): Promise<void> {
    const written = this.#last.then(async () => {
      if (this.#ended) throw new RunLost('finished');
      const terminal = isTerminalEvent(type);
      if (!terminal && this.#emitted < this.#run.events) {
        // An earlier worker appended it. A terminal event is never among those: the run would have ended.
        this.#emitted += 1;
        return;
      }
      const known = Math.max(this.#emitted, this.#run.events);
      const event = { type, fields: { ...this.#common(), ...fields, timestamp: this.#timestamp() }, ...extra };
      await this.#append(event, known, beside);
      this.#emitted = known + 1;
      this.#ended = terminal;
    });
    this.#last = written.catch(() => undefined);
    return written;
  }

  /** Tries again while Redis is away: an append that did arrive is recognised, so that it cannot be there twice. */
  async #append(event: NewEvent, known: number, beside: Pick<Append, 'threadMessage' | 'settlement'>): Promise<void> {
    const { userId, runId, epoch } = this.#run;
    const append = {
      userId,
      events: [event],
      run: { runId, epoch, known },
      ...(isTerminalEvent(event.type) ? { ends: event.type } : {}),
      ...beside,
    };
    const result = await whileAway(this.#clock, OUTAGE_PATIENCE_MS, () => this.#log.append(append));
    if (!('seq' in result)) throw new RunLost(result.outcome);
    if (result.cancelRequested) this.#asked();
  }

  #common(): Fields {
    const { userId, runId, threadId, requestId, agent } = this.#run;
    return {
      event_id: newId('evt'),
      run_id: runId,
      thread_id: threadId,
      request_id: requestId,
      user_id: userId,
      agent_name: agent,
    };
  }

  #timestamp(): string {
    return new Date(this.#clock.now()).toISOString();
  }

  #elapsed(): number {
    return Math.max(0, Math.round(this.#clock.now() - this.#startedAt));
  }
}
