import type { CallToolResult, InputRequiredResult, ListToolsResult } from '@modelcontextprotocol/server';
import type { ToolDescription } from '../catalogue/permissions.ts';
import { derivedId, newId } from '../lib/ids.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import type { Fields } from '../protocol/messages.ts';
import type { ToolRequest, ToolResult } from '../tools/tool-requests.ts';
import { invalidParams } from './mcp-errors.ts';
import { type InputRound, type McpInputExchange, openInputRound } from './mcp-input-requests.ts';
import type { RequestStates } from './request-states.ts';

/**
 * The specification has clients repeat a broken call under a new id and gives them nothing to recognise it by: this
 * member of a call's `_meta` is.
 */
export const IDEMPOTENCY_KEY = 'tollgate/idempotencyKey';
/** As long as everywhere else: see `tool_call`. */
const MAX_KEY_LENGTH = 128;

/** Who calls, and on which terms. */
export interface McpCaller {
  readonly identity: Identity;
  /** Whether the session could not be verified for too long; then only free tools can be used. */
  readonly degraded: boolean;
  /** The thread of calls that name none. */
  readonly threadId: string;
  /** Settles when the message limit has been asked; rejects for a request above it. */
  readonly allowed: Promise<void>;
}

/** What MCP needs of the tools: the same function that serves every other road. */
export interface McpTools {
  describe(identity: Identity): readonly ToolDescription[];
  /** Whether a server executes it, whose results have MCP's own form. */
  isUpstream(tool: string): boolean;
  /** @throws TollgateError for a refusal: see `ToolService.call` */
  call(request: ToolRequest, allowed: Promise<void>): Promise<{ readonly finished: Promise<ToolResult> }>;
}

export interface McpToolCall {
  readonly name: string;
  readonly args: Fields;
  readonly meta: Fields | undefined;
  /** Ends the execution. Undefined for a call that goes on whatever becomes of its caller. */
  readonly signal: AbortSignal | undefined;
  /** Undefined where nobody asked how far it has come. */
  readonly onProgress?: ToolRequest['onProgress'];
  /** Undefined where the caller cannot be asked anything. */
  readonly input: McpInputExchange | undefined;
}

export interface McpToolsDeps {
  readonly tools: McpTools;
  readonly states: RequestStates;
}

/**
 * The tools that the caller may use and somebody executes, in the catalogue's order: a model would call what it is shown,
 * and MCP has no mark for a tool that is there and cannot be used.
 */
export function listTools(tools: McpTools, { identity }: McpCaller): ListToolsResult {
  const usable = tools.describe(identity).filter(({ available }) => available);
  return {
    tools: usable.map(({ name, description, arguments: schema, permission, units }) => ({
      name,
      description,
      inputSchema: { ...schema, type: 'object' as const },
      _meta: { 'tollgate/permission': permission, 'tollgate/units': units },
    })),
  };
}

/** @throws TollgateError for a refusal; a failure of the tool, or arguments that do not fit, are results with `isError` */
export async function callTool(
  { tools, states }: McpToolsDeps,
  caller: McpCaller,
  call: McpToolCall,
): Promise<CallToolResult | InputRequiredResult> {
  try {
    const idempotencyKey = keyOf(call.meta);
    const { userId } = caller.identity;
    const stated = { userId, method: 'tools/call', name: call.name, args: call.args, idempotencyKey } as const;
    // Whoever is above the limit is told that, and nothing of a state.
    if (call.input?.requestState !== undefined) await caller.allowed;
    const round = call.input && openInputRound(states, stated, call.input);
    const { finished } = await tools.call(toolRequest(caller, call, round), caller.allowed);
    const result = await finished;
    if (round && result.questions) {
      const { asked: inputRound } = result.questions;
      return {
        ...round.requireInput(result.questions, { callId: result.tool_call_id, asked: inputRound }),
        _meta: metaOf(result),
      };
    }
    if (round) refuseMissingCapability(result);
    return { ...contentOf(result, tools.isUpstream(call.name)), _meta: metaOf(result) };
  } catch (thrown) {
    if (!(thrown instanceof TollgateError)) throw thrown;
    // What the plan hides is not there: who asks for it must not learn that it is, from this answer or by comparing.
    if (thrown.code === 'PERMISSION_DENIED' || thrown.code === 'TOOL_NOT_FOUND') {
      throw new TollgateError('TOOL_NOT_FOUND', { fields: { tool_name: call.name } });
    }
    // A model can correct its arguments when it is told as a result; an error ends in the client (SEP-1303).
    if (thrown.code === 'FORMAT_ERROR') return failure(thrown.message, { code: thrown.code });
    throw thrown;
  }
}

/** A tool that needs more of its caller is no result, but an error that names what (MCP 2026-07-28). */
function refuseMissingCapability({ error }: ToolResult): void {
  if (error?.code !== 'MISSING_CLIENT_CAPABILITY') return;
  const { requiredCapabilities } = error;
  throw new TollgateError('MISSING_CLIENT_CAPABILITY', { fields: { requiredCapabilities } });
}

/** The key of a call, undefined without one. @throws TollgateError when it is none */
export function keyOf(meta: Fields | undefined): string | undefined {
  const key = meta?.[IDEMPOTENCY_KEY];
  if (key === undefined) return undefined;
  const isText = typeof key === 'string' && key.isWellFormed();
  if (isText && key !== '' && key.length <= MAX_KEY_LENGTH) return key;
  throw invalidParams(`_meta["${IDEMPOTENCY_KEY}"] must be a string of 1 to ${MAX_KEY_LENGTH} characters.`);
}

function toolRequest(caller: McpCaller, call: McpToolCall, round: InputRound | undefined): ToolRequest {
  const { name, args, meta, signal, onProgress } = call;
  const { userId, plan, permissions, roles, featureFlags } = caller.identity;
  const key = keyOf(meta);
  return {
    userId,
    caller: { plan, permissions, roles, featureFlags, degraded: caller.degraded },
    tool: name,
    args,
    callId: round?.before?.callId ?? (key === undefined ? newId('call') : derivedId('call', userId, key)),
    threadId: caller.threadId,
    requestId: null,
    idempotencyKey: key ?? null,
    transport: 'mcp',
    ...(signal ? { signal } : {}),
    ...(onProgress ? { onProgress } : {}),
    ...(round ? { input: { ...round.input, answered: round.before?.asked ?? 0 } } : {}),
  };
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
  // What has been cut has its form no more.
  if (upstream && isObject(result) && Array.isArray(result.content)) {
    const { content, structuredContent } = result;
    return { content, ...(structuredContent === undefined ? {} : { structuredContent }) };
  }
  return {
    content: [{ type: 'text', text: JSON.stringify(result) }],
    ...(isObject(result) ? { structuredContent: result } : {}),
  };
}

function failure(text: string, error: Fields): CallToolResult {
  return { isError: true, content: [{ type: 'text', text }], structuredContent: { error } };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
