import type { Append, NewEvent, UserLogWriter } from '../events/user-log-writer.ts';
import type { Clock } from '../lib/clock.ts';
import { newId } from '../lib/ids.ts';
import { publicError, type TollgateError } from '../protocol/errors.ts';
import { type DurableEventType, type Fields, isTerminalEvent } from '../protocol/messages.ts';
import type { Refusal } from '../protocol/usage.ts';
import { RedisUnavailable, retryDuringOutage } from '../redis/errors.ts';
import { type Billing, OUTAGE_RETRY_MS, type ToolOutcome } from '../tools/outcome.ts';
import type { RunCallLog } from '../tools/run-journal.ts';
import { type ModelUsage, modelUsage, RunUsage } from './run-usage.ts';
import type { Runs } from './runs.ts';
import { type ClaimedRun, JOURNAL_PREFIX } from './stored-run.ts';

/**
 * Maximum silence of Redis after which a writer restores its run: the erasure of a user begins to delete 90 s after the
 * last run of the user, and a process that was suspended for longer must not write the deleted data again.
 */
const RESTORE_WITHIN_MS = 90_000;
/** Maximum number of times that a run is restored for one event. */
const MAX_RESTORES = 3;

/** Another worker owns the run, or the run has ended. The receiver of this error stops and writes nothing more. */
export class RunOwnershipLost extends Error {
  constructor(outcome: 'fenced' | 'finished' | 'behind') {
    super(`the run was ${outcome}`);
    this.name = 'RunOwnershipLost';
  }
}

export interface RunAnswer {
  readonly final_response: string;
  readonly summary: string;
  /** Why a model said no more; absent for a normal end. */
  readonly finish_reason?: 'length' | 'content_filter' | 'refusal';
}

export interface RunLogDeps {
  readonly log: UserLogWriter;
  readonly clock: Clock;
  readonly runs: Pick<Runs, 'restore'>;
  /** Called after Redis had lost the run or events of it, and the run was restored. */
  readonly onRestored?: () => void;
}

/** An event of the run with its side effects. */
type Written = Pick<Append, 'threadMessage' | 'quotaCommit'> & { readonly event: NewEvent };

export type JournalEntry = NonNullable<NewEvent['journal']>;

/**
 * The events of one run, written by the worker that claimed it.
 *
 * A worker that takes over a run starts the agent again from the beginning. Tool results come from the journal of the
 * run. Events that are already in the log are skipped, so that clients receive one uninterrupted sequence. Tool
 * outcomes are matched by call id, because concurrent calls end in any order. Other events are matched by their number,
 * because an agent emits them in the same order each time.
 *
 * The writer keeps the events that it wrote until the run has ended. When Redis has lost the run or the last of its
 * events (a failover to a lagging replica, a restart from an older file), the writer restores the run and appends what
 * is missing, so that the run also ends in the history that remains.
 */
export class RunLog implements RunCallLog {
  readonly #deps: RunLogDeps;
  readonly #run: ClaimedRun;
  readonly #onCancelRequested: () => void;
  readonly #startedAt: number;
  readonly #toolsUsed = new Set<string>();
  readonly #usage = new RunUsage();
  /** The fencing tokens of this worker, the latest first. */
  #fencingTokens: readonly number[];
  /** The events after those of earlier workers, in order. The last one may not be in the log yet. */
  readonly #written: Written[] = [];
  /** Number of events of the run that are in the log, according to this worker. */
  #eventsInLog: number;
  /** When Redis last confirmed that this worker owns the run, by the clock of this process. */
  #confirmedAt: number;
  /**
   * Number of replayed events that are still to be skipped. Tool outcomes are not included: each of them, also a
   * refusal, has an entry in the journal, written by the same append as its event.
   */
  #toSkip: number;
  #steps = 0;
  #ended = false;
  #last: Promise<void> = Promise.resolve();

  /** @param cancelRequested called when the reply to an append says that cancellation was requested */
  constructor(deps: RunLogDeps, run: ClaimedRun, cancelRequested: () => void) {
    this.#deps = deps;
    this.#run = run;
    this.#onCancelRequested = cancelRequested;
    this.#confirmedAt = deps.clock.now();
    this.#startedAt = this.#confirmedAt - run.waitedMs;
    this.#fencingTokens = [run.fencingToken];
    this.#eventsInLog = run.events;
    this.#toSkip = run.events - run.journal.size;
  }

