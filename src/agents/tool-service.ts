import { type Clock, sleep } from '../lib/clock.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Tracing } from '../lib/tracing.ts';
import type { Permissions } from '../policy/permissions.ts';
import type { Quotas, RateLimitStatus, Reservation } from '../policy/quotas.ts';
import type { Tool, ToolCatalogue, UpstreamTool } from '../policy/tool-catalogue.ts';
import { publicError, TollgateError } from '../protocol/errors.ts';
import { whileAway, writeRefusal } from '../redis/errors.ts';
import { type Execution, type Refusal, refusal, type UsageRecord, usageRecord } from '../usage/records.ts';
import { OUTAGE_PATIENCE_MS, type ToolOutcome } from './run-log.ts';
import type { MessageLimit, RunCaller } from './runs.ts';
import type { CallDetails, ToolCalls } from './tool-calls.ts';
import { type Executed, ToolExecution } from './tool-execution.ts';
import type { RunToolCall, ToolRequest, ToolResult } from './tool-requests.ts';
import { traceCall, traceReserve, traceSettle } from './tool-tracing.ts';
import type { ToolArguments, ToolExecutor } from './tools/tool.ts';

/** A call under the same key that is still running is looked at this often, and this much longer than it may take. */
const LOOK_AGAIN_MS = 100;
const WAIT_MARGIN_MS = 15_000;
/** What a stopping process gives its calls to end by themselves, and then to be recorded. */
const CLOSE_PATIENCE_MS = 5_000;
const SETTLE_PATIENCE_MS = 2_000;

const DEGRADED = 'Only free tools can be used until the session can be verified again; try again later.';

export interface ToolServiceDeps {
  readonly tools: ToolCatalogue;
  readonly permissions: Permissions;
  readonly quotas: Quotas;
  readonly calls: ToolCalls;
  readonly executors: Readonly<Record<string, ToolExecutor>>;
  readonly upstream?: (tool: UpstreamTool) => ToolExecutor;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'toolCalls' | 'toolSeconds' | 'toolCallsUnderWay' | 'refusedWrites'>;
  readonly logger: Logger;
  readonly tracing: Tracing;
}

export interface ToolServiceOptions {
  /** Milliseconds that one execution may take. */
  readonly timeoutMs: number;
  /** Calls outside runs that this process executes at once. */
  readonly concurrency: number;
}

/** What is left to do for a call that has begun. */
type Finish = () => Promise<ToolResult>;

/**
 * Executes tools, on every road: permission → place within the limits → `tool_executing` → execution with a signal and a
 * deadline → one step that writes `tool_completed`, the usage record and the use. A refusal costs nothing.
 *
 * Within a run the run's log says who may write, and what was done before a takeover. Outside one, the call itself has an
 * entry in Redis: it begins once, and ends once, by this process or, when that is gone, by the sweep.
 */
export class ToolService {
  readonly #deps: ToolServiceDeps;
  readonly #concurrency: number;
  readonly #execution: ToolExecution;
  readonly #underWay = new Set<Promise<unknown>>();
  readonly #stop = new AbortController();
  #closing = false;

  constructor(deps: ToolServiceDeps, options: ToolServiceOptions) {
    this.#deps = deps;
    this.#concurrency = options.concurrency;
    this.#execution = new ToolExecution(deps, options);
  }

