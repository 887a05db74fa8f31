import type { Permissions } from '../catalogue/permissions.ts';
import type { Tool, ToolCatalogue, UpstreamTool } from '../catalogue/tool-catalogue.ts';
import { type Clock, sleep } from '../lib/clock.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Tracing } from '../lib/tracing.ts';
import type { MessageLimit } from '../limits/message-limit.ts';
import type { Quotas, RateLimitStatus, Reservation } from '../limits/quotas.ts';
import { publicError, TollgateError } from '../protocol/errors.ts';
import type { Refusal, UsageRecord } from '../protocol/usage.ts';
import { retryDuringOutage, writeRefusal } from '../redis/errors.ts';
import { type Execution, refusal, usageRecord } from '../usage/records.ts';
import type { CallDetails, CallStore } from './call-store.ts';
import { OUTAGE_RETRY_MS, type ToolCaller, type ToolOutcome } from './outcome.ts';
import type { ToolArguments, ToolExecutor } from './tool.ts';
import { type Executed, ToolExecution } from './tool-execution.ts';
import type { RunToolCall, ToolRequest, ToolResult } from './tool-requests.ts';
import { traceCall, traceEnd, traceReserve } from './tool-tracing.ts';

/** Interval at which a repetition polls the outcome of a running call with the same key. */
const POLL_MS = 100;
/** Time beyond the running call's deadline that a repetition waits for the outcome. */
const WAIT_MARGIN_MS = 15_000;
/** Time that running calls have to complete when the process stops. */
const CLOSE_TIMEOUT_MS = 5_000;
/** Time to record the calls that were stopped after `CLOSE_TIMEOUT_MS`. */
const RECORD_TIMEOUT_MS = 2_000;

const DEGRADED = 'Only free tools are available until the session is verified again. Try again later.';

export interface ToolServiceDeps {
  readonly tools: ToolCatalogue;
  readonly permissions: Permissions;
  readonly quotas: Quotas;
  readonly calls: CallStore;
  readonly executors: Readonly<Record<string, ToolExecutor>>;
  readonly upstream?: (tool: UpstreamTool) => ToolExecutor;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'toolCalls' | 'toolSeconds' | 'toolCallsInFlight' | 'refusedWrites'>;
  readonly logger: Logger;
  readonly tracing: Tracing;
}

export interface ToolServiceOptions {
  /** Timeout of one execution, in milliseconds. */
  readonly timeoutMs: number;
  /** Maximum number of concurrent calls outside runs in this process. */
  readonly concurrency: number;
}

/** Completes a call that has begun. */
type Finish = () => Promise<ToolResult>;

/**
 * Executes tool calls for all transports: check permission → reserve quota → append `tool_executing` → execute with a
 * signal and a timeout → append `tool_completed`, the usage record and the commit in one script. Refusals are free.
 *
 * In a run, the run log fences the writer and returns the calls completed before a takeover. Outside a run, the call
 * has its own entry in Redis. It begins once and ends once: through this process or, if the process failed, the sweep.
 */
export class ToolService {
  readonly #deps: ToolServiceDeps;
  readonly #concurrency: number;
  readonly #execution: ToolExecution;
  readonly #inFlight = new Set<Promise<unknown>>();
  readonly #stop = new AbortController();
  #closing = false;

  constructor(deps: ToolServiceDeps, options: ToolServiceOptions) {
    this.#deps = deps;
    this.#concurrency = options.concurrency;
    this.#execution = new ToolExecution(deps, options);
  }