  /** Bytes of the events that this writer keeps, as JSON. */
  get size(): number {
    return JSON.stringify(this.#written).length;
  }

  /** Restores the run if Redis has lost it or events of it, its terminal event included. Does nothing when another worker owns the run. */
  confirm(): Promise<void> {
    const confirmed = this.#last.then(async () => {
      if (await this.#restore()) await this.#flush();
    });
    this.#last = confirmed.catch(() => undefined);
    return confirmed;
  }

  started(): Promise<void> {
    return this.#emit('agent_started', { message: this.#run.message, status: 'started' });
  }

  thinking(thought: string): Promise<void> {
    this.#steps += 1;
    return this.#emit('agent_thinking', { thought, step: this.#steps });
  }

  /** Appends a part of a model's text, numbered by the caller. The last part of a step carries its usage record. */
  modelText(
    fields: Fields & { readonly thought: string; readonly step: number },
    extra: { readonly billing?: Billing; readonly journal?: JournalEntry },
  ): Promise<void> {
    return this.#modelEvent('agent_thinking', fields, extra);
  }

  /** Appends a part of a model's reasoning. It carries a usage record only if the step was aborted without a text. */
  modelReasoning(
    fields: Fields & { readonly reasoning: string; readonly step: number },
    extra: { readonly billing?: Billing; readonly journal?: JournalEntry },
  ): Promise<void> {
    return this.#modelEvent('agent_reasoning', fields, extra);
  }

