import type { ToolCatalogue } from '../catalogue/tool-catalogue.ts';
import type { Span, Tracing } from '../lib/tracing.ts';
import type { UsageRecord } from '../protocol/usage.ts';

/** Spans of a tool call: `tool_call` is the parent of `reserve`, `execute_tool` and `settle`. */
interface Traced {
  readonly tracing: Tracing;
}

/** Uses only tool names of the catalogue, because a client can send any other string. */
export function traceCall<T>(
  { tracing, tools }: Traced & { readonly tools: Pick<ToolCatalogue, 'get'> },
  call: { readonly tool: string; readonly callId: string },
  work: (span: Span) => Promise<T>,
): Promise<T> {
  const tool = tools.get(call.tool)?.name ?? 'unknown';
  return tracing.span(`tool_call ${tool}`, { attributes: named(tool, call.callId) }, work);
}

export function traceReserve<T>({ tracing }: Traced, work: () => Promise<T>): Promise<T> {
  return tracing.span('reserve', {}, work);
}

/** Attributes follow the OpenTelemetry semantic conventions for generative AI. */
export function traceExecution<T>(
  { tracing }: Traced,
  call: { readonly tool: string; readonly callId: string },
  work: () => Promise<T>,
): Promise<T> {
  const attributes = { 'gen_ai.operation.name': 'execute_tool', ...named(call.tool, call.callId) };
  return tracing.span(`execute_tool ${call.tool}`, { attributes }, work);
}

/** Adds the id, units and status of the usage record. A call that ends with an input request has no record. */
export function traceEnd<T>({ tracing }: Traced, record: UsageRecord | undefined, work: () => Promise<T>): Promise<T> {
  const attributes: Record<string, string | number> = record
    ? {
        'tollgate.usage_record.id': record.id,
        'tollgate.usage.units': record.units,
        'tollgate.usage.status': record.status,
      }
    : {};
  return tracing.span('settle', { attributes }, work);
}

function named(tool: string, callId: string) {
  return { 'gen_ai.tool.name': tool, 'gen_ai.tool.call.id': callId };
}
