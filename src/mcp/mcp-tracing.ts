import { userHash } from '../lib/logger.ts';
import { parseTraceParent, type Span, type Tracing } from '../lib/tracing.ts';
import type { Identity } from '../protocol/identity.ts';

/** What a name of a span may be made of: a client can make up any other. */
const METHODS: ReadonlySet<unknown> = new Set([
  'initialize',
  'ping',
  'server/discover',
  'tools/list',
  'tools/call',
  'resources/list',
  'resources/read',
  'resources/templates/list',
  'prompts/list',
  'prompts/get',
]);

export interface McpTracingDeps {
  readonly tracing: Tracing;
  /** Whether a client's own trace is gone on with, and its decision on recording taken over. */
  readonly trustsTraces: boolean;
}

export interface TracedMcpRequest {
  readonly method: unknown;
  readonly params: unknown;
  readonly identity: Identity;
  readonly transportName: 'http' | 'websocket';
  /** The header of the request; the message's own says more. */
  readonly traceparent?: unknown;
}

/**
 * One MCP request, by the semantic conventions of MCP. A client that has authenticated may have begun the trace: it says so
 * in `_meta.traceparent` (SEP-414), or over HTTP in the header of the same name. Its `tracestate` and `baggage` are
 * anything that it likes, and end here.
 */
export function traceMcp<T>(
  { tracing, trustsTraces }: McpTracingDeps,
  request: TracedMcpRequest,
  work: (span: Span) => Promise<T>,
): Promise<T> {
  const method = METHODS.has(request.method) ? String(request.method) : 'other';
  const meta = parseTraceParent(metaTraceParent(request.params)) ?? parseTraceParent(request.traceparent);
  const parent = trustsTraces ? meta : undefined;
  return tracing.root(method, { kind: 'server', parent }, (span) => {
    if (span.recording) {
      span.set({
        'mcp.method.name': method,
        'network.transport': 'tcp',
        'network.protocol.name': request.transportName,
        'user.hash': userHash(request.identity.userId),
        'tollgate.plan': request.identity.plan,
      });
    }
    return work(span);
  });
}

function metaTraceParent(params: unknown): unknown {
  const meta = member(params, '_meta');
  return member(meta, 'traceparent');
}

function member(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
}
