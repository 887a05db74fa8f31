import { type ToolCaller, type ToolDescription, toolCallerOf } from '../catalogue/permissions.ts';
import { derivedId, newId } from '../lib/ids.ts';
import type { MessageLimit } from '../limits/message-limit.ts';
import type { RateLimitStatus, UsageSummary } from '../limits/quotas.ts';
import type { Identity } from '../protocol/identity.ts';
import type { ToolOutcome } from './outcome.ts';
import type { ToolArguments, ToolContext } from './tool.ts';

/** A tool call, from any transport or from an agent. */
export interface ToolCallRequest extends Omit<ToolContext, 'signal'> {
  /** Whether the session could not be verified for too long; only free tools are then available. */
  readonly degraded: boolean;
  readonly tool: string;
  readonly args: ToolArguments;
  readonly requestId: string | null;
  /** Always null in a run, whose calls are identified by their position. */
  readonly idempotencyKey: string | null;
  readonly transport: string;
  /** The agent on another server that makes the call for a run. */
  readonly agent?: string;
  /** Aborts when the caller cancels. The execution is then stopped and recorded as cancelled. */
  readonly signal?: AbortSignal | undefined;
}

/** Who calls a tool outside a run, and in which thread. */
export interface CallOrigin {
  readonly identity: Identity;
  readonly degraded: boolean;
  readonly threadId: string;
}

interface RequestedCall
  extends Pick<ToolCallRequest, 'tool' | 'args' | 'transport' | 'signal' | 'onProgress' | 'input'> {
  readonly requestId?: string | undefined;
  readonly idempotencyKey: string | undefined;
  /** Id of the call that an answer to input requests continues. */
  readonly callId?: string | undefined;
}

/**
 * Builds the request of a call outside a run. Derives the call id from user and idempotency key, so that a repeated
 * request names the same call on every node.
 */
export function toolCallRequest(origin: CallOrigin, call: RequestedCall): ToolCallRequest {
  const { identity } = origin;
  const { userId, run } = identity;
  const { degraded, threadId } = run ?? origin;
  const { idempotencyKey: key, requestId, callId, ...rest } = call;
  return {
    ...rest,
    userId,
    caller: toolCallerOf(identity),
    degraded,
    threadId,
    // Keys of a run are its own: an agent must not read the outcomes of other calls of the user.
    callId:
      callId ?? (key === undefined ? newId('call') : derivedId('call', userId, run ? `${run.runId} ${key}` : key)),
    requestId: requestId ?? run?.requestId ?? null,
    ...(run ? { runId: run.runId, agent: run.agent } : {}),
    idempotencyKey: key ?? null,
  };
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

/** Port of all transports to the tools. */
export interface ToolsPort {
  describe(caller: ToolCaller): readonly ToolDescription[];
  /** Returns whether a tool server executes the tool, so that its results have the form of MCP. */
  isUpstream(tool: string): boolean;
  /**
   * Starts a call; `finished` settles with its result.
   * @param limit the pending decision of the message limiter; the call does not begin if it rejects
   * @throws TollgateError for a refusal: see `ToolService.call`
   */
  call(request: ToolCallRequest, limit: MessageLimit): Promise<{ readonly finished: Promise<ToolResult> }>;
  /** Returns the used and the remaining quota of the caller. @throws TollgateError OVERLOADED */
  usage(identity: Identity): Promise<UsageSummary>;
}
