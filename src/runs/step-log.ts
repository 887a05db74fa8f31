import type { ModelPrice } from '../catalogue/agent-catalogue.ts';
import type { Clock } from '../lib/clock.ts';
import { unreservedCommit } from '../limits/quotas.ts';
import type { Fields } from '../protocol/messages.ts';
import type { UsageStatus } from '../protocol/usage.ts';
import type { Billing } from '../tools/outcome.ts';
import { usageRecord } from '../usage/records.ts';
import type { JournalEntry } from './run-append.ts';
import type { RunLog } from './run-log.ts';
import { type ModelUsage, modelUsage } from './run-usage.ts';
import { type ClaimedRun, STEP_PREFIX } from './stored-run.ts';

/** A tool call requested by a model. */
export interface ModelCall {
  readonly id: string;
  readonly name: string;
  /** Supposed to be JSON, but a model can produce invalid JSON. */
  readonly arguments: string;
  /** Why the call cannot run, as a sentence for the model; absent for a call that can. */
  readonly problem?: string;
  /** Further fields of the call, which go back to the model as they came. */
  readonly extra?: Fields;
}

/** Output of a model in one step: text, tool calls, or both. */
export interface ModelStep {
  readonly text: string;
  readonly calls: readonly ModelCall[];
  /** Further fields of the message, which go back to the model as they came: reasoning and signatures. */
  readonly back?: Fields;
  /** Why the text is not all that the model would have said; absent for a normal end. */
  readonly finish?: 'length' | 'content_filter' | 'refusal';
  /** The endpoint that replied. `back` and `extra` mean nothing to others. */
  readonly endpoint?: string;
}

export interface Tokens {
  readonly input: number;
  readonly output: number;
  /** True when the model reported no counts; they are then estimated at four bytes per token. */
  readonly estimated: boolean;
}

/** A model and its price. */
export interface ModelRef {
  readonly model: string;
  readonly price: ModelPrice;
}

export interface Steps {
  /** Returns the next step that an earlier worker completed and skips its events; undefined when there is none. */
  replay(): ModelStep | undefined;
  /** Begins a step, or another attempt at an aborted step. */
  startStep(model: ModelRef): StepWriter;
}

/** Writes the events of one attempt at a step: parts of text, and an end with a usage record. */
export interface StepWriter {
  /** Resolves when the text is in the log, or buffered for the next event. */
  add(text: string): Promise<void>;
  /** The same for reasoning. */
  addReasoning(text: string): Promise<void>;
  /** Ends the step: writes the journal entry for a takeover and the usage record. */
  complete(step: ModelStep, tokens: Tokens): Promise<void>;
  /**
   * Ends an interrupted step: appends the remaining text or reasoning with a record of 0 units. Does nothing if there
   * was neither, unless `thought` gives a text for the event.
   */
  abort(status: Exclude<UsageStatus, 'success'>, tokens: Tokens, thought?: string): Promise<void>;
}

/**
 * Time that text is buffered before it is appended. It bounds the cost at four appends per second and run, independent
 * of the speed of the model. Users do not notice a quarter of a second as a pause.
 */
export const TEXT_WINDOW_MS = 250;
/** The same for reasoning, which is read by few and is often longer than the text. */
const REASONING_WINDOW_MS = 1_000;
/** Maximum length of buffered text, in characters, so that events stay small when a model is fast. */
const TEXT_LENGTH = 4_000;
/** Journal entry with the number of the latest attempt. */
const LAST_ATTEMPT = 'begun';

/** A completed step in the run's hash. */
interface StoredStep extends ModelStep {
  readonly number: number;
  /** Number of events of the step in the log: its text and its reasoning. */
  readonly events: number;
  /** Tokens that the step was billed for; absent in steps that an older version stored. */
  readonly usage?: ModelUsage;
}

/**
 * Writes the model steps of one run: their text as events, their output to the journal, their tokens as usage records.
 * Each attempt at a step has its own number, the `step` of its events. An interrupted attempt stays in the log, and the
 * first event of the next attempt refers to it by `replaces_step`.
 *
 * A model does not give the same output twice, so completed steps are replayed, not requested again. The append of the
 * last event of a step also writes the whole step to the run's hash. A worker that takes over the run replays the steps
 * in order; any further events in the log belong to an attempt that was interrupted when its worker failed.
 */
export class StepLog implements Steps {
  readonly #log: RunLog;
  readonly #clock: Clock;
  readonly #run: ClaimedRun;
  #completed = 0;
  #number = 0;
  #replaces: number | undefined;
  #replaying = true;

  constructor({ log, clock }: { log: RunLog; clock: Clock }, run: ClaimedRun) {
    this.#log = log;
    this.#clock = clock;
    this.#run = run;
  }

