import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Permissions } from '../policy/permissions.ts';
import type { Tool, ToolCatalogue } from '../policy/tool-catalogue.ts';
import { publicError, TollgateError } from '../protocol/errors.ts';
import { type Refusal, refusal, type UsageStatus, usageRecord } from '../usage/records.ts';
import type { RunLog, ToolOutcome } from './run-log.ts';
import type { ClaimedRun } from './runs.ts';
import type { ToolArguments, ToolContext, ToolExecutor } from './tools/tool.ts';

/** Longer than any built-in tool takes; a run has 45 s in all. */
const TOOL_TIMEOUT_MS = 30_000;
/** A larger result does not fit into an event. */
const MAX_RESULT_BYTES = 64 * 1024;

const DEGRADED = 'Only free tools can be used until the session can be verified again; try again later.';

export interface ToolRunnerDeps {
  readonly catalogue: ToolCatalogue;
  readonly permissions: Permissions;
  readonly executors: Readonly<Record<string, ToolExecutor>>;
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface ToolCall {
  readonly run: ClaimedRun;
  readonly log: RunLog;
  readonly tool: string;
  readonly args: ToolArguments;
  readonly callId: string;
  readonly signal: AbortSignal;
}

/** Runs tools for agents: permission, events, execution, and the usage record with the event that it belongs to. */
export class ToolRunner {
  readonly #deps: ToolRunnerDeps;

  constructor(deps: ToolRunnerDeps) {
    this.#deps = deps;
  }

  /**
   * Runs one call. A refusal and a failure are outcomes, which the agent sees and the log keeps; a refusal costs nothing.
   * @throws RunLost when the run is somebody else's by now
   */
  async call(call: ToolCall): Promise<ToolOutcome> {
    const { log, tool, args, callId } = call;
    await log.toolExecuting({ tool, callId, args });
    const remembered = log.remembered(callId);
    if (remembered) {
      await log.toolCompleted({ tool, callId }, remembered);
      return remembered;
    }
    const allowed = this.#allowed(call);
    if (allowed instanceof TollgateError) {
      const outcome = { success: false, error: publicError(allowed), duration_ms: 0, usage_record_id: null };
      await log.toolCompleted({ tool, callId }, outcome, this.#refusal(call));
      return outcome;
    }
    return this.#execute(call, allowed);
  }

  #refusal({ run, tool }: ToolCall): Refusal {
    return refusal(run.userId, run.caller.plan, this.#deps.catalogue.get(tool)?.name, this.#deps.clock.now());
  }

  #allowed({ run, tool: name, args }: ToolCall): Tool | TollgateError {
    const tool = this.#deps.catalogue.get(name);
    if (!tool) return new TollgateError('TOOL_NOT_FOUND', { fields: { tool_name: name } });
    const { allowed, reason, ...decision } = this.#deps.permissions.decide(tool, run.caller);
    if (!allowed) return new TollgateError('PERMISSION_DENIED', { text: reason, fields: decision });
    if (run.caller.degraded && tool.units > 0) return new TollgateError('AUTH_SERVICE_UNAVAILABLE', { text: DEGRADED });
    const problem = tool.argumentsProblem(args);
    if (problem !== undefined) return new TollgateError('FORMAT_ERROR', { text: problem });
    if (!this.#deps.executors[name]) return new TollgateError('TOOL_NOT_AVAILABLE', { fields: { tool_name: name } });
    return tool;
  }

  async #execute(call: ToolCall, tool: Tool): Promise<ToolOutcome> {
    const { run, log, callId } = call;
    const startedAt = this.#deps.clock.now();
    const executed = await this.#attempt(call);
    const completedAt = this.#deps.clock.now();
    const record = usageRecord({
      callId,
      user_id: run.userId,
      plan: run.caller.plan,
      tool: tool.name,
      permission: tool.permission,
      status: executed.status,
      units: tool.units,
      run_id: run.runId,
      thread_id: run.threadId,
      request_id: run.requestId,
      idempotency_key: null,
      transport: run.transport,
      startedAt,
      completedAt,
    });
    const outcome = { ...executed.outcome, duration_ms: record.duration_ms, usage_record_id: record.id };
    await log.toolCompleted({ tool: tool.name, callId }, outcome, record);
    return outcome;
  }

  async #attempt(
    call: ToolCall,
  ): Promise<{ status: UsageStatus; outcome: Pick<ToolOutcome, 'success' | 'result' | 'error'> }> {
    const { run, tool, args, callId, signal } = call;
    const executor = this.#deps.executors[tool] as ToolExecutor;
    const timeout = new AbortController();
    const cancelTimeout = this.#deps.clock.after(TOOL_TIMEOUT_MS, () => timeout.abort());
    const limited = AbortSignal.any([signal, timeout.signal]);
    const context: ToolContext = {
      userId: run.userId,
      caller: run.caller,
      threadId: run.threadId,
      callId,
      signal: limited,
    };
    try {
      const result = await abortable(executor(args, context), limited);
      if (Buffer.byteLength(JSON.stringify(result)) > MAX_RESULT_BYTES) {
        throw new TollgateError('TOOL_FAILED', { text: 'The result of the tool is too large.' });
      }
      return { status: 'success', outcome: { success: true, result } };
    } catch (thrown) {
      const status = signal.aborted ? 'cancelled' : 'error';
      const error = thrown instanceof TollgateError ? thrown : new TollgateError('TOOL_FAILED', { cause: thrown });
      if (error.code === 'TOOL_FAILED') this.#deps.logger.warn({ tool, err: error.cause }, 'a tool failed');
      return { status, outcome: { success: false, error: publicError(error) } };
    } finally {
      cancelTimeout();
    }
  }
}

/** `work`, or a rejection as soon as `signal` aborts: a tool that ignores its signal does not hold the run. */
function abortable<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) return abort();
    signal.addEventListener('abort', abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
