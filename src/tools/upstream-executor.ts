import type { UpstreamTool } from '../catalogue/tool-catalogue.ts';
import { MAX_INPUT_ROUNDS } from '../limits/quotas.ts';
import { TollgateError } from '../protocol/errors.ts';
import {
  type FaultKind,
  MissingCapability,
  RateLimited,
  UpstreamBusy,
  UpstreamFault,
  UpstreamRefusal,
} from '../upstreams/faults.ts';
import { InputRequiredAnswer } from '../upstreams/input-requests.ts';
import type { Upstream } from '../upstreams/upstream.ts';
import { InputRequired, type ToolExecutor, type ToolInputExchange } from './tool.ts';

/** Maximum length of a server's error text. */
const MAX_CHARACTERS = 2_000;

const FAULTS: Readonly<Record<FaultKind, string>> = {
  unreachable: "The tool's server cannot be reached. Try again later.",
  timeout: 'The tool took too long.',
  broken: "The tool's server returned no usable response.",
};
const BUSY: Readonly<Record<UpstreamBusy['reason'], string>> = {
  breaker_open: "The tool's server has failed repeatedly. Try again later.",
  concurrency: "The tool's server is at its concurrency limit. Try again.",
  rate_limited: "The tool's server limits the rate of its calls. Try again later.",
};

/**
 * Executes a tool on its tool server. The result has the form of MCP: `content` and optionally `structuredContent`. A
 * result with `isError` becomes TOOL_FAILED with the server's text.
 */
export function upstreamExecutor(
  upstreams: { get(server: string): Pick<Upstream, 'callTool'> | undefined },
  { server, tool }: Pick<UpstreamTool, 'server' | 'tool'>,
): ToolExecutor {
  return async (args, { callId, userId, signal, onProgress, input }) => {
    const upstream = upstreams.get(server);
    if (!upstream) throw new TollgateError('TOOL_NOT_AVAILABLE');
    try {
      const result = await upstream.callTool({ tool, args, callId, userId, signal, onProgress, input });
      if (result instanceof InputRequiredAnswer) throw inputRequired(result, input);
      const { content, structuredContent, isError } = result;
      if (isError) throw new TollgateError('TOOL_FAILED', { text: textOf(content) });
      return { content, ...(structuredContent === undefined ? {} : { structuredContent }) };
    } catch (thrown) {
      throw failure(thrown);
    }
  };
}

function inputRequired({ inputRequests }: InputRequiredAnswer, input: ToolInputExchange | undefined): TollgateError {
  if (input && input.answered < MAX_INPUT_ROUNDS) {
    return new InputRequired({ ...inputRequests, round: input.answered + 1 });
  }
  return failed(`The tool exceeded the limit of ${MAX_INPUT_ROUNDS} input rounds.`, undefined);
}

function failure(thrown: unknown): unknown {
  if (thrown instanceof MissingCapability) {
    return new TollgateError('MISSING_CLIENT_CAPABILITY', { fields: { requiredCapabilities: thrown.required } });
  }
  if (thrown instanceof UpstreamFault) return failed(FAULTS[thrown.kind], thrown);
  if (thrown instanceof RateLimited) return limited(thrown);
  if (thrown instanceof UpstreamBusy) return failed(BUSY[thrown.reason], undefined);
  if (thrown instanceof UpstreamRefusal) return failed(bounded(thrown.message), undefined);
  return thrown;
}

/** Unlike other failures, the same call succeeds after the time. */
function limited({ text, reason, retryAfterMs }: RateLimited): TollgateError {
  const details = { text: text === undefined ? BUSY[reason] : bounded(text), fields: { retryable: true } };
  return new TollgateError('TOOL_FAILED', retryAfterMs === undefined ? details : { ...details, retryAfterMs });
}

function failed(text: string, cause: Error | undefined): TollgateError {
  return new TollgateError('TOOL_FAILED', cause ? { text, cause } : { text });
}

function textOf(content: readonly { readonly type: string; readonly text?: unknown }[]): string {
  return bounded(content.flatMap(({ type, text }) => (type === 'text' ? [String(text)] : [])).join('\n'));
}

function bounded(text: string): string {
  return text.slice(0, MAX_CHARACTERS).toWellFormed() || 'The tool failed.';
}