  /**
   * A call of an agent. A refusal and a failure are outcomes, which the agent sees and the log keeps.
   * @throws RunLost when the run is somebody else's by now
   */
  callInRun(call: RunToolCall): Promise<ToolOutcome> {
    return traceCall(this.#deps, call, () => this.#callInRun(call));
  }

  async #callInRun(call: RunToolCall): Promise<ToolOutcome> {
    const { run, log, tool: name, args, callId } = call;
    const remembered = log.remembered(callId);
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
    const { tool, place } = admitted;
    const context = { userId: run.userId, caller: run.caller, threadId: run.threadId, callId, runId: run.runId };
    const executed = await this.#execution.run(tool, args, context, call.signal);
    const end = this.#endOf(tool, executed, place, {
      callId,
      begunAt: run.acceptedAt,
      user_id: run.userId,
      plan: run.caller.plan,
      run_id: run.runId,
      thread_id: run.threadId,
      request_id: run.requestId,
      idempotency_key: null,
      transport: run.transport,
    });
    if (!executed.began) this.#release(run.userId, place);
    await traceSettle(this.#deps, end.record, () => log.toolCompleted({ tool: name, callId }, end.outcome, end));
    return end.outcome;
  }

  /**
   * A call outside a run. The message limit, the place and `tool_executing` are one round trip, and so is the end.
   * @returns when the call has begun or was recognised; `finished` settles with what its caller is told
   * @throws TollgateError for a refusal: PERMISSION_DENIED, QUOTA_EXCEEDED, RATE_LIMITED, FORMAT_ERROR, TOOL_NOT_FOUND,
   *   TOOL_NOT_AVAILABLE, IDEMPOTENCY_CONFLICT, REQUEST_STATE_INVALID, AUTH_SERVICE_UNAVAILABLE, OVERLOADED, SERVER_DRAINING
   */
  call(request: ToolRequest, limit: MessageLimit): Promise<{ readonly finished: Promise<ToolResult> }> {
    return traceCall(this.#deps, request, async (span) => {
      const call = await this.#call(request, limit);
      span.until(call.finished);
      return call;
    });
  }

  async #call(request: ToolRequest, limit: MessageLimit): Promise<{ readonly finished: Promise<ToolResult> }> {
    const begun = this.#begin(request, limit).catch((error: unknown) => {
      throw error instanceof TollgateError ? this.#count(error, request.tool, request.transport) : error;
    });
    const finished = begun.then((finish) => finish());
    this.#underWay.add(finished);
    this.#deps.metrics.toolCallsUnderWay.set(this.#underWay.size);
    const gone = () => {
      this.#underWay.delete(finished);
      this.#deps.metrics.toolCallsUnderWay.set(this.#underWay.size);
    };
    finished.then(gone, gone);
    await begun;
    return { finished };
  }

  /** Lets calls end, stops those that do not, and has them recorded; what is left then is the sweep's. */
  async close(): Promise<void> {
    this.#closing = true;
    await Promise.race([Promise.allSettled(this.#underWay), sleep(this.#deps.clock, CLOSE_PATIENCE_MS)]);
    this.#stop.abort(new TollgateError('SERVER_DRAINING'));
    await Promise.race([Promise.allSettled(this.#underWay), sleep(this.#deps.clock, SETTLE_PATIENCE_MS)]);
  }

  /** What can be said without asking anybody. */
  #judge(name: string, args: ToolArguments, caller: RunCaller): Tool | TollgateError {
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

  /** The place and `tool_executing`, in one flight; a refused call is in the log as one that was tried. */
  async #admitInRun(call: RunToolCall): Promise<{ tool: Tool; place: Reservation } | TollgateError> {
    const { run, log, tool: name, args, callId } = call;
    const tool = this.#judge(name, args, run.caller);
    if (tool instanceof TollgateError) {
      await log.toolExecuting({ tool: name, callId, args });
      return tool;
    }
    const place = this.#deps.quotas.place({ callId, tool, caller: run.caller });
    const reserve = () => traceReserve(this.#deps, () => this.#deps.quotas.reserve(run.userId, place));
    const [decision, written] = await Promise.allSettled([
      whileAway(this.#deps.clock, OUTAGE_PATIENCE_MS, reserve),
      log.toolExecuting({ tool: name, callId, args }),
    ]);
    // Not given back: whoever has the run by now makes the same call, in the same place.
    if (written.status === 'rejected') throw written.reason;
    if (decision.status === 'rejected') throw decision.reason;
    return decision.value.allowed ? { tool, place } : decision.value.error;
  }

  async #begin(request: ToolRequest, limit: MessageLimit): Promise<Finish> {
    const tool = this.#judge(request.tool, request.args, request.caller);
    const full = this.#full();
    if (tool instanceof TollgateError || full) {
      // A message over its limit is told that, and nothing else.
      await limit.allowed;
      throw tool instanceof TollgateError ? this.#refuse(request, tool) : full;
    }
    const { userId, callId, args } = request;
    const asks = request.asking !== undefined && tool.upstream !== undefined;
    const place = this.#deps.quotas.place({ callId, tool, caller: request.caller, asks });
    const call = { request, tool, place, details: this.#details(request, tool) };
    const begin = { userId, callId, args, details: call.details, place, messages: limit.messages };
    const [allowed, begun] = await Promise.allSettled([
      limit.allowed,
      traceReserve(this.#deps, () => this.#deps.calls.begin(begin)),
    ]);
    if (allowed.status === 'rejected') {
      // The limiter and the script saw different counters: Redis came back between the two.
      if (begun.status === 'fulfilled' && begun.value.outcome === 'begun') await this.#abandon(call, allowed.reason);
      throw allowed.reason;
    }
    if (begun.status === 'rejected') return this.#withoutRecord(call, begun.reason);
    const beginning = begun.value;
    switch (beginning.outcome) {
      case 'begun':
      case 'refused': {
        const decision = place.decision(beginning.outcome === 'begun', beginning.reply);
        if (!decision.allowed) throw this.#refuse(request, decision.error);
        return () => this.#finish(call, decision.status);
      }
      case 'keys':
        throw this.#refuse(request, place.newKeys.refusal(beginning.reply));
      case 'done':
        return async () => repetition(request, beginning.stored);
      case 'running':
        return () => this.#await(request, beginning.leftMs);
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
    return this.#underWay.size >= this.#concurrency ? new TollgateError('OVERLOADED') : undefined;
  }

  #details({ caller, threadId, requestId, idempotencyKey, transport, asking }: ToolRequest, tool: Tool): CallDetails {
    return {
      tool: tool.name,
      permission: tool.permission,
      plan: caller.plan,
      thread_id: threadId,
      request_id: requestId,
      idempotency_key: idempotencyKey,
      transport,
      started_at: this.#deps.clock.now(),
      answered: asking?.answered ?? 0,
    };
  }

  async #finish(call: BegunCall, rate_limit_status: RateLimitStatus): Promise<ToolResult> {
    const { request, tool, place, details } = call;
    const { userId, callId } = request;
    const executed = await this.#execution.run(tool, request.args, request, this.#stopOf(request));
    const { plan, thread_id, request_id, idempotency_key, transport, started_at: begunAt } = details;
    const ids = { begunAt, thread_id, request_id, idempotency_key, run_id: null };
    const end =
      executed.status === 'input_required'
        ? this.#questionOf(call, executed)
        : this.#endOf(tool, executed, place, { callId, user_id: userId, plan, transport, ...ids });
    const settle = () => this.#deps.calls.end({ userId, callId, details, ...end });
    const outcome = await traceSettle(this.#deps, end.record, () => {
      return whileAway(this.#deps.clock, OUTAGE_PATIENCE_MS, settle);
    });
    return { tool: tool.name, tool_call_id: callId, ...outcome, repeated: false, rate_limit_status };
  }

  #stopOf({ signal }: ToolRequest): AbortSignal {
    return signal ? AbortSignal.any([signal, this.#stop.signal]) : this.#stop.signal;
  }

  /** The end of a call that asks its caller: its place is given back, and neither a use is counted nor anything charged. */
  #questionOf({ request, tool, place, details }: BegunCall, { outcome, startedAt, completedAt }: Executed) {
    this.#deps.metrics.toolCalls.inc({ tool: tool.name, transport: request.transport, status: 'input_required' });
    const duration_ms = Math.max(0, completedAt - startedAt);
    // A caller that has declared too little may make the same request with more.
    const asked = ('questions' in outcome ? outcome.questions?.asked : undefined) ?? details.answered ?? 0;
    return {
      outcome: { ...outcome, duration_ms, usage_record_id: null },
      record: undefined,
      settlement: place.question,
      asked,
    };
  }

  /** Ends a call that must not be executed after all. */
  async #abandon({ request, details }: BegunCall, reason: unknown): Promise<void> {
    const error = publicError(reason instanceof TollgateError ? reason : new TollgateError('OVERLOADED'));
    const outcome = { success: false, error, duration_ms: 0, usage_record_id: null };
    const { userId, callId } = request;
    // An answer may be given again.
    const { answered = 0 } = details;
    const again = answered > 0 ? { asked: answered } : { refused: true as const };
    await this.#deps.calls.end({ userId, callId, details, outcome, record: undefined, settlement: '', ...again });
  }

  /**
   * A Redis that refuses to write (memory or disk full) can neither count nor record. What costs something is refused
   * before it runs; what is free goes on, with no event and no limit but those of this node: there is nothing to bill.
   */
  #withoutRecord({ request, tool }: BegunCall, reason: unknown): Finish {
    const refusal = writeRefusal(reason);
    if (refusal) this.#deps.metrics.refusedWrites.inc({ reason: refusal });
    if (!refusal || tool.units > 0 || request.idempotencyKey !== null) throw reason;
    return async () => {
      // What it asks could not be remembered.
      const context = { ...request, asking: undefined };
      const executed = await this.#execution.run(tool, request.args, context, this.#stopOf(request));
      this.#deps.metrics.toolCalls.inc({ tool: tool.name, transport: request.transport, status: executed.status });
      const duration_ms = Math.max(0, executed.completedAt - executed.startedAt);
      const outcome = { ...executed.outcome, duration_ms, usage_record_id: null };
      return { tool: tool.name, tool_call_id: request.callId, ...outcome, repeated: false, rate_limit_status: null };
    };
  }

  /** The outcome of the call that has the key already, which ends by itself or by the sweep. */
  async #await(request: ToolRequest, leftMs: number): Promise<ToolResult> {
    const giveUpAt = this.#deps.clock.now() + Math.max(0, leftMs) + WAIT_MARGIN_MS;
    while (this.#deps.clock.now() < giveUpAt && !this.#stop.signal.aborted) {
      await sleep(this.#deps.clock, LOOK_AGAIN_MS, this.#stop.signal);
      const outcome = await whileAway(this.#deps.clock, OUTAGE_PATIENCE_MS, () => {
        return this.#deps.calls.outcome(request.userId, request.callId);
      });
      if (outcome) return repetition(request, outcome);
    }
    throw new TollgateError(this.#closing ? 'SERVER_DRAINING' : 'OVERLOADED');
  }

  /** The record, the outcome that names it, and what it counts. */
  #endOf(
    tool: Tool,
    { status, began, outcome, startedAt, completedAt }: Executed,
    place: Reservation,
    ids: Omit<Execution, 'tool' | 'permission' | 'status' | 'units' | 'startedAt' | 'completedAt'>,
  ): { outcome: ToolOutcome; record: UsageRecord; settlement: string } {
    const { name, permission, units } = tool;
    // Nobody is asked in a run: there it is a failure like any other.
    const told = status === 'input_required' ? 'error' : status;
    const record = usageRecord({ ...ids, tool: name, permission, status: told, units, startedAt, completedAt });
    this.#deps.metrics.toolCalls.inc({ tool: name, transport: ids.transport, status: told });
    return {
      outcome: { ...outcome, duration_ms: record.duration_ms, usage_record_id: record.id },
      record,
      settlement: began ? place.settlement({ units: record.units, completedAt: record.completed_at }) : '',
    };
  }

  #release(userId: string, place: Reservation): void {
    this.#deps.quotas.release(userId, place).catch((error: Error) => {
      const who = { user: userHash(userId), error: error.message };
      this.#deps.logger.debug(who, 'a place was not given back; it ends by itself');
    });
  }

  /** Has a refusal counted in the tallies: not waited for, since nobody pays for it. */
  #refuse({ userId, caller, tool }: ToolRequest, error: TollgateError): TollgateError {
    this.#deps.calls.refused(userId, this.#refusal(userId, caller.plan, tool)).catch((cause: Error) => {
      this.#deps.logger.debug({ user: userHash(userId), error: cause.message }, 'a refusal was not counted');
    });
    return error;
  }

  #refusal(userId: string, plan: string, tool: string): Refusal {
    return refusal(userId, plan, this.#deps.tools.get(tool)?.name, this.#deps.clock.now());
  }

  /** Counts a refusal; names that are in no catalogue share a label. */
  #count(error: TollgateError, tool: string, transport: string): TollgateError {
    const known = this.#deps.tools.get(tool) ? tool : 'unknown';
    this.#deps.metrics.toolCalls.inc({ tool: known, transport, status: error.code });
    return error;
  }
}

interface BegunCall {
  readonly request: ToolRequest;
  readonly tool: Tool;
  readonly place: Reservation;
  readonly details: CallDetails;
}

/** Questions are told to who can answer them alone. */
function repetition({ tool, callId, asking }: ToolRequest, { questions, ...outcome }: ToolOutcome): ToolResult {
  const told = { ...outcome, ...(asking && questions ? { questions } : {}) };
  return { tool, tool_call_id: callId, ...told, repeated: true, rate_limit_status: null };
}
