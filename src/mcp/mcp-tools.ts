import type { CallToolResult, InputRequiredResult, ListToolsResult, TextContent } from '@modelcontextprotocol/server';
import { isObject } from '../lib/json.ts';
import type { MessageLimit } from '../limits/message-limit.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Fields } from '../protocol/messages.ts';
import {
  type CallOrigin,
  type ToolCallRequest,
  type ToolResult,
  type ToolsPort,
  toolCallRequest,
} from '../tools/tool-call.ts';
import type { InputExchange } from '../upstreams/input-requests.ts';
import { invalidParams } from './mcp-errors.ts';
import { type InputRound, openInputRound } from './mcp-input-requests.ts';
import type { RequestStates } from './request-states.ts';

/**
 * Member of a call's `_meta` with the idempotency key. MCP requires a new id for a repeated call and has no other way
 * to recognise the repetition.
 */
export const IDEMPOTENCY_KEY = 'tollgate/idempotencyKey';
/** Same bound as in the message `tool_call`. */
const MAX_KEY_LENGTH = 128;

/** The caller of an MCP request and its limits. */
export interface McpCaller extends CallOrigin {
  readonly limit: MessageLimit;
}

export type McpTools = Pick<ToolsPort, 'describe' | 'isUpstream' | 'call'>;

export interface McpToolCall {
  readonly name: string;
  readonly args: Fields;
  readonly meta: Fields | undefined;
  /** Ends the execution. Undefined for a call that continues when its caller disconnects. */
  readonly signal: AbortSignal | undefined;
  /** Undefined when the caller did not request progress. */
  readonly onProgress?: ToolCallRequest['onProgress'];
  /** Undefined when the caller cannot receive input requests. */
  readonly input: InputExchange | undefined;
}

export interface McpToolsDeps {
  readonly tools: McpTools;
  readonly states: RequestStates;
}

/**
 * Lists the tools that the caller may use and that have an executor, in the order of the catalogue. Others are omitted,
 * because a model calls any listed tool, and MCP cannot mark a tool as unavailable.
 */
export function listTools(tools: McpTools, { identity }: McpCaller): ListToolsResult {
  const usable = tools.describe(identity).filter(({ name, available }) => available && mayCall(identity, name));
  return {
    tools: usable.map(({ name, description, arguments: schema, permission, units }) => ({
      name,
      description,
      inputSchema: { ...schema, type: 'object' as const },
      _meta: { 'tollgate/permission': permission, 'tollgate/units': units },
    })),
  };
}

/** Returns whether a tool is among those of the agent, if an agent of a run calls. */
function mayCall({ run }: McpCaller['identity'], tool: string): boolean {
  return run?.tools.includes(tool) ?? true;
}

/** Calls a tool. Failures and invalid arguments are results with `isError`. @throws TollgateError for a refusal */
export async function callTool(
  { tools, states }: McpToolsDeps,
  caller: McpCaller,
  call: McpToolCall,
): Promise<CallToolResult | InputRequiredResult> {
  try {
    const idempotencyKey = keyOf(call.meta);
    const { userId } = caller.identity;
    if (!mayCall(caller.identity, call.name)) throw new TollgateError('TOOL_NOT_FOUND');
    const stated = { userId, method: 'tools/call', name: call.name, args: call.args, idempotencyKey } as const;
    // A request above the message limit gets RATE_LIMITED and no information about its state.
    if (call.input?.requestState !== undefined) await caller.limit.allowed;
    const round = call.input && openInputRound(states, stated, call.input);
    const { finished } = await tools.call(requestOf(caller, call, round), caller.limit);
    const result = await finished;
    if (round && result.inputRequired) {
      const state = { callId: result.tool_call_id, asked: result.inputRequired.round };
      return { ...round.requireInput(result.inputRequired, state), _meta: metaOf(result) };
    }
    if (round) refuseMissingCapability(result);
    return { ...contentOf(result, tools.isUpstream(call.name)), _meta: metaOf(result) };
  } catch (thrown) {
    if (!(thrown instanceof TollgateError)) throw thrown;
    // A tool that the plan hides gets the same response as an unknown one, so that callers cannot detect its existence.
    if (thrown.code === 'PERMISSION_DENIED' || thrown.code === 'TOOL_NOT_FOUND') {
      throw new TollgateError('TOOL_NOT_FOUND', { fields: { tool_name: call.name } });
    }
    // Sent as a result, because a model can then correct its arguments; an error only reaches the client (SEP-1303).
    if (thrown.code === 'FORMAT_ERROR') return failure(thrown.message, { code: thrown.code });
    throw thrown;
  }
}

/** Missing client capabilities are an error that names them, not a result (MCP 2026-07-28). */
function refuseMissingCapability({ error }: ToolResult): void {
  if (error?.code !== 'MISSING_CLIENT_CAPABILITY') return;
  const { requiredCapabilities } = error;
  throw new TollgateError('MISSING_CLIENT_CAPABILITY', { fields: { requiredCapabilities } });
}

/** Returns the idempotency key of a call; undefined without one. @throws ProtocolError for an invalid key */
export function keyOf(meta: Fields | undefined): string | undefined {
  const key = meta?.[IDEMPOTENCY_KEY];
  if (key === undefined) return undefined;
  const isText = typeof key === 'string' && key.isWellFormed();
  if (isText && key !== '' && key.length <= MAX_KEY_LENGTH) return key;
  throw invalidParams(`_meta["${IDEMPOTENCY_KEY}"] must be a string of 1 to ${MAX_KEY_LENGTH} characters.`);
}

function requestOf(caller: McpCaller, call: McpToolCall, round: InputRound | undefined): ToolCallRequest {
  const { name, args, meta, signal, onProgress } = call;
  return toolCallRequest(caller, {
    tool: name,
    args,
    transport: 'mcp',
    idempotencyKey: keyOf(meta),
    callId: round?.before?.callId,
    signal,
    onProgress,
    input: round && { ...round.input, answered: round.before?.asked ?? 0 },
  });
}

function metaOf(meta: ToolResult): Record<string, unknown> {
  return {
    'tollgate/toolCallId': meta.tool_call_id,
    'tollgate/usageRecordId': meta.usage_record_id,
    'tollgate/durationMs': meta.duration_ms,
    'tollgate/repeated': meta.repeated,
    'tollgate/rateLimitStatus': meta.rate_limit_status,
  };
}

function contentOf({ success, result, error }: ToolResult, upstream: boolean): CallToolResult {
  if (!success) return failure(String(error?.message ?? 'The tool failed.'), error ?? {});
  // A truncated result no longer has the form of MCP.
  if (upstream && isObject(result) && Array.isArray(result.content)) {
    const { content, structuredContent } = result;
    if (structuredContent === undefined) return { content };
    // MCP 2025-11-25 lets a server answer with structured content only. Clients that pass `content` on to their model,
    // such as @ai-sdk/mcp 2.0.99, would then pass on an empty result.
    return { content: content.length === 0 ? [textOf(structuredContent)] : content, structuredContent };
  }
  return {
    content: [textOf(result)],
    ...(isObject(result) ? { structuredContent: result } : {}),
  };
}

function textOf(value: unknown): TextContent {
  return { type: 'text', text: JSON.stringify(value) };
}

function failure(text: string, error: Fields): CallToolResult {
  return { isError: true, content: [{ type: 'text', text }], structuredContent: { error } };
}