  /**
   * Executes a call of an agent. Refusals and failures are outcomes: the agent receives them and the log stores them.
   * @throws RunOwnershipLost when another worker owns the run or the run has ended
   */
  callInRun(call: RunToolCall): Promise<ToolOutcome> {
    return traceCall(this.#deps, call, () => this.#callInRun(call));
  }

  async #callInRun(call: RunToolCall): Promise<ToolOutcome> {
    const { run, log, tool: name, args, callId } = call;
    const remembered = log.journaled(callId);
    if (remembered) {
      await log.toolExecuting({ tool: name, callId, args });
      await log.toolCompleted({ tool: name, callId }, remembered);
      return remembered;
    }
    const admitted = await this.#admitInRun(call);
    if (admitted instanceof TollgateError) {
      this.#deps.tracing.failed(admitted);
      const error = publicError(this.#count(admitted, name, run.transport));
      const outcome = { success: false, error, duration_ms: 0, usage_record_id: null };
      await log.toolCompleted({ tool: name, callId }, outcome, this.#refusal(run.userId, run.caller.plan, name));
      return outcome;
    }
    const { tool, reservation } = admitted;
    const context = { userId: run.userId, caller: run.caller, threadId: run.threadId, callId, runId: run.runId };
    const executed = await this.#execution.run(tool, args, context, call.signal);
    const end = this.#endWithRecord(tool, executed, reservation, {
      callId,
      acceptedAt: run.acceptedAt,
      user_id: run.userId,
      plan: run.caller.plan,
      run_id: run.runId,
      thread_id: run.threadId,
      request_id: run.requestId,
      idempotency_key: null,
      transport: run.transport,
    });
    if (!executed.began) this.#release(run.userId, reservation);
    await traceEnd(this.#deps, end.record, () => log.toolCompleted({ tool: name, callId }, end.outcome, end));
    return end.outcome;
  }

  /**
   * Executes a call outside a run. The message limit, the reservation and `tool_executing` take one round trip, the end
   * takes another.
   * @returns when the call has begun or was recognised as a repetition; `finished` settles with the result
   * @throws TollgateError for a refusal: PERMISSION_DENIED, QUOTA_EXCEEDED, RATE_LIMITED, FORMAT_ERROR, TOOL_NOT_FOUND,
   *   TOOL_NOT_AVAILABLE, IDEMPOTENCY_CONFLICT, REQUEST_STATE_INVALID, AUTH_SERVICE_UNAVAILABLE, OVERLOADED,
   *   SERVER_DRAINING
   */
  call(request: ToolRequest, limit: MessageLimit): Promise<{ readonly finished: Promise<ToolResult> }> {
    return traceCall(this.#deps, request, async (span) => {
      const call = await this.#call(request, limit);
      span.until(call.finished);
      return call;
    });
  }

