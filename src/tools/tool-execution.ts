import type { Tool, UpstreamTool } from '../catalogue/tool-catalogue.ts';
import type { Clock } from '../lib/clock.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Tracing } from '../lib/tracing.ts';
import { withDeadline } from '../lib/with-deadline.ts';
import { type PublicError, publicError, TollgateError } from '../protocol/errors.ts';
import type { Fields } from '../protocol/messages.ts';
import { boundedResult } from './built-in/result.ts';
import {
  InputRequired,
  type ToolArguments,
  type ToolContext,
  type ToolExecutor,
  type ToolInputRequests,
} from './tool.ts';
import { traceExecution } from './tool-tracing.ts';

export interface Executors {
  readonly executors: Readonly<Record<string, ToolExecutor>>;
  /** Returns the executor of an upstream tool; undefined in a process without upstreams. */
  readonly upstream?: (tool: UpstreamTool) => ToolExecutor;
}

/** Returns the executor of a tool; undefined if the tool has none in this process. */
export function executorOf({ executors, upstream: executorFor }: Executors, tool: Tool): ToolExecutor | undefined {
  if (tool.executor === 'none') return undefined;
  if (tool.upstream) return executorFor?.(tool.upstream);
  return Object.hasOwn(executors, tool.name) ? executors[tool.name] : undefined;
}

export interface ExecutionDeps {
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'toolSeconds'>;
  readonly logger: Logger;
  readonly tracing: Tracing;
}

export interface Execution {
  readonly tool: string;
  readonly executor: ToolExecutor;
  readonly args: ToolArguments;
  readonly context: ToolContext;
  readonly timeoutMs: number;
}

/** How an execution ended. */
export type ExecutionEnd =
  | { readonly kind: 'success'; readonly result: Fields }
  | { readonly kind: 'error' | 'cancelled'; readonly error: PublicError }
  /** Cancelled before the executor was called. */
  | { readonly kind: 'stopped'; readonly error: PublicError }
  /** The tool needs input from its caller and did not finish. Without requests if the caller lacks a capability. */
  | { readonly kind: 'input_required'; readonly error: PublicError; readonly inputRequests?: ToolInputRequests };

export type Executed = ExecutionEnd & {
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly completedAt: number;
};

/**
 * Runs an executor with a timeout and a bounded result. Never rejects. After an abort of the signal of the context, an
 * error of the executor is a cancellation, not a failure of the tool.
 */
export async function executeTool(deps: ExecutionDeps, execution: Execution): Promise<Executed> {
  const { clock, metrics } = deps;
  const { tool, context } = execution;
  const startedAt = clock.now();
  if (context.signal.aborted) return { ...stopped('stopped'), startedAt, completedAt: startedAt };
  const end = await traceExecution(deps, { tool, callId: context.callId }, () => attempt(deps, execution));
  const completedAt = clock.now();
  metrics.toolSeconds.observe({ tool }, (completedAt - startedAt) / 1000);
  return { ...end, startedAt, completedAt };
}

async function attempt(
  { clock, tracing, logger }: ExecutionDeps,
  { tool, executor, args, context, timeoutMs }: Execution,
): Promise<ExecutionEnd> {
  const { signal, userId, runId, callId } = context;
  const timeout = new AbortController();
  const timeoutError = () => {
    timeout.abort(new TollgateError('TOOL_FAILED', { text: 'The tool took too long.' }));
    return timeout.signal.reason;
  };
  try {
    const limited = { ...context, signal: AbortSignal.any([signal, timeout.signal]) };
    // The tool may ignore its signal, which must not block the call.
    const result = await withDeadline({ clock, timeoutMs, timeoutError, signal }, () => executor(args, limited));
    return { kind: 'success', result: boundedResult(result) };
  } catch (thrown) {
    if (signal.aborted) return stopped('cancelled');
    if (thrown instanceof InputRequired) {
      return { kind: 'input_required', error: publicError(thrown), inputRequests: thrown.inputRequests };
    }
    const error = thrown instanceof TollgateError ? thrown : new TollgateError('TOOL_FAILED', { cause: thrown });
    tracing.failed(error);
    const logContext = { user: userHash(userId), run_id: runId, call: callId, tool };
    if (error.cause) logger.warn({ ...logContext, err: error.cause }, 'tool failed');
    return { kind: error.code === 'MISSING_CLIENT_CAPABILITY' ? 'input_required' : 'error', error: publicError(error) };
  }
}

function stopped<Kind extends 'stopped' | 'cancelled'>(kind: Kind) {
  return { kind, error: publicError(new TollgateError('TOOL_FAILED', { text: 'The call was stopped.' })) };
}
