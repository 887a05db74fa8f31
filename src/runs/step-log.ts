import type { ModelPrice } from '../catalogue/agent-catalogue.ts';
import type { Clock } from '../lib/clock.ts';
import { unreservedCommit } from '../limits/quotas.ts';
import type { Billing } from '../tools/outcome.ts';
import { type UsageStatus, usageRecord } from '../usage/records.ts';
import type { JournalEntry, RunLog } from './run-log.ts';
import { type ClaimedRun, STEP_PREFIX } from './runs.ts';

/** A tool call as a model asked for it. */
export interface ModelCall {
  readonly id: string;
  readonly name: string;
  /** JSON, if the model made no mistake. */
  readonly arguments: string;
}

/** What a model said in one step: text, tool calls, or both. */
export interface ModelStep {
  readonly text: string;
  readonly calls: readonly ModelCall[];
}

export interface Tokens {
  readonly input: number;
  readonly output: number;
  /** The model did not say: reckoned at four bytes a token. */
  readonly estimated: boolean;
}

/** Who is asked, and at what price. */
export interface ModelRef {
  readonly model: string;
  readonly price: ModelPrice;
}

export interface Steps {
  /** The next step that an earlier worker completed, whose events are then passed over; undefined when there is none. */
  replay(): ModelStep | undefined;
  /** Begins a step, or another attempt at one whose text was cut off. */
  startStep(model: ModelRef): StepWriter;
}

/** One attempt at a step, as it is told: pieces of text, and an end that is billed. */
export interface StepWriter {
  /** Resolves when the text is in the log, or held back to go with what follows. */
  add(text: string): Promise<void>;
  /** The step is over: remembered for a worker that takes the run over, and billed. */
  complete(step: ModelStep, tokens: Tokens): Promise<void>;
  /** The step was cut off: what was said of it is told and recorded, at no price. Nothing happens when nothing was said. */
  abort(status: Exclude<UsageStatus, 'success'>, tokens: Tokens): Promise<void>;
}

/**
 * So long is text gathered before it is appended. Four appends a second and run are a cost that does not follow the
 * speed of the model, and a quarter of a second is not yet seen as a pause.
 */
export const TEXT_WINDOW_MS = 250;
/** More text than this is not gathered, however fast it comes: the size of an event stays small. */
const TEXT_LENGTH = 4_000;
/** The entry that holds the number of the attempt begun last. */
const LAST_ATTEMPT = 'begun';

/** A completed step in the run's hash. */
interface StoredStep extends ModelStep {
  readonly number: number;
  /** `agent_thinking` events of it in the log. */
  readonly events: number;
}

/**
 * The steps of a model in one run: their text as events, what was said as the journal of the run, their tokens as usage
 * records. Each attempt at a step has a number of its own, the `step` of its events. An attempt that was cut off stays in
 * the log, and the first event of the one that follows it says so by `replaces_step`.
 *
 * A model does not repeat itself, so what it said is not asked again: the last event of a step writes the whole step
 * into the run's hash in the same append. A worker that takes the run over recalls the steps in their order; what the
 * log has beyond them is the beginning of an attempt that died with its worker.
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
    const { number, events, text, calls } = JSON.parse(stored) as StoredStep;
    this.#completed += 1;
    this.#number = number;
    this.#log.skipReplayed(events);
    return { text, calls };
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
    // Tools ran, but no model asked for them: their results are the answers to other questions.
    if (this.#completed === 0 && this.#run.journal.size > 0) {
      throw new Error('the run was begun by an agent of another kind');
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
  /** Its place among the steps of the run that are completed. */
  readonly index: number;
  readonly replaces: number | undefined;
  readonly model: ModelRef;
}

/** One attempt at a step. Its calls come one after the other. */
class LoggedStep implements StepWriter {
  readonly #deps: LoggedStepDeps;
  readonly #step: StepNumbers;
  readonly #startedAt: number;
  #events = 0;
  #lastEventAt = 0;
  /** The latest text always waits for what follows it: so the end of a step has an event to be written with. */
  #buffered = '';

  constructor(deps: LoggedStepDeps, step: StepNumbers) {
    this.#deps = deps;
    this.#step = step;
    this.#startedAt = deps.clock.now();
  }

  async add(text: string): Promise<void> {
    const due = this.#events === 0 || this.#deps.clock.now() - this.#lastEventAt >= TEXT_WINDOW_MS;
    if (this.#buffered !== '' && (due || this.#buffered.length >= TEXT_LENGTH)) await this.#append(this.#buffered, {});
    this.#buffered += text;
  }

  complete(step: ModelStep, tokens: Tokens): Promise<void> {
    const { number, index } = this.#step;
    const stored: StoredStep = { ...step, number, events: this.#events + 1 };
    const names = step.calls.map(({ name }) => name).join(' and ');
    return this.#append(this.#buffered || `I ask ${names}.`, {
      billing: this.#billing('success', tokens),
      journal: { field: STEP_PREFIX + index, value: JSON.stringify(stored) },
    });
  }

  async abort(status: Exclude<UsageStatus, 'success'>, tokens: Tokens): Promise<void> {
    if (this.#buffered === '') return;
    await this.#append(this.#buffered, { billing: this.#billing(status, tokens) });
  }

  async #append(thought: string, extra: { billing?: Billing; journal?: JournalEntry }): Promise<void> {
    const { number, replaces } = this.#step;
    const first = this.#events === 0;
    const completed = extra.billing?.record.status === 'success';
    this.#buffered = '';
    this.#events += 1;
    this.#lastEventAt = this.#deps.clock.now();
    this.#deps.onAppend(completed);
    const fields = {
      thought,
      step: number,
      ...(first && replaces !== undefined ? { replaces_step: replaces } : {}),
      ...(extra.billing ? { usage_record_id: extra.billing.record.id } : {}),
    };
    const lastAttempt =
      first && !completed ? { journal: { field: STEP_PREFIX + LAST_ATTEMPT, value: String(number) } } : {};
    await this.#deps.log.modelText(fields, { ...lastAttempt, ...extra });
  }

  /** A step is charged like a call, and shows in the user's totals with the record. */
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
