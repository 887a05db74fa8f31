import type { Clock } from '../lib/clock.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import type { Quotas, Reservation } from '../limits/quotas.ts';
import { publicError, type TollgateError } from '../protocol/errors.ts';
import type { InputOutcome, InputRequest } from '../protocol/input.ts';
import type { Refusal } from '../protocol/usage.ts';
import { retryDuringOutage } from '../redis/errors.ts';
import { type Billing, commitOf, type Ending, OUTAGE_RETRY_MS, recordOf, type ToolOutcome } from './outcome.ts';
import type { Begin, CallJournal, ReservedCall } from './pipeline.ts';
import type { ToolArguments } from './tool.ts';
import type { ToolCallRequest } from './tool-call.ts';

/** Appends the events of a run's tool calls, and returns the outcomes of those that an earlier worker completed. */
export interface RunCallLog {
  journaled(callId: string): ToolOutcome | undefined;
  /** @throws RunSuspended when there is no answer yet */
  requestInput(id: string, request: InputRequest, expiresMs: number): Promise<InputOutcome>;
  toolExecuting(call: { tool: string; callId: string; args: ToolArguments }): Promise<void>;
  toolCompleted(call: { tool: string; callId: string }, outcome: ToolOutcome, usage?: Billing | Refusal): Promise<void>;
}

/** The run of a tool call. */
export interface CallingRun {
  readonly log: RunCallLog;
  /** Milliseconds since the epoch. */
  readonly acceptedAt: number;
  /** Milliseconds until an input request expires. */
  readonly inputExpiresMs: number;
}

export interface RunJournalDeps {
  readonly quotas: Quotas;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Records a call of an agent in the log of its run, which fences the writer. Refusals and failures are outcomes: the
 * agent receives them and the log stores them. Every method throws RunOwnershipLost when another worker owns the run or
 * the run has ended.
 */
export class RunJournal implements CallJournal {
  readonly #deps: RunJournalDeps;
  readonly #request: ToolCallRequest;
  readonly #run: CallingRun;
  #executing: Promise<void> | undefined;

  constructor(deps: RunJournalDeps, request: ToolCallRequest, run: CallingRun) {
    this.#deps = deps;
    this.#request = request;
    this.#run = run;
  }

  replay(): Promise<ToolOutcome> | undefined {
    const outcome = this.#run.log.journaled(this.#request.callId);
    return outcome && this.#complete(outcome);
  }

  /**
   * Asks the user of the run. `tool_executing` comes first, so that a client can show the call, and so that the events of
   * concurrent calls keep their order when the agent is called again with the answer.
   */
  async ask(request: InputRequest): Promise<InputOutcome> {
    const { callId, tool, args } = this.#request;
    const asked = { ...request, tool_name: tool, tool_call_id: callId, arguments: args };
    const id = `input_${callId.slice('call_'.length)}`;
    const [written, outcome] = await Promise.allSettled([
      this.#appendExecuting(),
      this.#run.log.requestInput(id, asked, this.#run.inputExpiresMs),
    ]);
    if (written.status === 'rejected') throw written.reason;
    if (outcome.status === 'rejected') throw outcome.reason;
    return outcome.value;
  }

  /** Sends the reservation and `tool_executing` together. */
  async begin({ reservation }: ReservedCall): Promise<Begin> {
    const { quotas, clock } = this.#deps;
    const reserve = () => quotas.reserve(this.#request.userId, reservation);
    const [decision, written] = await Promise.allSettled([
      retryDuringOutage(clock, OUTAGE_RETRY_MS, reserve),
      this.#appendExecuting(),
    ]);
    // No release: the worker that owns the run now makes the same call and uses the same reservation.
    if (written.status === 'rejected') throw written.reason;
    if (decision.status === 'rejected') throw decision.reason;
    if (!decision.value.allowed) return { kind: 'refused', error: decision.value.error };
    return {
      kind: 'begun',
      status: decision.value.status,
      acceptedAt: this.#run.acceptedAt,
      mayRequestInput: false,
      end: (ending) => this.#end(ending, reservation),
    };
  }

  /** Logs a refused call as an attempt, too. */
  refuse(error: TollgateError, counted: Refusal): Promise<ToolOutcome> {
    const outcome = { success: false, error: publicError(error), duration_ms: 0, usage_record_id: null };
    return this.#complete(outcome, counted);
  }

  #end(ending: Ending, reservation: Reservation): Promise<ToolOutcome> {
    const record = recordOf(ending);
    const quotaCommit = commitOf(ending);
    if (quotaCommit === '') this.#release(reservation);
    return this.#complete(ending.outcome, record && { record, quotaCommit });
  }

  async #complete(outcome: ToolOutcome, usage?: Billing | Refusal): Promise<ToolOutcome> {
    await this.#appendExecuting();
    await this.#run.log.toolCompleted(this.#request, outcome, usage);
    return outcome;
  }

  #appendExecuting(): Promise<void> {
    this.#executing ??= this.#run.log.toolExecuting(this.#request);
    return this.#executing;
  }

  /** The log only commits. Without the release, the reservation would expire. */
  #release(reservation: Reservation): void {
    const { userId } = this.#request;
    this.#deps.quotas.release(userId, reservation).catch((error: Error) => {
      const context = { user: userHash(userId), error: error.message };
      this.#deps.logger.debug(context, 'reservation release failed, it will expire');
    });
  }
}
