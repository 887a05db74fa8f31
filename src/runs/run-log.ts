import type { Append, EventLog, NewEvent } from '../events/event-log.ts';
import type { Clock } from '../lib/clock.ts';
import { newId } from '../lib/ids.ts';
import { publicError, TollgateError } from '../protocol/errors.ts';
import { type DurableEventType, type Fields, isTerminalEvent } from '../protocol/messages.ts';
import { retryDuringOutage } from '../redis/errors.ts';
import { type Billing, OUTAGE_RETRY_MS, type ToolOutcome } from '../tools/outcome.ts';
import type { CallJournal } from '../tools/tool-requests.ts';
import type { Refusal } from '../usage/records.ts';
import { type ClaimedRun, JOURNAL_PREFIX } from './runs.ts';

/** The run belongs to somebody else now, or has ended: whoever gets this stops without another word. */
export class RunOwnershipLost extends Error {
  constructor(outcome: 'fenced' | 'finished') {
    super(`the run was ${outcome}`);
    this.name = 'RunLost';
  }
}

export interface RunAnswer {
  readonly final_response: string;
  readonly summary: string;
}

export type JournalEntry = NonNullable<NewEvent['journal']>;

/**
 * The events of one run, written by the worker that claimed it.
 *
 * A worker that takes a run over runs the agent again from its beginning: tool results come from the run's journal, and
 * the events that are in the log already are passed over, so that clients see one uninterrupted sequence. Outcomes of
 * tools are recognised by their call, since calls that ran side by side ended in any order; the others by their number,
 * since an agent emits them in the same order each time.
 */
export class RunLog implements CallJournal {
  readonly #log: EventLog;
  readonly #clock: Clock;
  readonly #run: ClaimedRun;
  readonly #onCancelRequested: () => void;
  readonly #startedAt: number;
  readonly #toolsUsed = new Set<string>();
  /** Events of the run in the log, as far as this worker knows. */
  #eventsInLog: number;
  /**
   * Those of an earlier worker that are still to be passed over. Outcomes of tools are not among them: each has an entry in
   * the journal, refusals too, written by the append that put it into the log.
   */
  #toSkip: number;
  #steps = 0;
  #ended = false;
  #last: Promise<void> = Promise.resolve();
  /**
   * Writes the event again that nobody knows of whether it is in the log: Redis was away for too long. It goes before any
   * other, which would be taken for it and be lost.
   */
  #unconfirmed: (() => Promise<void>) | undefined;

  /** @param cancelRequested called when an append brings word that the run is to be cancelled */
  constructor(deps: { log: EventLog; clock: Clock }, run: ClaimedRun, cancelRequested: () => void) {
    this.#log = deps.log;
    this.#clock = deps.clock;
    this.#run = run;
    this.#onCancelRequested = cancelRequested;
    this.#startedAt = deps.clock.now() - run.waitedMs;
    this.#eventsInLog = run.events;
    this.#toSkip = run.events - run.journal.size;
  }

  started(): Promise<void> {
    return this.#emit('agent_started', { message: this.#run.message, status: 'started' });
  }

  thinking(thought: string): Promise<void> {
    this.#steps += 1;
    return this.#emit('agent_thinking', { thought, step: this.#steps });
  }

  /** A piece of what a model says, numbered by whoever asks the model; with the last of a step, its bill. */
  modelText(
    fields: Fields & { readonly thought: string; readonly step: number },
    { billing, journal }: { readonly billing?: Billing; readonly journal?: JournalEntry },
  ): Promise<void> {
    return this.#emit(
      'agent_thinking',
      fields,
      {
        ...(billing ? { usageRecord: { ...billing.record } } : {}),
        ...(journal ? { journal } : {}),
      },
      quotaCommitOf(billing),
    );
  }

  /**
   * Passes over events of an earlier worker that are known to be in the log; all that are left when no number is given.
   * For the moments between events, when none is under way.
   * @returns how many there were
   */
  skipReplayed(events = this.#toSkip): number {
    this.#toSkip -= events;
    return events;
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
  journaled(callId: string): ToolOutcome | undefined {
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
    if (this.#run.journal.has(call.callId)) return Promise.resolve();
    return this.#emit(
      'tool_completed',
      { tool_name: call.tool, tool_call_id: call.callId, ...outcome, status: 'completed' },
      {
        ...(billing ? { usageRecord: { ...billing.record } } : usage && { refusal: { ...usage } }),
        journal: { field: JOURNAL_PREFIX + call.callId, value: JSON.stringify(outcome) },
      },
      quotaCommitOf(billing),
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
    sideEffects: Pick<Append, 'threadMessage' | 'quotaCommit'> = {},
  ): Promise<void> {
    const written = this.#last.then(async () => {
      await this.#unconfirmed?.();
      if (this.#ended) throw new RunOwnershipLost('finished');
      const terminal = isTerminalEvent(type);
      // A terminal event is never among those that are passed over: the run would have ended.
      const ordered = !terminal && type !== 'tool_completed';
      if (ordered && this.#toSkip > 0) {
        this.#toSkip -= 1;
        return;
      }
      const event = { type, fields: { ...this.#common(), ...fields, timestamp: this.#timestamp() }, ...extra };
      const write = async () => {
        await this.#append(event, this.#eventsInLog, sideEffects);
        this.#eventsInLog += 1;
        this.#ended = terminal;
        this.#unconfirmed = undefined;
      };
      await write().catch((error: unknown) => {
        if (isOutage(error)) this.#unconfirmed = write;
        throw error;
      });
    });
    this.#last = written.catch(() => undefined);
    return written;
  }

  /** Tries again while Redis is away: an append that did arrive is recognised, so that it cannot be there twice. */
  async #append(
    event: NewEvent,
    eventsInLog: number,
    sideEffects: Pick<Append, 'threadMessage' | 'quotaCommit'>,
  ): Promise<void> {
    const { userId, runId, fencingToken } = this.#run;
    const append = {
      userId,
      events: [event],
      run: { runId, fencingToken, eventsInLog },
      ...(isTerminalEvent(event.type) ? { ends: event.type } : {}),
      ...sideEffects,
    };
    const result = await retryDuringOutage(this.#clock, OUTAGE_RETRY_MS, () => this.#log.append(append));
    if (!('seq' in result)) throw new RunOwnershipLost(result.outcome);
    if (result.cancelRequested) this.#onCancelRequested();
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

function isOutage(error: unknown): boolean {
  return error instanceof TollgateError && error.code === 'OVERLOADED';
}

function quotaCommitOf(billing: Billing | undefined): Pick<Append, 'quotaCommit'> {
  return billing?.quotaCommit ? { quotaCommit: billing.quotaCommit } : {};
}
