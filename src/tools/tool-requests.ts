import type { RateLimitStatus } from '../limits/quotas.ts';
import type { Refusal } from '../usage/records.ts';
import type { ToolInputExchange } from './input-required.ts';
import type { Billing, ToolCaller, ToolOutcome } from './outcome.ts';
import type { ToolArguments, ToolContext } from './tool.ts';

/** The run that a tool call belongs to. */
export interface CallingRun {
  readonly userId: string;
  readonly runId: string;
  readonly threadId: string;
  readonly requestId: string;
  readonly transport: string;
  readonly caller: ToolCaller;
  /** Milliseconds since the epoch. */
  readonly acceptedAt: number;
}

/** Records the tool calls of one run, and returns the outcomes of those that an earlier worker completed. */
export interface CallJournal {
  journaled(callId: string): ToolOutcome | undefined;
  toolExecuting(call: { tool: string; callId: string; args: ToolArguments }): Promise<void>;
  toolCompleted(call: { tool: string; callId: string }, outcome: ToolOutcome, usage?: Billing | Refusal): Promise<void>;
}

/** A call within a run. */
export interface RunToolCall {
  readonly run: CallingRun;
  readonly log: CallJournal;
  readonly tool: string;
  readonly args: ToolArguments;
  readonly callId: string;
  readonly signal: AbortSignal;
}

/** A call outside a run. */
export interface ToolRequest {
  readonly userId: string;
  readonly caller: ToolCaller;
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
  readonly input?: ToolInputExchange | undefined;
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
