import type { NewEvent, Reserved } from '../events/append.ts';
import type { Clock } from '../lib/clock.ts';
import type { Reservation } from '../limits/quotas.ts';
import { publicError, type TollgateError } from '../protocol/errors.ts';
import type { InputOutcome, InputRequest } from '../protocol/input.ts';
import { type DurableEventType, type Fields, isTerminalEvent } from '../protocol/messages.ts';
import type { Refusal } from '../protocol/usage.ts';
import { RedisUnavailable } from '../redis/errors.ts';
import type { Billing, ToolOutcome } from '../tools/outcome.ts';
import type { RunCallLog } from '../tools/run-journal.ts';
import { interrupted, type OpenCall, openCall } from './open-calls.ts';
import {
  commonFields,
  type JournalEntry,
  quotaCommitOf,
  type RemoteEventType,
  recordOf,
  type SideEffects,
  serialized,
} from './run-append.ts';
import { BilledFailure, type RunAnswer, RunOwnershipLost, RunSuspended } from './run-end.ts';
import { type ModelUsage, modelUsage, RunUsage } from './run-usage.ts';
import { RunWriter, type RunWriterDeps } from './run-writer.ts';
import { type ClaimedRun, INPUT_PREFIX, JOURNAL_PREFIX, STEP_PREFIX } from './stored-run.ts';

/** Number of pending events above which the agent waits for the log. */
const MAX_BUFFERED = 16;

/**
 * The events of one run, written by the worker that claimed it.
 *
 * A worker that takes over a run starts the agent again from the beginning. Tool results come from the journal of the
 * run. Events that are already in the log are skipped, so that clients receive one uninterrupted sequence. Tool
 * outcomes are matched by call id, because concurrent calls end in any order. Other events are matched by their number,
 * because an agent emits them in the same order each time.
 *
 * `RunWriter` brings the events into the log.
 */
export class RunLog implements RunCallLog {
  readonly #clock: Clock;
  readonly #run: ClaimedRun;
  readonly #writer: RunWriter;
  readonly #toolsUsed = new Set<string>();
  /** The calls of this worker by their id; undefined once they have ended. */
  readonly #calls = new Map<string, OpenCall | undefined>();
  #callsEnded = false;
  readonly #usage = new RunUsage();
  /**
   * Number of replayed events that are still to be skipped. Tool outcomes and input requests are not included: each of
   * them, also a refusal, has an entry in the journal, written by the same append as its event.
   */
  #toSkip: number;
  #emitted = 0;
  /** Input requests that the agent waits for: their id, and when they expire. */
  readonly #awaited = new Map<string, number>();
  #steps = 0;
  #hasModelEvents = false;
  #failed: { readonly error: unknown } | undefined;
  readonly #failure = Promise.withResolvers<never>();

  /** @param cancelRequested called when the reply to an append says that cancellation was requested */
  constructor(deps: RunWriterDeps, run: ClaimedRun, cancelRequested: () => void) {
    this.#clock = deps.clock;
    this.#run = run;
    this.#writer = new RunWriter(deps, run, cancelRequested);
    this.#toSkip = run.events - run.journal.size - run.inputs.size;
    this.#failure.promise.catch(() => undefined);
  }

  /** Approximate bytes of the events that this writer keeps. */
  get size(): number {
    return this.#writer.size;
  }

  /** Rejects when an append fails that its caller did not wait for: see `buffered`. */
  get failure(): Promise<never> {
    return this.#failure.promise;
  }

