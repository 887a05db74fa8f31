import type { Append, NewEvent, Reserved, UserLogWriter } from '../events/user-log-writer.ts';
import type { Clock } from '../lib/clock.ts';
import type { Reservation } from '../limits/quotas.ts';
import { publicError, type TollgateError } from '../protocol/errors.ts';
import type { InputOutcome, InputRequest } from '../protocol/input.ts';
import { type DurableEventType, type Fields, isTerminalEvent } from '../protocol/messages.ts';
import type { Refusal } from '../protocol/usage.ts';
import { RedisUnavailable, retryDuringOutage } from '../redis/errors.ts';
import { type Billing, OUTAGE_RETRY_MS, type ToolOutcome } from '../tools/outcome.ts';
import type { RunCallLog } from '../tools/run-journal.ts';
import {
  appendLength,
  commonFields,
  type JournalEntry,
  joined,
  type Pending,
  quotaCommitOf,
  type RemoteEventType,
  recordOf,
  type SideEffects,
  serialized,
  sizeOf,
  type Written,
} from './run-append.ts';
import { BilledFailure, type RunAnswer, RunOwnershipLost, RunSuspended } from './run-end.ts';
import { type ModelUsage, modelUsage, RunUsage } from './run-usage.ts';
import type { Runs } from './runs.ts';
import { type ClaimedRun, INPUT_PREFIX, JOURNAL_PREFIX, STEP_PREFIX } from './stored-run.ts';

/**
 * Maximum silence of Redis after which a writer restores its run: the erasure of a user begins to delete 90 s after the
 * last run of the user, and a process that was suspended for longer must not write the deleted data again.
 */
const RESTORE_WITHIN_MS = 90_000;
/** Maximum number of times that a run is restored for one event. */
const MAX_RESTORES = 3;

export interface RunLogDeps {
  readonly log: UserLogWriter;
  readonly clock: Clock;
  readonly runs: Pick<Runs, 'restore' | 'suspend' | 'journal'>;
  /** Called after Redis had lost the run or events of it, and the run was restored. */
  readonly onRestored?: () => void;
}

/** Number of pending events above which the agent waits for the log. */
const MOST_BUFFERED = 16;

