import { describe, expect, it } from '@jest/globals';
import { InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace';
import { type TracedMcpRequest, traceMcp } from '../../src/mcp/mcp-tracing.ts';
import type { Identity } from '../../src/protocol/identity.ts';
import { OtelTracing } from '../../src/telemetry/otel-tracing.ts';

const SENT = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
const HEADER = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
const identity = { userId: 'user_secret', plan: 'pro' } as Identity;

async function spanOf(request: Partial<TracedMcpRequest>, trustsTraces = true) {
  const exporter = new InMemorySpanExporter();
  const options = { resource: {}, sampler: 'parentbased_always_on', ratio: 1 } as const;
  const nameError = () => ({ type: 'none', failure: true });
  const tracing = new OtelTracing({ processor: new SimpleSpanProcessor({ exporter }) }, { ...options, nameError });
  const traced = { method: 'tools/call', params: {}, identity, transportName: 'http', ...request } as const;
  await traceMcp({ tracing, trustsTraces }, traced, async () => undefined);
  const [span] = exporter.getFinishedSpans();
  if (!span) throw new Error('no span');
  return { name: span.name, attributes: span.attributes, parent: span.parentSpanContext?.spanId };
}

describe('a request over MCP', () => {
  it.each([
    [
      'what its message says, before the header',
      { params: { _meta: { traceparent: SENT } }, traceparent: HEADER },
      'b7ad6b7169203331',
    ],
    ['what the header says, when its message says nothing', { traceparent: HEADER }, '00f067aa0ba902b7'],
    [
      'what the header says, when its message says nonsense',
      { params: { _meta: { traceparent: 7 } }, traceparent: HEADER },
      '00f067aa0ba902b7',
    ],
    ['nothing, when nobody says anything', {}, undefined],
    ['nothing, when its parameters are none', { params: 'text' }, undefined],
  ])('continues %s', async (_what, request, parent) => {
    expect((await spanOf(request)).parent).toBe(parent);
  });

  it('ignores the trace of untrusted clients', async () => {
    expect(
      (await spanOf({ params: { _meta: { traceparent: SENT } }, traceparent: HEADER }, false)).parent,
    ).toBeUndefined();
  });

  it('is named by a method of the protocol, and by nothing that a client makes up', async () => {
    expect((await spanOf({ method: 'tools/list' })).name).toBe('tools/list');
    for (const method of ['tools/secret', 7, undefined, '__proto__']) {
      const { name, attributes } = await spanOf({ method });
      expect([name, attributes['mcp.method.name']]).toEqual(['other', 'other']);
    }
  });

  it('names its user by a hash', async () => {
    const { attributes } = await spanOf({});
    expect(attributes['user.hash']).toMatch(/^[0-9a-f]{12}$/);
    expect(JSON.stringify(attributes)).not.toContain('user_secret');
  });
});
