import type { Tool } from '../catalogue/tool-catalogue.ts';
import { type Clock, sleep } from '../lib/clock.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { MessageLimit } from '../limits/message-limit.ts';
import { publicError, TollgateError } from '../protocol/errors.ts';
import type { Refusal } from '../protocol/usage.ts';
import { retryDuringOutage, writeRefusal } from '../redis/errors.ts';
import type { BeginResult, CallDetails, CallStore } from './call-store.ts';
import { OUTAGE_RETRY_MS, type ToolOutcome } from './outcome.ts';
import type { Begin, BegunCall, CallJournal, ReservedCall } from './pipeline.ts';
import type { ToolCallRequest } from './tool-call.ts';

/** Interval at which a repetition polls the outcome of a running call with the same key. */
const POLL_MS = 100;
/** Time beyond the running call's deadline that a repetition waits for the outcome. */
const WAIT_MARGIN_MS = 15_000;

export interface StandaloneJournalDeps {
  readonly calls: CallStore;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'refusedWrites'>;
  readonly logger: Logger;
  /** Returns why this process accepts no further call; undefined if it does. */
  readonly rejection: () => TollgateError | undefined;
  /** Aborts when the process stops. */
  readonly stop: AbortSignal;
}

/**
 * Records a call outside a run, which has its own entry in Redis. It begins once and ends once: through this process
 * or, if the process failed, the sweep. The message limit, the reservation and `tool_executing` take one round trip,
 * the end takes another.
 */
export class StandaloneJournal implements CallJournal {
  readonly #deps: StandaloneJournalDeps;
  readonly #request: ToolCallRequest;
  readonly #limit: MessageLimit;

  constructor(deps: StandaloneJournalDeps, request: ToolCallRequest, limit: MessageLimit) {
    this.#deps = deps;
    this.#request = request;
    this.#limit = limit;
  }

  /** A repetition is recognised when it begins, in the same round trip. */
  replay(): undefined {
    return undefined;
  }

  async begin({ tool, reservation }: ReservedCall): Promise<Begin> {
    const rejection = this.#deps.rejection();
    if (rejection) {
      // A message above the message limit gets RATE_LIMITED and no other error.
      await this.#limit.allowed;
      throw rejection;
    }
    const { userId, callId, args } = this.#request;
    const details = this.#details(tool);
    const entry = { userId, callId, args, details, reservation, messages: this.#limit.messages };
    const [allowed, entered] = await Promise.allSettled([this.#limit.allowed, this.#deps.calls.begin(entry)]);
    if (allowed.status === 'rejected') {
      // The limiter and the script read different counters because Redis became available between them.
      if (entered.status === 'fulfilled' && entered.value.kind === 'begun')
        await this.#abandon(details, allowed.reason);
      throw allowed.reason;
    }
    if (entered.status === 'rejected') return this.#unrecorded(details, tool, entered.reason);
    return this.#begun(details, entered.value);
  }

  /** Counts the refusal in the tallies without waiting for Redis, because refusals are not billed. */
  async refuse(error: TollgateError, counted: Refusal): Promise<never> {
    await this.#limit.allowed;
    const { userId } = this.#request;
    this.#deps.calls.refused(userId, counted).catch((cause: Error) => {
      this.#deps.logger.debug({ user: userHash(userId), error: cause.message }, 'refusal was not counted');
    });
    throw error;
  }

  #details(tool: Tool): CallDetails {
    const { caller, threadId, requestId, idempotencyKey, transport, input, runId, agent } = this.#request;
    return {
      tool: tool.name,
      permission: tool.permission,
      plan: caller.plan,
      thread_id: threadId,
      request_id: requestId,
      idempotency_key: idempotencyKey,
      transport,
      ...(runId === undefined ? {} : { run_id: runId }),
      ...(agent === undefined ? {} : { agent_name: agent }),
      started_at: this.#deps.clock.now(),
      answered: input?.answered ?? 0,
    };
  }

  #begun(details: CallDetails, result: BeginResult): Begin {
    switch (result.kind) {
      case 'begun':
        return this.#call(details, result.status);
      case 'refused':
        return result;
      case 'ended':
        return { kind: 'repeated', outcome: async () => this.#visible(result.outcome) };
      case 'running':
        return { kind: 'repeated', outcome: () => this.#await(result.remainingMs) };
      case 'limited':
        throw new TollgateError('RATE_LIMITED');
      case 'forgotten':
        throw new TollgateError('REQUEST_STATE_INVALID');
    }
  }

  #call(details: CallDetails, status: BegunCall['status']): BegunCall {
    const { userId, callId } = this.#request;
    return {
      kind: 'begun',
      status,
      acceptedAt: details.started_at,
      mayRequestInput: true,
      end: (ending) => {
        const write = () => this.#deps.calls.end({ userId, callId, details, ending });
        return retryDuringOutage(this.#deps.clock, OUTAGE_RETRY_MS, write);
      },
    };
  }

  /** Ends a call that has begun in Redis but must not be executed. */
  async #abandon(details: CallDetails, reason: unknown): Promise<void> {
    const error = publicError(reason instanceof TollgateError ? reason : new TollgateError('OVERLOADED'));
    const outcome = { success: false, error, duration_ms: 0, usage_record_id: null };
    const { userId, callId } = this.#request;
    await this.#deps.calls.end({ userId, callId, details, ending: { kind: 'refused', outcome } });
  }

  /**
   * Handles a Redis that refuses writes because its memory or disk is full, so that it can neither count nor record.
   * Rejects paid calls and calls with an idempotency key. Free calls run without events and with only the limits of
   * this node, since there is nothing to bill.
   */
  #unrecorded(details: CallDetails, tool: Tool, reason: unknown): BegunCall {
    const refusal = writeRefusal(reason);
    if (refusal) this.#deps.metrics.refusedWrites.inc({ reason: refusal });
    if (!refusal || tool.units > 0 || this.#request.idempotencyKey !== null) throw reason;
    return {
      ...this.#call(details, null),
      // Redis cannot store an input request, so the tool must not send one.
      mayRequestInput: false,
      end: async ({ outcome }) => ({ ...outcome, usage_record_id: null }),
    };
  }

  /** Waits for the outcome of the running call with the same id; that call ends through its node or the sweep. */
  async #await(remainingMs: number): Promise<ToolOutcome> {
    const { clock, calls, stop } = this.#deps;
    const { userId, callId } = this.#request;
    const deadlineAt = clock.now() + Math.max(0, remainingMs) + WAIT_MARGIN_MS;
    while (clock.now() < deadlineAt && !stop.aborted) {
      await sleep(clock, POLL_MS, stop);
      const outcome = await retryDuringOutage(clock, OUTAGE_RETRY_MS, () => calls.outcome(userId, callId));
      if (outcome) return this.#visible(outcome);
    }
    throw this.#deps.rejection() ?? new TollgateError('OVERLOADED');
  }

  /** Returns the outcome of a repeated call, with input requests only if this caller can answer them. */
  #visible({ inputRequired, ...outcome }: ToolOutcome): ToolOutcome {
    return { ...outcome, ...(this.#request.input && inputRequired ? { inputRequired } : {}) };
  }
}