  async #call(request: ToolRequest, limit: MessageLimit): Promise<{ readonly finished: Promise<ToolResult> }> {
    const started = this.#start(request, limit).catch((error: unknown) => {
      throw error instanceof TollgateError ? this.#count(error, request.tool, request.transport) : error;
    });
    const finished = started.then((finish) => finish());
    this.#inFlight.add(finished);
    this.#deps.metrics.toolCallsInFlight.set(this.#inFlight.size);
    const remove = () => {
      this.#inFlight.delete(finished);
      this.#deps.metrics.toolCallsInFlight.set(this.#inFlight.size);
    };
    finished.then(remove, remove);
    await started;
    return { finished };
  }

  /** Waits for running calls, then stops the rest and waits for their records. The sweep ends what remains. */
  async close(): Promise<void> {
    this.#closing = true;
    await Promise.race([Promise.allSettled(this.#inFlight), sleep(this.#deps.clock, CLOSE_TIMEOUT_MS)]);
    this.#stop.abort(new TollgateError('SERVER_DRAINING'));
    await Promise.race([Promise.allSettled(this.#inFlight), sleep(this.#deps.clock, RECORD_TIMEOUT_MS)]);
  }

  /** Makes all checks that need no round trip. Returns the tool, or the refusal. */
  #authorize(name: string, args: ToolArguments, caller: ToolCaller): Tool | TollgateError {
    const tool = this.#deps.tools.get(name);
    if (!tool) return new TollgateError('TOOL_NOT_FOUND', { fields: { tool_name: name } });
    const { allowed, reason, ...decision } = this.#deps.permissions.decide(tool, caller);
    if (!allowed) {
      return new TollgateError('PERMISSION_DENIED', { text: reason, fields: { tool_name: name, ...decision } });
    }
    if (caller.degraded && tool.units > 0) return new TollgateError('AUTH_SERVICE_UNAVAILABLE', { text: DEGRADED });
    if (tool.executor === 'none' || !this.#execution.has(tool)) {
      return new TollgateError('TOOL_NOT_AVAILABLE', { fields: { tool_name: name } });
    }
    const problem = tool.argumentsProblem(args);
    if (problem !== undefined) return new TollgateError('FORMAT_ERROR', { text: problem, fields: { tool_name: name } });
    return tool;
  }

  /** Reserves quota and appends `tool_executing`, sent together. A refused call is logged as an attempt, too. */
  async #admitInRun(call: RunToolCall): Promise<{ tool: Tool; reservation: Reservation } | TollgateError> {
    const { run, log, tool: name, args, callId } = call;
    const tool = this.#authorize(name, args, run.caller);
    if (tool instanceof TollgateError) {
      await log.toolExecuting({ tool: name, callId, args });
      return tool;
    }
    const reservation = this.#deps.quotas.reservationFor({ callId, tool, caller: run.caller });
    const reserve = () => traceReserve(this.#deps, () => this.#deps.quotas.reserve(run.userId, reservation));
    const [decision, written] = await Promise.allSettled([
      retryDuringOutage(this.#deps.clock, OUTAGE_RETRY_MS, reserve),
      log.toolExecuting({ tool: name, callId, args }),
    ]);
    // No release: the worker that owns the run now makes the same call and uses the same reservation.
    if (written.status === 'rejected') throw written.reason;
    if (decision.status === 'rejected') throw decision.reason;
    return decision.value.allowed ? { tool, reservation } : decision.value.error;
  }

  async #start(request: ToolRequest, limit: MessageLimit): Promise<Finish> {
    const tool = this.#authorize(request.tool, request.args, request.caller);
    const full = this.#full();
    if (tool instanceof TollgateError || full) {
      // A message above the message limit gets RATE_LIMITED and no other error.
      await limit.allowed;
      throw tool instanceof TollgateError ? this.#refuse(request, tool) : full;
    }
    const { userId, callId, args } = request;
    const mayRequestInput = request.input !== undefined && tool.upstream !== undefined;
    const reservation = this.#deps.quotas.reservationFor({ callId, tool, caller: request.caller, mayRequestInput });
    const call = { request, tool, reservation, details: this.#details(request, tool) };
    const entry = { userId, callId, args, details: call.details, reservation, messages: limit.messages };
    const [allowed, entered] = await Promise.allSettled([
      limit.allowed,
      traceReserve(this.#deps, () => this.#deps.calls.begin(entry)),
    ]);
    if (allowed.status === 'rejected') {
      // The limiter and the script read different counters because Redis became available between them.
      if (entered.status === 'fulfilled' && entered.value.outcome === 'begun')
        await this.#abandon(call, allowed.reason);
      throw allowed.reason;
    }
    if (entered.status === 'rejected') return this.#withoutRecord(call, entered.reason);
    const result = entered.value;
    switch (result.outcome) {
      case 'begun':
      case 'refused': {
        const decision = reservation.decision(result.outcome === 'begun', result.reply);
        if (!decision.allowed) throw this.#refuse(request, decision.error);
        return () => this.#finish(call, decision.status);
      }
      case 'keys':
        throw this.#refuse(request, reservation.newKeys.refusal(result.reply));
      case 'done':
        return async () => repetition(request, result.stored);
      case 'running':
        return () => this.#await(request, result.remainingMs);
      case 'limited':
        throw new TollgateError('RATE_LIMITED');
      case 'conflict':
        throw this.#refuse(request, new TollgateError('IDEMPOTENCY_CONFLICT'));
      case 'forgotten':
        throw new TollgateError('REQUEST_STATE_INVALID');
    }
  }

  #full(): TollgateError | undefined {
    if (this.#closing) return new TollgateError('SERVER_DRAINING');
    return this.#inFlight.size >= this.#concurrency ? new TollgateError('OVERLOADED') : undefined;
  }

  #details({ caller, threadId, requestId, idempotencyKey, transport, input }: ToolRequest, tool: Tool): CallDetails {
    return {
      tool: tool.name,
      permission: tool.permission,
      plan: caller.plan,
      thread_id: threadId,
      request_id: requestId,
      idempotency_key: idempotencyKey,
      transport,
      started_at: this.#deps.clock.now(),
      answered: input?.answered ?? 0,
    };
  }

  async #finish(call: StartedCall, rate_limit_status: RateLimitStatus): Promise<ToolResult> {
    const { request, tool, reservation, details } = call;
    const { userId, callId } = request;
    const executed = await this.#execution.run(tool, request.args, request, this.#stopOf(request));
    const { plan, thread_id, request_id, idempotency_key, transport, started_at: acceptedAt } = details;
    const ids = { acceptedAt, thread_id, request_id, idempotency_key, run_id: null };
    const end =
      executed.status === 'input_required'
        ? this.#endWithInputRequest(call, executed)
        : this.#endWithRecord(tool, executed, reservation, { callId, user_id: userId, plan, transport, ...ids });
    const write = () => this.#deps.calls.end({ userId, callId, details, ...end });
    const outcome = await traceEnd(this.#deps, end.record, () => {
      return retryDuringOutage(this.#deps.clock, OUTAGE_RETRY_MS, write);
    });
    return { tool: tool.name, tool_call_id: callId, ...outcome, repeated: false, rate_limit_status };
  }

  #stopOf({ signal }: ToolRequest): AbortSignal {
    return signal ? AbortSignal.any([signal, this.#stop.signal]) : this.#stop.signal;
  }

  /** Ends a call that needs input: releases the reservation, counts the input round, counts and charges no use. */
  #endWithInputRequest(
    { request, tool, reservation, details }: StartedCall,
    { outcome, startedAt, completedAt }: Executed,
  ) {
    this.#deps.metrics.toolCalls.inc({ tool: tool.name, transport: request.transport, status: 'input_required' });
    const duration_ms = Math.max(0, completedAt - startedAt);
    // If capabilities are missing, the round stays the same, so the caller can repeat the request and declare more.
    const inputRound = ('questions' in outcome ? outcome.questions?.asked : undefined) ?? details.answered ?? 0;
    return {
      outcome: { ...outcome, duration_ms, usage_record_id: null },
      record: undefined,
      quotaCommit: reservation.inputRequired,
      inputRound,
    };
  }

  /** Ends a call that has begun in Redis but must not be executed. */
  async #abandon({ request, details }: StartedCall, reason: unknown): Promise<void> {
    const error = publicError(reason instanceof TollgateError ? reason : new TollgateError('OVERLOADED'));
    const outcome = { success: false, error, duration_ms: 0, usage_record_id: null };
    const { userId, callId } = request;
    // A call that continues with an answer must accept the same answer again.
    const { answered = 0 } = details;
    const again = answered > 0 ? { inputRound: answered } : { refused: true as const };
    await this.#deps.calls.end({ userId, callId, details, outcome, record: undefined, quotaCommit: '', ...again });
  }

  /**
   * Handles a Redis that refuses writes because its memory or disk is full, so that it can neither count nor record.
   * Rejects paid calls and calls with an idempotency key. Free calls run without events and with only the limits of
   * this node, since there is nothing to bill.
   */
  #withoutRecord({ request, tool }: StartedCall, reason: unknown): Finish {
    const refusal = writeRefusal(reason);
    if (refusal) this.#deps.metrics.refusedWrites.inc({ reason: refusal });
    if (!refusal || tool.units > 0 || request.idempotencyKey !== null) throw reason;
    return async () => {
      // Redis cannot store an input request, so the tool must not send one.
      const context = { ...request, input: undefined };
      const executed = await this.#execution.run(tool, request.args, context, this.#stopOf(request));
      this.#deps.metrics.toolCalls.inc({ tool: tool.name, transport: request.transport, status: executed.status });
      const duration_ms = Math.max(0, executed.completedAt - executed.startedAt);
      const outcome = { ...executed.outcome, duration_ms, usage_record_id: null };
      return { tool: tool.name, tool_call_id: request.callId, ...outcome, repeated: false, rate_limit_status: null };
    };
  }

  /** Waits for the outcome of the running call with the same id; that call ends through its node or the sweep. */
  async #await(request: ToolRequest, remainingMs: number): Promise<ToolResult> {
    const deadlineAt = this.#deps.clock.now() + Math.max(0, remainingMs) + WAIT_MARGIN_MS;
    while (this.#deps.clock.now() < deadlineAt && !this.#stop.signal.aborted) {
      await sleep(this.#deps.clock, POLL_MS, this.#stop.signal);
      const outcome = await retryDuringOutage(this.#deps.clock, OUTAGE_RETRY_MS, () => {
        return this.#deps.calls.outcome(request.userId, request.callId);
      });
      if (outcome) return repetition(request, outcome);
    }
    throw new TollgateError(this.#closing ? 'SERVER_DRAINING' : 'OVERLOADED');
  }

  /** Returns the usage record, the outcome with the record's id, and the quota commit. */
  #endWithRecord(
    tool: Tool,
    { status, began, outcome, startedAt, completedAt }: Executed,
    reservation: Reservation,
    ids: Omit<Execution, 'tool' | 'permission' | 'status' | 'units' | 'startedAt' | 'completedAt'>,
  ): { outcome: ToolOutcome; record: UsageRecord; quotaCommit: string } {
    const { name, permission, units } = tool;
    // A run has no caller that could answer an input request, so it counts as a failure.
    const recorded = status === 'input_required' ? 'error' : status;
    const record = usageRecord({ ...ids, tool: name, permission, status: recorded, units, startedAt, completedAt });
    this.#deps.metrics.toolCalls.inc({ tool: name, transport: ids.transport, status: recorded });
    return {
      outcome: { ...outcome, duration_ms: record.duration_ms, usage_record_id: record.id },
      record,
      quotaCommit: began ? reservation.commit({ units: record.units, completedAt: record.completed_at }) : '',
    };
  }

  #release(userId: string, reservation: Reservation): void {
    this.#deps.quotas.release(userId, reservation).catch((error: Error) => {
      const context = { user: userHash(userId), error: error.message };
      this.#deps.logger.debug(context, 'reservation release failed, it will expire');
    });
  }

  /** Counts a refusal in the tallies. Does not wait for Redis, because refusals are not billed. */
  #refuse({ userId, caller, tool }: ToolRequest, error: TollgateError): TollgateError {
    this.#deps.calls.refused(userId, this.#refusal(userId, caller.plan, tool)).catch((cause: Error) => {
      this.#deps.logger.debug({ user: userHash(userId), error: cause.message }, 'refusal was not counted');
    });
    return error;
  }

  #refusal(userId: string, plan: string, tool: string): Refusal {
    return refusal(userId, plan, this.#deps.tools.get(tool)?.name, this.#deps.clock.now());
  }

  /** Counts a refusal in the metrics. Names outside the catalogue share one label, to bound the cardinality. */
  #count(error: TollgateError, tool: string, transport: string): TollgateError {
    const label = this.#deps.tools.get(tool) ? tool : 'unknown';
    this.#deps.metrics.toolCalls.inc({ tool: label, transport, status: error.code });
    return error;
  }
}

interface StartedCall {
  readonly request: ToolRequest;
  readonly tool: Tool;
  readonly reservation: Reservation;
  readonly details: CallDetails;
}

/** Returns the result of a repeated call. Includes input requests only if the caller can answer them. */
function repetition({ tool, callId, input }: ToolRequest, { questions, ...outcome }: ToolOutcome): ToolResult {
  const visible = { ...outcome, ...(input && questions ? { questions } : {}) };
  return { tool, tool_call_id: callId, ...visible, repeated: true, rate_limit_status: null };
}
