import type { RateLimitStatus } from '../limits/quotas.ts';
import type { Refusal } from '../protocol/usage.ts';
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
  /** Derived from user and idempotency key, if there is one, so that a repetition has the same id on every node. */
  readonly callId: string;
  readonly threadId: string;
  readonly requestId: string | null;
  readonly idempotencyKey: string | null;
  readonly transport: string;
  /** Aborts when the caller cancels. The execution is then stopped and recorded as cancelled. */
  readonly signal?: AbortSignal | undefined;
  /** Receives progress during the execution; not called for a repetition of a call that has already begun. */
  readonly onProgress?: ToolContext['onProgress'];
  /** The caller's input capabilities and answers; undefined when the caller cannot receive input requests. */
  readonly input?: ToolInputExchange | undefined;
}

/** Result of a call as returned to its caller. */
export interface ToolResult extends ToolOutcome {
  readonly tool: string;
  readonly tool_call_id: string;
  /** True when the outcome is that of an earlier call under the same idempotency key. */
  readonly repeated: boolean;
  /** Null when no limit was checked. */
  readonly rate_limit_status: RateLimitStatus | null;
}