  replay(): ModelStep | undefined {
    if (!this.#replaying) return undefined;
    const stored = this.#run.steps.get(String(this.#completed + 1));
    if (stored === undefined) {
      this.#endReplay();
      return undefined;
    }
    const { number, events, usage, ...step }: StoredStep = JSON.parse(stored);
    if (usage) this.#log.countReplayed(usage);
    this.#completed += 1;
    this.#number = number;
    this.#log.skipReplayed(events);
    return step;
  }

  startStep(model: ModelRef): StepWriter {
    const number = this.#number + 1;
    const index = this.#completed + 1;
    const onAppend = (completed: boolean) => {
      this.#number = number;
      this.#replaces = completed ? undefined : number;
      if (completed) this.#completed = index;
    };
    const step = { number, index, replaces: this.#replaces, model };
    return new LoggedStep({ log: this.#log, clock: this.#clock, run: this.#run, onAppend }, step);
  }

  #endReplay(): void {
    this.#replaying = false;
    // The journal has tool results without a model step, so another kind of agent made the calls.
    if (this.#completed === 0 && this.#run.journal.size > 0) {
      throw new Error('the run was started by another kind of agent');
    }
    if (this.#log.skipReplayed() === 0) return;
    this.#number = Math.max(this.#number, Number(this.#run.steps.get(LAST_ATTEMPT) ?? 0));
    this.#replaces = this.#number;
  }
}

interface LoggedStepDeps {
  readonly log: RunLog;
  readonly clock: Clock;
  readonly run: ClaimedRun;
  /** Called before each event. */
  readonly onAppend: (completed: boolean) => void;
}

interface StepNumbers {
  readonly number: number;
  /** Position among the completed steps of the run, from 1. */
  readonly index: number;
  readonly replaces: number | undefined;
  readonly model: ModelRef;
}

interface StepFields {
  readonly step: number;
  readonly replaces_step?: number;
  readonly usage_record_id?: string;
}

/** One attempt at a step. Its methods must not be called concurrently. */
class LoggedStep implements StepWriter {
  readonly #deps: LoggedStepDeps;
  readonly #step: StepNumbers;
  readonly #startedAt: number;
  #events = 0;
  #lastEventAt = 0;
  /** The latest text stays buffered until more follows, so that the end of a step always has an event to go with. */
  #buffered = '';
  #reasoning = '';

  constructor(deps: LoggedStepDeps, step: StepNumbers) {
    this.#deps = deps;
    this.#step = step;
    this.#startedAt = deps.clock.now();
  }

  async add(text: string): Promise<void> {
    await this.#appendReasoning();
    const due = this.#events === 0 || this.#deps.clock.now() - this.#lastEventAt >= TEXT_WINDOW_MS;
    if (this.#buffered !== '' && (due || this.#buffered.length >= TEXT_LENGTH)) await this.#append(this.#buffered, {});
    this.#buffered += text;
  }

  async addReasoning(text: string): Promise<void> {
    const due = this.#events === 0 || this.#deps.clock.now() - this.#lastEventAt >= REASONING_WINDOW_MS;
    if (due || this.#reasoning.length >= TEXT_LENGTH) await this.#appendReasoning();
    this.#reasoning += text;
  }

  async complete(step: ModelStep, tokens: Tokens): Promise<void> {
    await this.#appendReasoning();
    const { number, index } = this.#step;
    const billing = this.#billing('success', tokens);
    const usage = modelUsage(billing.record);
    const stored: StoredStep = { ...step, number, events: this.#events + 1, ...(usage ? { usage } : {}) };
    const names = step.calls.map(({ name }) => name).join(' and ');
    await this.#append(this.#buffered || `I ask ${names}.`, {
      billing,
      journal: { field: STEP_PREFIX + index, value: JSON.stringify(stored) },
    });
  }

  async abort(status: Exclude<UsageStatus, 'success'>, tokens: Tokens, thought?: string): Promise<void> {
    const billing = this.#billing(status, tokens);
    if (this.#buffered === '' && thought === undefined) return this.#appendReasoning(billing);
    await this.#appendReasoning();
    await this.#append(this.#buffered || (thought ?? ''), { billing });
  }

  async #appendReasoning(billing?: Billing): Promise<void> {
    const reasoning = this.#reasoning;
    if (reasoning === '') return;
    this.#reasoning = '';
    const { fields, journal } = this.#next(billing);
    await this.#deps.log.modelReasoning({ reasoning, ...fields }, { ...journal, ...(billing ? { billing } : {}) });
  }

  async #append(thought: string, extra: { billing?: Billing; journal?: JournalEntry }): Promise<void> {
    this.#buffered = '';
    const { fields, journal } = this.#next(extra.billing);
    await this.#deps.log.modelText({ thought, ...fields }, { ...journal, ...extra });
  }

  /** Counts the next event of the step. Returns its fields, and the journal entry of the first event of an attempt. */
  #next(billing: Billing | undefined): { readonly fields: StepFields; readonly journal: { journal?: JournalEntry } } {
    const { number, replaces } = this.#step;
    const first = this.#events === 0;
    const completed = billing?.record.status === 'success';
    this.#events += 1;
    this.#lastEventAt = this.#deps.clock.now();
    this.#deps.onAppend(completed);
    const fields = {
      step: number,
      ...(first && replaces !== undefined ? { replaces_step: replaces } : {}),
      ...(billing ? { usage_record_id: billing.record.id } : {}),
    };
    const journal = { field: STEP_PREFIX + LAST_ATTEMPT, value: String(number) };
    return { fields, journal: first && !completed ? { journal } : {} };
  }

  /** Bills a step like a tool call. The script adds it to the user's totals together with the record. */
  #billing(status: UsageStatus, { input, output, estimated }: Tokens): Billing {
    const { userId, runId, threadId, requestId, transport, caller, acceptedAt } = this.#deps.run;
    const { model, price } = this.#step.model;
    const record = usageRecord({
      callId: `step_${this.#step.number}`,
      user_id: userId,
      plan: caller.plan,
      tool: `model:${model}`,
      permission: 'basic',
      status,
      units: Math.ceil((input * price.input + output * price.output) / 1_000),
      units_by_kind: { input_tokens: input, output_tokens: output },
      ...(estimated ? { estimated } : {}),
      run_id: runId,
      thread_id: threadId,
      request_id: requestId,
      idempotency_key: null,
      transport,
      acceptedAt,
      startedAt: this.#startedAt,
      completedAt: this.#deps.clock.now(),
    });
    return { record, quotaCommit: unreservedCommit({ units: record.units, completedAt: record.completed_at }) };
  }
}