  #modelEvent(
    type: DurableEventType,
    fields: Fields,
    { billing, journal }: { readonly billing?: Billing; readonly journal?: JournalEntry },
  ): Promise<void> {
    const record = billing ? { usageRecord: billing.record } : {};
    return this.#emit(type, fields, { ...record, ...(journal ? { journal } : {}) }, quotaCommitOf(billing));
  }

  /**
   * Skips events of an earlier worker that are in the log; all remaining ones by default. Must only be called while no
   * append is in flight.
   * @returns the number of skipped events
   */
  skipReplayed(events = this.#toSkip): number {
    this.#toSkip -= events;
    return events;
  }

  /** Counts the tokens of a step that an earlier worker completed. */
  countReplayed(usage: ModelUsage): void {
    this.#usage.add(usage);
  }

  toolExecuting(call: { tool: string; callId: string; args: Fields }): Promise<void> {
    return this.#emit('tool_executing', {
      tool_name: call.tool,
      tool_call_id: call.callId,
      arguments: call.args,
      status: 'executing',
    });
  }

  /** Returns the outcome of a call that an earlier worker completed. */
  journaled(callId: string): ToolOutcome | undefined {
    const stored = this.#run.journal.get(callId);
    return stored === undefined ? undefined : JSON.parse(stored);
  }

  /**
   * Appends the outcome, stores it in the journal, and writes the usage record or counts the refusal, in one script.
   */
  toolCompleted(
    call: { tool: string; callId: string },
    outcome: ToolOutcome,
    usage?: Billing | Refusal,
  ): Promise<void> {
    const billing = usage && 'record' in usage ? usage : undefined;
    const refusal = usage && !('record' in usage) ? usage : undefined;
    if (outcome.success) this.#toolsUsed.add(call.tool);
    if (this.#run.journal.has(call.callId)) return Promise.resolve();
    return this.#emit(
      'tool_completed',
      { tool_name: call.tool, tool_call_id: call.callId, ...outcome, status: 'completed' },
      {
        ...(billing && { usageRecord: billing.record }),
        ...(refusal && { refusal }),
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

  /** Ends a run that no worker executes. Appends `agent_started` first if the run has no event yet. */
  async abandoned(error: TollgateError): Promise<void> {
    if (this.#run.events === 0) await this.started();
    await this.failed(error);
  }

  /** Appends events one at a time, in the order of the calls. */
  #emit(
    type: DurableEventType,
    fields: Fields,
    extra: Pick<NewEvent, 'usageRecord' | 'refusal' | 'journal'> = {},
    sideEffects: Pick<Append, 'threadMessage' | 'quotaCommit'> = {},
  ): Promise<void> {
    const written = this.#last.then(async () => {
      // An event whose result is unknown, because a Redis outage outlasted the retries, must precede every other:
      // Redis could otherwise take the next event for its repetition, and that event would be lost.
      await this.#flush();
      if (this.#ended) throw new RunOwnershipLost('finished');
      // A terminal event is never skipped: if it were in the log, the run would have ended.
      const ordered = !isTerminalEvent(type) && type !== 'tool_completed';
      if (ordered && this.#toSkip > 0) {
        this.#toSkip -= 1;
        return;
      }
      const used = extra.usageRecord && modelUsage(extra.usageRecord);
      if (used) this.#usage.add(used);
      const usage = isTerminalEvent(type) ? this.#usage.fields : {};
      const event = {
        type,
        fields: { ...this.#common(), ...fields, ...usage, timestamp: this.#timestamp() },
        ...extra,
      };
      this.#written.push({ event, ...sideEffects });
      await this.#flush();
    });
    this.#last = written.catch(() => undefined);
    return written;
  }

  /**
   * Appends the events that are not in the log. Retries during a Redis outage: the script recognises an append that did
   * arrive, so no event is written twice.
   */
  async #flush(): Promise<void> {
    for (let restores = 0; ; ) {
      const next = this.#written[this.#eventsInLog - this.#run.events];
      if (!next) return;
      const { event, ...sideEffects } = next;
      const append = {
        userId: this.#run.userId,
        events: [event],
        run: { runId: this.#run.runId, fencingToken: this.#fencingTokens[0] ?? 0, eventsInLog: this.#eventsInLog },
        ...(isTerminalEvent(event.type) ? { ends: event.type } : {}),
        ...sideEffects,
      };
      const result = await this.#retried(() => this.#deps.log.append(append)).catch((error: unknown) => {
        // Only an outage leaves the result unknown. An event that cannot be written must not keep others from it.
        if (!(error instanceof RedisUnavailable) && this.#written.at(-1) === next) this.#written.pop();
        throw error;
      });
      if (result.outcome === 'behind') {
        restores += 1;
        if (restores > MAX_RESTORES || !(await this.#restore())) throw new RunOwnershipLost('behind');
        continue;
      }
      if (!('seq' in result)) throw new RunOwnershipLost(result.outcome);
      this.#confirmedAt = this.#deps.clock.now();
      this.#eventsInLog += 1;
      if (isTerminalEvent(event.type)) this.#ended = true;
      if (result.cancelRequested) this.#onCancelRequested();
    }
  }

  /** Returns whether this worker owns the run again. */
  async #restore(): Promise<boolean> {
    const silentMs = this.#deps.clock.now() - this.#confirmedAt;
    if (silentMs > RESTORE_WITHIN_MS) return false;
    const restored = await this.#retried(() => {
      return this.#deps.runs.restore(this.#run, { fencingTokens: this.#fencingTokens, elapsedMs: this.#elapsed() });
    });
    if (restored.outcome !== 'claimed') return false;
    const isBehind = restored.events < this.#eventsInLog;
    this.#confirmedAt = this.#deps.clock.now();
    if (restored.fencingToken !== this.#fencingTokens[0]) {
      this.#fencingTokens = [restored.fencingToken, ...this.#fencingTokens];
    }
    this.#eventsInLog = restored.events;
    // With their old time, a node could take a lost event for the one at its position, and would miss that the log went
    // back (`delivered` in events/event-log.ts).
    const missing = this.#written.splice(restored.events - this.#run.events);
    const timestamp = this.#timestamp();
    for (const { event, ...rest } of missing) {
      this.#written.push({ event: { ...event, fields: { ...event.fields, timestamp } }, ...rest });
    }
    if (isBehind) this.#deps.onRestored?.();
    return true;
  }

  #retried<T>(work: () => Promise<T>): Promise<T> {
    return retryDuringOutage(this.#deps.clock, OUTAGE_RETRY_MS, work);
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
    return new Date(this.#deps.clock.now()).toISOString();
  }

  #elapsed(): number {
    return Math.max(0, Math.round(this.#deps.clock.now() - this.#startedAt));
  }
}

function quotaCommitOf(billing: Billing | undefined): Pick<Append, 'quotaCommit'> {
  return billing?.quotaCommit ? { quotaCommit: billing.quotaCommit } : {};
}