  /**
   * Lets the caller continue while an event is appended, as long as few are pending. If the append fails, `failure`
   * rejects, and every later event except those that must be recorded. An agent on a model waits for each
   * append: its next request to the model costs more than the wait, and is in vain if another worker owns the run.
   */
  async buffered(append: Promise<unknown>): Promise<void> {
    if (this.#hasModelEvents || this.#writer.pending > MAX_BUFFERED) return void (await append);
    append.catch((error: unknown) => {
      this.#failed ??= { error };
      this.#failure.reject(error);
    });
  }

  /** See `RunWriter.confirm`. */
  confirm(): Promise<void> {
    return this.#writer.confirm();
  }

  async started(): Promise<void> {
    await this.#emit('agent_started', { message: this.#run.message, status: 'started' });
  }

  async thinking(thought: string): Promise<void> {
    this.#steps += 1;
    await this.#emit('agent_thinking', { thought, step: this.#steps });
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

  /** Appends an event of an agent that another server runs. */
  remoteEvent(type: RemoteEventType, fields: Fields, extra: { readonly journal?: JournalEntry }): Promise<void> {
    if (this.#callsEnded) return Promise.reject(new RunOwnershipLost('finished'));
    if (type === 'tool_executing') this.#opened(fields);
    if (type === 'tool_completed') this.#calls.set(String(fields.tool_call_id), undefined);
    return this.#modelEvent(type, fields, extra);
  }

  /** See `RunWriter.journal`. */
  journal(entry: JournalEntry): Promise<void> {
    return this.#writer.journal(entry);
  }

  async #modelEvent(
    type: DurableEventType,
    fields: Fields,
    { billing, journal }: { readonly billing?: Billing; readonly journal?: JournalEntry },
  ): Promise<void> {
    this.#hasModelEvents = true;
    const extra = { ...recordOf(billing), ...(journal ? { journal } : {}) };
    await this.#emit(type, fields, extra, quotaCommitOf(billing));
  }

  /**
   * Skips events of an earlier worker that are in the log; all remaining ones by default. Must only be called while no
   * append is in flight.
   * @returns the number of skipped events
   */
  skipReplayed(events = this.#toSkip): number {
    this.#toSkip -= events;
    this.#emitted += events;
    return events;
  }

  /** Number of events so far, skipped ones included, that are matched by their number. */
  get emitted(): number {
    return this.#emitted;
  }

  /** Counts the tokens of a step that an earlier worker completed. */
  countReplayed(usage: ModelUsage): void {
    this.#usage.add(usage);
  }

  /** Appends `tool_executing` and makes the reservation in the same step, unless an earlier worker appended it. */
  toolExecuting(
    call: { tool: string; callId: string; args: Fields; client?: true },
    reservation?: Pick<Reservation, 'request'>,
  ): Promise<Reserved | undefined> {
    const { tool: tool_name, callId: tool_call_id, args, client } = call;
    const fields = { tool_name, tool_call_id, arguments: args, status: 'executing', ...(client ? { client } : {}) };
    if (this.#callsEnded) return Promise.reject(new RunOwnershipLost('finished'));
    this.#opened(fields);
    const appended = this.#emit('tool_executing', fields, {}, reservation ? { reserve: reservation.request } : {});
    appended.catch((error: unknown) => {
      // After an outage the event still gets into the log.
      if (!(error instanceof RedisUnavailable)) this.#calls.set(call.callId, undefined);
    });
    return appended;
  }

  #opened(fields: Fields): void {
    const call = openCall(fields, this.#clock.now());
    this.#calls.set(call.callId, call);
  }

  /** Returns a journal entry that `storeEntry` stored in an earlier claim. */
  entry(name: string): string | undefined {
    return this.#run.steps.get(name);
  }

  storeEntry(name: string, value: string): Promise<void> {
    return this.journal({ field: STEP_PREFIX + name, value });
  }

  /** Returns the outcome of a call that an earlier worker completed. */
  journaled(callId: string): ToolOutcome | undefined {
    const stored = this.#run.journal.get(callId);
    return stored === undefined ? undefined : JSON.parse(stored);
  }

  /**
   * Appends the outcome, stores it in the journal, and writes the usage record or counts the refusal, in one script.
   */
  async toolCompleted(
    call: { tool: string; callId: string; client?: true },
    outcome: ToolOutcome,
    usage?: Billing | Refusal,
  ): Promise<void> {
    const billing = usage && 'record' in usage ? usage : undefined;
    const refusal = usage && !('record' in usage) ? usage : undefined;
    this.#calls.set(call.callId, undefined);
    if (outcome.success) this.#toolsUsed.add(call.tool);
    if (this.#run.journal.has(call.callId)) return;
    if (this.#callsEnded) throw new RunOwnershipLost('finished');
    const fields = { tool_name: call.tool, tool_call_id: call.callId, ...(call.client ? { client: true } : {}) };
    await this.#emit(
      'tool_completed',
      { ...fields, ...outcome, status: 'completed' },
      {
        ...(billing && { usageRecord: billing.record }),
        ...(refusal && { refusal }),
        journal: { field: JOURNAL_PREFIX + call.callId, value: JSON.stringify(outcome) },
      },
      quotaCommitOf(billing),
    );
  }

  /**
   * Returns the answer of the user to an input request.
   * @param id the same each time the agent is called again from the beginning
   * @throws RunSuspended when there is no answer yet
   */
  async requestInput(
    id: string,
    request: InputRequest,
    expiresMs: number,
    sideEffects: SideEffects = {},
  ): Promise<InputOutcome> {
    const answer = this.#run.answers.get(id);
    if (answer !== undefined) return JSON.parse(answer);
    const requested = this.#run.inputs.get(id);
    const expiresAt = requested === undefined ? this.#clock.now() + expiresMs : Number.parseInt(requested, 10);
    if (requested === undefined) {
      const fields = { input_id: id, ...request, expires_at: new Date(expiresAt).toISOString() };
      const journal = { field: INPUT_PREFIX + id, value: `${expiresAt} ${JSON.stringify(request)}` };
      await this.#emit('input_requested', fields, { journal }, sideEffects);
    }
    this.#awaited.set(id, expiresAt);
    throw new RunSuspended();
  }

  /**
   * Suspends the run until one of its input requests is answered or expires. The log must not be used afterwards.
   * @param remainingMs time from the end of the wait until the run must have ended
   * @returns `answered` when the run can continue at once
   */
  async suspend(remainingMs: number): Promise<'waiting' | 'answered'> {
    await this.#writer.settled();
    if (this.#failed) throw this.#failed.error;
    const expiresMs = Math.max(0, Math.min(...this.#awaited.values()) - this.#clock.now());
    return this.#writer.suspend({ expiresMs, remainingMs, inputs: [...this.#awaited.keys()] });
  }

  async completed({ billing, ...answer }: RunAnswer): Promise<void> {
    const fields = {
      ...answer,
      ...(billing ? { usage_record_id: billing.record.id } : {}),
      duration_ms: this.#writer.elapsedMs,
      tools_used: [...this.#toolsUsed],
      status: 'completed',
    };
    const { runId: run_id, threadId } = this.#run;
    const message = { role: 'assistant', text: answer.final_response, run_id };
    const sideEffects = { threadMessage: { threadId, message }, ...quotaCommitOf(billing) };
    await this.#emit('agent_completed', fields, recordOf(billing), sideEffects);
  }

  async failed(error: TollgateError): Promise<void> {
    const billing = error instanceof BilledFailure ? error.billing : undefined;
    const record = billing ? { usage_record_id: billing.record.id } : {};
    await this.#endCalls();
    const fields = { error: publicError(error), ...record, duration_ms: this.#writer.elapsedMs, status: 'failed' };
    await this.#emit('agent_failed', fields, recordOf(billing), quotaCommitOf(billing));
  }

  async cancelled(): Promise<void> {
    await this.#endCalls();
    await this.#emit('agent_cancelled', { duration_ms: this.#writer.elapsedMs, status: 'cancelled' });
  }

  /**
   * Ends each open call with a failure, those of earlier workers too. Only if there was an earlier worker, this takes a
   * round trip: the caller appends the terminal event in the same turn of the event loop, so all of them are one append.
   */
  async #endCalls(): Promise<void> {
    const earlier = await this.#writer.openCalls();
    const ended = earlier.filter(({ callId }) => !this.#calls.has(callId) && !this.#run.journal.has(callId));
    for (const call of [...ended, ...this.#calls.values()]) {
      if (!call) continue;
      this.#calls.set(call.callId, undefined);
      const outcome = interrupted(call, this.#clock.now());
      const journal = { field: JOURNAL_PREFIX + call.callId, value: JSON.stringify(outcome) };
      const fields = { ...call.fields, ...outcome, status: 'completed' };
      // If it fails, so does the append of the terminal event.
      this.#emit('tool_completed', fields, { journal }).catch(() => undefined);
    }
    // An outcome that arrives now would be the second one.
    this.#callsEnded = true;
  }

  /** Ends a run that no worker executes. Appends `agent_started` first if the run has no event yet. */
  async abandoned(error: TollgateError): Promise<void> {
    if (this.#run.events === 0) await this.started();
    await this.failed(error);
  }

  /**
   * Appends an event, in the order of the calls. Resolves when Redis has confirmed it.
   * @returns the decision on its reservation; undefined for none, or if an earlier worker appended the event
   */
  #emit(
    type: DurableEventType,
    fields: Fields,
    extra: Pick<NewEvent, 'usageRecord' | 'refusal' | 'journal'> = {},
    sideEffects: SideEffects = {},
  ): Promise<Reserved | undefined> {
    // The outcome of an executed call, and the end of the run, are recorded as soon as Redis is back.
    const isOwed = type === 'tool_completed' || type === 'agent_failed' || type === 'agent_cancelled';
    if (this.#failed && !isOwed) return Promise.reject(this.#failed.error);
    // A terminal event is never skipped: if it were in the log, the run would have ended.
    const ordered = !isTerminalEvent(type) && type !== 'tool_completed' && type !== 'input_requested';
    // Outcomes of a remote agent's own tools have no entry of their own, so they are counted too.
    if (!extra.journal || extra.journal.field.startsWith(STEP_PREFIX)) this.#emitted += 1;
    if (ordered && this.#toSkip > 0) {
      this.#toSkip -= 1;
      return Promise.resolve(undefined);
    }
    const used = extra.usageRecord && modelUsage(extra.usageRecord);
    if (used) this.#usage.add(used);
    const usage = isTerminalEvent(type) ? this.#usage.fields : {};
    const event = serialized({
      type,
      fields: { ...commonFields(this.#run), ...fields, ...usage, timestamp: this.#timestamp() },
      ...extra,
    });
    return this.#writer.add(event, sideEffects);
  }

  #timestamp(): string {
    return new Date(this.#clock.now()).toISOString();
  }
}
