import { isObject } from '../lib/json.ts';
import { userHash } from '../lib/logger.ts';
import { parseTraceParent, type Span, type Tracing } from '../lib/tracing.ts';
import type { Identity } from '../protocol/identity.ts';

/** Methods that may appear in span names, because a client can send any other string. */
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
  /** Whether the gateway continues the trace of a client and adopts its sampling decision. */
  readonly trustsTraces: boolean;
}

export interface TracedMcpRequest {
  readonly method: unknown;
  readonly params: unknown;
  readonly identity: Identity;
  readonly transportName: 'http' | 'websocket';
  /** Value of the HTTP header; `_meta.traceparent` of the message takes precedence. */
  readonly traceparent?: unknown;
}

/**
 * Traces one MCP request by the OpenTelemetry semantic conventions for MCP. An authenticated client may have started
 * the trace; it sends `_meta.traceparent` (SEP-414) or, over HTTP, the header of the same name. Its `tracestate` and
 * `baggage` are untrusted and are not forwarded.
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
  const meta = isObject(params) ? params._meta : undefined;
  return isObject(meta) ? meta.traceparent : undefined;
}
