import type { RateLimitStatus } from '../policy/quotas.ts';
import type { RunLog, ToolOutcome } from './run-log.ts';
import type { ClaimedRun, RunCaller } from './runs.ts';
import type { ToolAsking } from './tools/asking.ts';
import type { ToolArguments, ToolContext } from './tools/tool.ts';

/** A call within a run. */
export interface RunToolCall {
  readonly run: ClaimedRun;
  readonly log: RunLog;
  readonly tool: string;
  readonly args: ToolArguments;
  readonly callId: string;
  readonly signal: AbortSignal;
}

/** A call outside a run. */
export interface ToolRequest {
  readonly userId: string;
  readonly caller: RunCaller;
  readonly tool: string;
  readonly args: ToolArguments;
  /** Follows from user and idempotency key, where there is one: the same call on every node. */
  readonly callId: string;
  readonly threadId: string;
  readonly requestId: string | null;
  readonly idempotencyKey: string | null;
  readonly transport: string;
  /** The caller no longer wants it: the execution is stopped, and recorded as cancelled. */
  readonly signal?: AbortSignal | undefined;
  /** Told while it runs; not of a call that had begun before. */
  readonly onProgress?: ToolContext['onProgress'];
  /** Whether the caller can be asked something by the tool, and what it has answered; undefined where it cannot. */
  readonly asking?: ToolAsking | undefined;
}

/** What a caller is told of its call. */
export interface ToolResult extends ToolOutcome {
  readonly tool: string;
  readonly tool_call_id: string;
  /** The outcome is that of an earlier call under the same idempotency key. */
  readonly repeated: boolean;
  /** Null where no limit was asked. */
  readonly rate_limit_status: RateLimitStatus | null;
}