/**
 * The events of one run, written by the worker that claimed it.
 *
 * A worker that takes over a run starts the agent again from the beginning. Tool results come from the journal of the
 * run. Events that are already in the log are skipped, so that clients receive one uninterrupted sequence. Tool
 * outcomes are matched by call id, because concurrent calls end in any order. Other events are matched by their number,
 * because an agent emits them in the same order each time.
 *
 * Events that are emitted in the same turn of the event loop, or while an append is in flight, are appended together.
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
   * Number of replayed events that are still to be skipped. Tool outcomes and input requests are not included: each of
   * them, also a refusal, has an entry in the journal, written by the same append as its event.
   */
  #toSkip: number;
  #emitted = 0;
  /** Input requests that the agent waits for: their id, and when they expire. */
  readonly #awaited = new Map<string, number>();
  #steps = 0;
  #ended = false;
  #appends = 0;
  readonly #pending: Pending[] = [];
  #isAppending = false;
  #hasModelEvents = false;
  #hasEntries = false;
  #failed: { readonly error: unknown } | undefined;
  readonly #failure = Promise.withResolvers<never>();
  #size = 0;
  /** Settles when the current writer of `#written` is done; never rejects. */
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
    this.#toSkip = run.events - run.journal.size - run.inputs.size;
    this.#failure.promise.catch(() => undefined);
  }

  /** Approximate bytes of the events that this writer keeps. */
  get size(): number {
    return this.#size;
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
    if (this.#hasModelEvents || this.#pending.length > MOST_BUFFERED) return void (await append);
    append.catch((error: unknown) => {
      this.#failed ??= { error };
      this.#failure.reject(error);
    });
  }

  /** Restores the run if Redis has lost it or events of it, its terminal event included. Does nothing when another worker owns the run. */
  confirm(): Promise<void> {
    const confirmed = this.#last.then(async () => {
      if (await this.#restore()) await this.#flush();
    });
    this.#last = confirmed.catch(() => undefined);
    return confirmed;
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
    return this.#modelEvent(type, fields, extra);
  }

  /** Stores a journal entry without an event, in the order of the appends. @throws RunOwnershipLost */
  journal(entry: JournalEntry): Promise<void> {
    this.#hasEntries = true;
    const store = () => this.#deps.runs.journal(this.#run, this.#fencingTokens[0] ?? 0, entry);
    const stored = this.#last.then(async () => {
      await this.#flush();
      let outcome = await this.#retried(store);
      if (outcome === 'behind' && (await this.#restore())) {
        await this.#flush();
        outcome = await this.#retried(store);
      }
      if (outcome !== 'stored') throw new RunOwnershipLost(outcome);
    });
    this.#last = stored.catch(() => undefined);
    return stored;
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
    return this.#emit('tool_executing', fields, {}, reservation ? { reserve: reservation.request } : {});
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
    if (outcome.success) this.#toolsUsed.add(call.tool);
    if (this.#run.journal.has(call.callId)) return;
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
    const expiresAt = requested === undefined ? this.#deps.clock.now() + expiresMs : Number.parseInt(requested, 10);
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
    await this.#last;
    if (this.#failed) throw this.#failed.error;
    this.#ended = true;
    const now = this.#deps.clock.now();
    const expiresMs = Math.max(0, Math.min(...this.#awaited.values()) - now);
    for (let restores = 0; ; restores++) {
      const fencingToken = this.#fencingTokens[0] ?? 0;
      const wait = { fencingToken, expiresMs, remainingMs, inputs: [...this.#awaited.keys()] };
      const outcome = await this.#retried(() => this.#deps.runs.suspend(this.#run, wait));
      if (outcome === 'waiting' || outcome === 'answered') return outcome;
      if (outcome !== 'behind' || restores === MAX_RESTORES || !(await this.#restore())) {
        throw new RunOwnershipLost(outcome);
      }
      await this.#flush();
    }
  }

  async completed({ billing, ...answer }: RunAnswer): Promise<void> {
    const fields = {
      ...answer,
      ...(billing ? { usage_record_id: billing.record.id } : {}),
      duration_ms: this.#elapsed(),
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
    const fields = { error: publicError(error), ...record, duration_ms: this.#elapsed(), status: 'failed' };
    await this.#emit('agent_failed', fields, recordOf(billing), quotaCommitOf(billing));
  }

  async cancelled(): Promise<void> {
    await this.#emit('agent_cancelled', { duration_ms: this.#elapsed(), status: 'cancelled' });
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
    return new Promise((resolve, reject) => {
      this.#pending.push({ written: { event, ...sideEffects }, resolve, reject });
      if (this.#isAppending) return;
      this.#isAppending = true;
      this.#last = this.#last.then(() => this.#appendPending());
    });
  }

  /** Never rejects: the callers of the events receive the errors. */
  async #appendPending(): Promise<void> {
    // By then the agent has emitted what it emits in this turn of the event loop.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#pending.length > 0) {
      const next = this.#pending.splice(0, appendLength(this.#pending));
      try {
        // An event whose result is unknown, because a Redis outage outlasted the retries, must precede every other:
        // Redis could otherwise take the next event for its repetition, and that event would be lost.
        await this.#flush();
        if (this.#ended) throw new RunOwnershipLost('finished');
        this.#appends += 1;
        for (const { written } of next) {
          this.#written.push({ ...written, append: this.#appends });
          this.#size += sizeOf(written.event);
        }
        const reserved = await this.#flush();
        for (const { resolve } of next) resolve(reserved);
      } catch (error) {
        // After an outage these events still precede those behind them. After any other error they are missing, and so
        // must be the events that were emitted on the assumption that these are in the log.
        const failed = error instanceof RedisUnavailable ? next : [...next, ...this.#pending.splice(0)];
        for (const { reject } of failed) reject(error);
      }
    }
    this.#isAppending = false;
  }

  /**
   * Makes the appends that are not in the log. Retries during a Redis outage: the script recognises an append that did
   * arrive, so no event is written twice. A repeated append has the same events.
   * @returns the decision on the reservation of the last append
   */
  async #flush(): Promise<Reserved | undefined> {
    let reserved: Reserved | undefined;
    for (let restores = 0; ; ) {
      const next = this.#unconfirmed();
      if (next.length === 0) return reserved;
      const append = this.#appendOf(next);
      const result = await this.#retried(() => this.#deps.log.append(append)).catch((error: unknown) => {
        // Only an outage leaves the result unknown. Events that cannot be written must not keep others from the log.
        if (!(error instanceof RedisUnavailable)) this.#written.length -= next.length;
        throw error;
      });
      if (result.outcome === 'behind') {
        restores += 1;
        if (restores > MAX_RESTORES || !(await this.#restore())) throw new RunOwnershipLost('behind');
        continue;
      }
      if (!('seq' in result)) throw new RunOwnershipLost(result.outcome);
      this.#confirmedAt = this.#deps.clock.now();
      this.#eventsInLog += next.length;
      if (append.ends) this.#ended = true;
      if (result.cancelRequested) this.#onCancelRequested();
      reserved = result.reserved;
    }
  }

  /** Returns the events of the first append that is not in the log. */
  #unconfirmed(): Written[] {
    const at = this.#eventsInLog - this.#run.events;
    const first = this.#written[at];
    let end = at;
    while (first && this.#written[end]?.append === first.append) end += 1;
    return this.#written.slice(at, end);
  }

  #appendOf(written: readonly Written[]): Append {
    const { userId, runId, journal, steps, inputs } = this.#run;
    const earlier = this.#written.slice(0, this.#eventsInLog - this.#run.events);
    const replayed = journal.size + steps.size + inputs.size > 0;
    const hasJournal = replayed || this.#hasEntries || earlier.some(({ event }) => event.journal);
    const run = { runId, fencingToken: this.#fencingTokens[0] ?? 0, eventsInLog: this.#eventsInLog };
    return { userId, run, ...joined(written, hasJournal) };
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
      this.#written.push({ event: serialized({ ...event, fields: { ...event.fields, timestamp } }), ...rest });
    }
    if (isBehind) this.#deps.onRestored?.();
    return true;
  }

  #retried<T>(work: () => Promise<T>): Promise<T> {
    return retryDuringOutage(this.#deps.clock, OUTAGE_RETRY_MS, work);
  }

  #timestamp(): string {
    return new Date(this.#deps.clock.now()).toISOString();
  }

  #elapsed(): number {
    return Math.max(0, Math.round(this.#deps.clock.now() - this.#startedAt));
  }
}
