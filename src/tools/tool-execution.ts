import type { Tool, UpstreamTool } from '../catalogue/tool-catalogue.ts';
import type { Clock } from '../lib/clock.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Tracing } from '../lib/tracing.ts';
import { type PublicError, publicError, TollgateError } from '../protocol/errors.ts';
import type { Fields } from '../protocol/messages.ts';
import type { UsageStatus } from '../protocol/usage.ts';
import { boundedResult } from './built-in/result.ts';
import { InputRequired, type ToolInputRequests } from './input-required.ts';
import type { ToolArguments, ToolContext, ToolExecutor } from './tool.ts';
import { traceExecution } from './tool-tracing.ts';

export interface ToolExecutionDeps {
  readonly executors: Readonly<Record<string, ToolExecutor>>;
  /** Returns the executor of an upstream tool; undefined in a process without upstreams. */
  readonly upstream?: (tool: UpstreamTool) => ToolExecutor;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'toolSeconds'>;
  readonly logger: Logger;
  readonly tracing: Tracing;
}

/** Result of an execution. */
export interface Executed {
  /** `input_required`: the tool needs input from its caller and did not finish. This is not counted or charged. */
  readonly status: UsageStatus | 'input_required';
  /** False when the call was stopped before its executor was called; such a call counts no use. */
  readonly began: boolean;
  readonly outcome:
    | { readonly success: true; readonly result: Fields }
    | { readonly success: false; readonly error: PublicError; readonly questions?: ToolInputRequests };
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly completedAt: number;
}

/** Runs executors with a signal, a timeout and a bounded result. Converts every thrown error to an outcome. */
export class ToolExecution {
  readonly #deps: ToolExecutionDeps;
  readonly #timeoutMs: number;

  constructor(deps: ToolExecutionDeps, options: { readonly timeoutMs: number }) {
    this.#deps = deps;
    this.#timeoutMs = options.timeoutMs;
  }

  /** Returns whether the tool has an executor in this process. */
  has(tool: Tool): boolean {
    return this.#executorOf(tool) !== undefined;
  }

  /** Never rejects. @param signal stops the execution; an error thrown after that is not reported as a tool failure */
  async run(
    tool: Tool,
    args: ToolArguments,
    context: Omit<ToolContext, 'signal'>,
    signal: AbortSignal,
  ): Promise<Executed> {
    const { clock, metrics } = this.#deps;
    const startedAt = clock.now();
    const began = !signal.aborted;
    const call = { tool: tool.name, callId: context.callId };
    const attempt = () => this.#attempt(tool, args, context, signal);
    const outcome = began ? await traceExecution(this.#deps, call, attempt) : stopped();
    const completedAt = clock.now();
    if (began) metrics.toolSeconds.observe({ tool: tool.name }, (completedAt - startedAt) / 1000);
    return { status: statusOf(outcome, signal), began, outcome, startedAt, completedAt };
  }

  #executorOf({ name, upstream }: Tool): ToolExecutor | undefined {
    const { executors, upstream: executorOf } = this.#deps;
    if (upstream) return executorOf?.(upstream);
    return Object.hasOwn(executors, name) ? executors[name] : undefined;
  }

  async #attempt(
    tool: Tool,
    args: ToolArguments,
    context: Omit<ToolContext, 'signal'>,
    signal: AbortSignal,
  ): Promise<Executed['outcome']> {
    const executor = this.#executorOf(tool);
    if (!executor) throw new Error(`${tool.name} has no executor`);
    const timeout = new AbortController();
    const cancelTimeout = this.#deps.clock.after(this.#timeoutMs, () => {
      timeout.abort(new TollgateError('TOOL_FAILED', { text: 'The tool took too long.' }));
    });
    const limited = AbortSignal.any([signal, timeout.signal]);
    try {
      const result = await abortable(() => executor(args, { ...context, signal: limited }), limited);
      return { success: true, result: boundedResult(result) };
    } catch (thrown) {
      if (signal.aborted) return stopped();
      const error = thrown instanceof TollgateError ? thrown : new TollgateError('TOOL_FAILED', { cause: thrown });
      if (error instanceof InputRequired) {
        return { success: false, error: publicError(error), questions: error.inputRequests };
      }
      this.#deps.tracing.failed(error);
      const logContext = { user: userHash(context.userId), run_id: context.runId, call: context.callId };
      if (error.cause) this.#deps.logger.warn({ ...logContext, tool: tool.name, err: error.cause }, 'tool failed');
      return { success: false, error: publicError(error) };
    } finally {
      cancelTimeout();
    }
  }
}

function statusOf(outcome: Executed['outcome'], signal: AbortSignal): Executed['status'] {
  if (outcome.success) return 'success';
  const { code } = outcome.error;
  if (code === 'INPUT_REQUIRED' || code === 'MISSING_CLIENT_CAPABILITY') return 'input_required';
  return signal.aborted ? 'cancelled' : 'error';
}

function stopped(): Executed['outcome'] {
  return { success: false, error: publicError(new TollgateError('TOOL_FAILED', { text: 'The call was stopped.' })) };
}

/** Settles like `work`, or rejects once `signal` aborts: a tool that ignores its signal must not block a call. */
function abortable<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    // Called inside a promise, so that a synchronous throw of the executor becomes a rejection.
    new Promise<T>((start) => start(work()))
      .then(resolve, reject)
      .finally(() => signal.removeEventListener('abort', abort));
  });
}
