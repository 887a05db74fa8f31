import type { Reserved } from '../events/append.ts';
import type { Clock } from '../lib/clock.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import type { QuotaDecision, Quotas, Reservation } from '../limits/quotas.ts';
import { publicError, TollgateError } from '../protocol/errors.ts';
import { type InputOutcome, type InputRequest, inputIdOf } from '../protocol/input.ts';
import type { Refusal } from '../protocol/usage.ts';
import { retryDuringOutage } from '../redis/errors.ts';
import { NEEDS_INPUT } from '../upstreams/faults.ts';
import { type Elicited, elicitationResult, elicitedForms } from './elicitation.ts';
import { type Billing, commitOf, type Ending, OUTAGE_RETRY_MS, recordOf, type ToolOutcome } from './outcome.ts';
import type { Begin, CallJournal, ReservedCall } from './pipeline.ts';
import type { ToolArguments, ToolInputExchange, ToolInputRequests } from './tool.ts';
import type { ToolCallRequest } from './tool-call.ts';

/** Appends the events of a run's tool calls, and returns the outcomes of those that an earlier worker completed. */
export interface RunCallLog {
  journaled(callId: string): ToolOutcome | undefined;
  /**
   * @param sideEffects.quotaCommit written with the event of the request
   * @throws RunSuspended when there is no answer yet
   */
  requestInput(
    id: string,
    request: InputRequest,
    expiresMs: number,
    sideEffects?: { readonly quotaCommit?: string },
  ): Promise<InputOutcome>;
  /** Returns an entry that `storeEntry` stored in an earlier claim of the run. */
  entry(name: string): string | undefined;
  storeEntry(name: string, value: string): Promise<void>;
  /**
   * Appends `tool_executing` and makes the reservation in the same step.
   * @returns the decision; undefined if there was no reservation to make, or an earlier worker appended the event
   */
  toolExecuting(
    call: { tool: string; callId: string; args: ToolArguments; client?: true },
    reservation?: Reservation,
  ): Promise<Reserved | undefined>;
  /** @param call.client true for a call that the front end of the user executes */
  toolCompleted(
    call: { tool: string; callId: string; client?: true },
    outcome: ToolOutcome,
    usage?: Billing | Refusal,
  ): Promise<void>;
  /** Resolves at once while few appends are pending. If `append` fails, the run stops, and later appends fail. */
  buffered(append: Promise<unknown>): Promise<void>;
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
  #executing: Promise<Reserved | undefined> | undefined;

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
    const id = inputIdOf(callId);
    const requested = async () => {
      // Concurrent calls are all announced before the first request: clients see at once what there is to answer.
      await Promise.resolve();
      return this.#run.log.requestInput(id, asked, this.#run.inputExpiresMs);
    };
    const [written, outcome] = await Promise.allSettled([this.#appendExecuting(), requested()]);
    if (written.status === 'rejected') throw written.reason;
    if (outcome.status === 'rejected') throw outcome.reason;
    return outcome.value;
  }

  exchange(): ToolInputExchange | Promise<ToolInputExchange> {
    const { callId } = this.#request;
    const stored = this.#run.log.entry(roundName(callId));
    if (stored === undefined) return { ...FORMS, inputResponses: undefined, requestState: undefined, answered: 0 };
    return this.#answers(JSON.parse(stored), '');
  }

  /** Asks for what a server requested in one round. @param commit counts the round; "" if it is counted */
  async #answers(round: ToolInputRequests, commit: string): Promise<ToolInputExchange> {
    const { callId, tool, args } = this.#request;
    const named = { tool_name: tool, tool_call_id: callId, arguments: args };
    const ask = async ({ key, request }: Elicited, at: number) => {
      const id = `${inputIdOf(callId)}_${round.round}_${at + 1}`;
      const sideEffects = at === 0 && commit !== '' ? { quotaCommit: commit } : {};
      const outcome = await this.#run.log.requestInput(
        id,
        { ...request, ...named },
        this.#run.inputExpiresMs,
        sideEffects,
      );
      return [key, elicitationResult(outcome)] as const;
    };
    const executing = this.#appendExecuting();
    const answers = await Promise.allSettled(elicitedForms(round).map(ask));
    await executing;
    const rejected = answers.find((answer) => answer.status === 'rejected');
    if (rejected) throw rejected.reason;
    const inputResponses = Object.fromEntries(
      answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : [])),
    );
    const { requestState, server, round: answered } = round;
    return { ...FORMS, inputResponses, requestState, server, answered };
  }

  /** Makes the reservation and appends `tool_executing` in one step, and waits until Redis has confirmed both. */
  async begin({ reservation }: ReservedCall): Promise<Begin> {
    // No release after an error: the worker that owns the run now makes the same call and uses the same reservation.
    const reserved = await this.#appendExecuting(reservation);
    const decision = reserved
      ? reservation.decision(reserved.allowed, reserved.reply)
      : await this.#reserve(reservation);
    if (!decision.allowed) return { kind: 'refused', error: decision.error };
    return {
      kind: 'begun',
      status: decision.status,
      acceptedAt: this.#run.acceptedAt,
      mayRequestInput: true,
      end: (ending) => this.#end(ending, reservation),
    };
  }

  /** Logs a refused call as an attempt, too. */
  refuse(error: TollgateError, counted: Refusal): Promise<ToolOutcome> {
    const outcome = { success: false, error: publicError(error), duration_ms: 0, usage_record_id: null };
    return this.#complete(outcome, counted);
  }

  #end(ending: Ending, reservation: Reservation): Promise<ToolOutcome> {
    const round = ending.outcome.inputRequired;
    if (ending.kind === 'input_required' && round && elicitedForms(round).length > 0) {
      return this.#suspend(round, ending.commit);
    }
    const record = recordOf(ending);
    const quotaCommit = commitOf(ending);
    if (quotaCommit === '') this.#release(reservation);
    return this.#complete(withoutInput(ending), record && { record, quotaCommit });
  }

  /**
   * Stores the round, which releases the reservation and counts no use, and asks the user.
   * @throws RunSuspended
   */
  async #suspend(round: ToolInputRequests, commit: string): Promise<never> {
    await this.#run.log.storeEntry(roundName(this.#request.callId), JSON.stringify(round));
    await this.#answers(round, commit);
    throw new Error('an input request had an answer before it was made');
  }

  async #complete(outcome: ToolOutcome, usage?: Billing | Refusal): Promise<ToolOutcome> {
    const { log } = this.#run;
    // The agent continues with the outcome while it is appended. Its next call waits for this append.
    await log.buffered(this.#appendExecuting());
    await log.buffered(log.toolCompleted(this.#request, outcome, usage));
    return outcome;
  }

  #appendExecuting(reservation?: Reservation): Promise<Reserved | undefined> {
    this.#executing ??= this.#run.log.toolExecuting(this.#request, reservation);
    return this.#executing;
  }

  /** Reserves a call whose `tool_executing` an earlier worker appended. */
  #reserve(reservation: Reservation): Promise<QuotaDecision> {
    const { quotas, clock } = this.#deps;
    return retryDuringOutage(clock, OUTAGE_RETRY_MS, () => quotas.reserve(this.#request.userId, reservation));
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

/** What the server of a tool may request of the user of a run: forms, no addresses to open. */
const FORMS = { capabilities: { elicitation: { form: {} } } } as const;

/** Entry with the latest input round of a call. */
function roundName(callId: string): string {
  return `asked:${callId}`;
}

/** Only forms can be shown to the user of a run: an agent cannot declare a capability and call the tool again. */
function withoutInput({ kind, outcome: { inputRequired: _unanswerable, ...outcome } }: Ending): ToolOutcome {
  if (kind !== 'input_required') return outcome;
  return { ...outcome, error: publicError(new TollgateError('TOOL_FAILED', { text: NEEDS_INPUT })) };
}
