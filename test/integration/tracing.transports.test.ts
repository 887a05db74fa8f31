import { randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { startAdmin } from '../support/admin.ts';
import { runToEnd } from '../support/agent-runs.ts';
import { openClient, type TestClient, TRANSPORTS, type TransportName } from '../support/clients.ts';
import { legacyClient, requestLegacy, requestModern } from '../support/mcp.ts';
import { ModelServer } from '../support/model-server.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { operator } from '../support/operators.ts';
import { type CollectedSpan, OtlpCollector } from '../support/otlp-collector.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { login, mintToken, type PlanName } from '../support/tokens.ts';
import { callTool } from '../support/tool-calls.ts';

const [INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER] = [1, 2, 3, 4, 5];
const ERROR = 2;
const SECRET_TEXT = 'the-text-that-no-span-may-hold';

let collector: OtlpCollector;
let model: ModelServer;
let stack: StackProcesses;
/** Its token expires so soon that it is refreshed during the other tests. */
let refreshed: TestClient;

beforeAll(async () => {
  collector = await OtlpCollector.start();
  model = await ModelServer.start((_request, at) =>
    at % 2 === 0 ? { calls: [{ name: 'list_agents' }] } : { text: [SECRET_TEXT] },
  );
  closeAfter('file', () => model.close());
  stack = await startStack({
    env: {
      OTEL_EXPORTER_OTLP_ENDPOINT: `${collector.url}/`,
      OTEL_EXPORTER_OTLP_HEADERS: 'x-collector-key=of-the-collector',
      OTEL_RESOURCE_ATTRIBUTES: 'k8s.namespace.name=to%20test',
      OTEL_BSP_SCHEDULE_DELAY: '100',
      // Two seconds before the refresh is due.
      ACCESS_TOKEN_SECONDS: '17',
      AGENT_MODEL_URL: model.url,
      AGENT_MODEL_NAME: 'test-model',
      MESSAGE_RATE_PER_MINUTE: '1000',
    },
  });
  const { access_token: token } = await login('pro', stack.addresses);
  refreshed = await openClient({ url: url(), token, lifetime: 'file' });
});

const url = () => nodeUrl(0, stack.addresses);

async function connect(transport: TransportName, plan: PlanName = 'pro') {
  const { token, userId } = mintToken({ plan }, { stack: stack.addresses });
  const client = await openClient({ transport, url: url(), token });
  return { client, userId, token, connectionId: (await client.welcome()).connection_id };
}

/** Returns the span of the message on that connection. */
function messageSpan(type: string, connectionId: unknown): Promise<CollectedSpan> {
  return collector.span(`message ${type}`, ({ name, attributes }) => {
    return name === `message ${type}` && attributes['tollgate.connection.id'] === connectionId;
  });
}

/** Resolves with a span of the trace, and its parent. */
async function within(traceId: string, name: string): Promise<{ span: CollectedSpan; parent: string | undefined }> {
  const span = await collector.span(name, (one) => one.traceId === traceId && one.name === name);
  const parents = collector.trace(traceId).filter(({ spanId }) => spanId === span.parentSpanId);
  return { span, parent: parents[0]?.name };
}

/** Returns the batch that moved the record into the ledger, by its link. */
function ingestionOf(end: CollectedSpan): Promise<CollectedSpan> {
  return collector.span('process usage', ({ name, links }) => {
    return name === 'process usage' && links.some(({ spanId }) => spanId === end.spanId);
  });
}

describe.each(TRANSPORTS)('a chat message over %s', (transport) => {
  it('is one trace: socket, queue, worker, model and tool, and linked to it the batch of the ledger', async () => {
    const { client, userId, connectionId } = await connect(transport);
    const run = await runToEnd(client, { message: SECRET_TEXT });
    const message = await messageSpan('agent_request', connectionId);
    const { traceId } = message;
    expect(message).toMatchObject({ service: 'tollgate-gateway', kind: SERVER, parentSpanId: undefined, status: 0 });
    expect(message.attributes['tollgate.plan']).toBe('pro');

    const parents = new Map<string, string | undefined>();
    for (const name of ['send agent-runs', 'process agent-runs', 'invoke_agent triage_agent', 'chat test-model']) {
      parents.set(name, (await within(traceId, name)).parent);
    }
    for (const name of ['tool_call list_agents', 'reserve', 'execute_tool list_agents', 'settle']) {
      parents.set(name, (await within(traceId, name)).parent);
    }
    expect(Object.fromEntries(parents)).toEqual({
      'send agent-runs': 'message agent_request',
      'process agent-runs': 'send agent-runs',
      'invoke_agent triage_agent': 'process agent-runs',
      'chat test-model': 'invoke_agent triage_agent',
      'tool_call list_agents': 'invoke_agent triage_agent',
      reserve: 'tool_call list_agents',
      'execute_tool list_agents': 'tool_call list_agents',
      settle: 'tool_call list_agents',
    });

    const send = operator('admin:read', stack.addresses);
    expect((await send('GET', `/v1/admin/users/${userId}/runs/${run.runId}`)).body.run.trace_id).toBe(traceId);

    const sent = await within(traceId, 'send agent-runs');
    const processed = await within(traceId, 'process agent-runs');
    expect(sent.span).toMatchObject({ service: 'tollgate-gateway', kind: PRODUCER });
    expect(processed.span).toMatchObject({ service: 'tollgate-worker', kind: CONSUMER });
    expect(sent.span.attributes).toMatchObject({
      'messaging.system': 'redis',
      'messaging.destination.name': 'agent-runs',
      'messaging.message.id': run.runId,
    });

    const chat = await within(traceId, 'chat test-model');
    expect(chat.span).toMatchObject({ kind: CLIENT });
    expect(chat.span.attributes).toMatchObject({ 'gen_ai.operation.name': 'chat', 'gen_ai.usage.input_tokens': 100 });
    expect(model.requests.map(({ traceparent }) => traceparent)).toContain(`00-${traceId}-${chat.span.spanId}-01`);

    const { span: end } = await within(traceId, 'settle');
    const completed = run.events.find(({ type }) => type === 'tool_completed');
    expect(end.attributes['tollgate.usage_record.id']).toBe(completed?.fields.usage_record_id);
    const ingestion = await ingestionOf(end);
    expect(ingestion).toMatchObject({ service: 'tollgate-worker', kind: CONSUMER, parentSpanId: undefined });
    expect(ingestion.traceId).not.toBe(traceId);

    const spans = JSON.stringify(collector.trace(traceId));
    expect(spans).not.toContain(userId);
    expect(spans).not.toContain(SECRET_TEXT);
  });

  it('names the handshake of its connection, in which the client was authenticated and admitted', async () => {
    const { client, connectionId } = await connect(transport);
    client.send('threads_list');
    await client.waitFor('threads_list');
    const message = await messageSpan('threads_list', connectionId);
    const handshake = await collector.span('handshake', ({ name, attributes }) => {
      return name.startsWith('handshake ') && attributes['tollgate.connection.id'] === connectionId;
    });
    expect(message.links).toEqual([expect.objectContaining({ spanId: handshake.spanId, traceId: handshake.traceId })]);
    expect((await within(handshake.traceId, 'authenticate')).parent).toBe(handshake.name);
    expect((await within(handshake.traceId, 'admit')).parent).toBe(handshake.name);
    expect(handshake.attributes['user.hash']).toMatch(/^[0-9a-f]{12}$/);
  });

  it('with a tool ends when its result has been sent, and says by its code what was refused', async () => {
    const { client, connectionId } = await connect(transport, 'free');
    await callTool(client, 'list_agents');
    const message = await messageSpan('tool_call', connectionId);
    const { span: end } = await within(message.traceId, 'settle');
    expect((await within(message.traceId, 'tool_call list_agents')).parent).toBe('message tool_call');
    // Each span reads the clock separately, to the millisecond.
    expect(message.endedAt).toBeGreaterThan(end.endedAt - 1);
    await ingestionOf(end);

    const refused = await connect(transport, 'free');
    await callTool(refused.client, 'cost_analyzer', { [SECRET_TEXT]: 1 });
    const { span: call } = await within(
      (await messageSpan('tool_call', refused.connectionId)).traceId,
      'tool_call cost_analyzer',
    );
    // A refusal is an answer, not a failure of the server.
    expect(call).toMatchObject({ kind: INTERNAL, status: 0, attributes: { 'error.type': 'PERMISSION_DENIED' } });
  });
});

describe('a request over MCP', () => {
  const traceparent = () => `00-${randomBytes(16).toString('hex')}-${randomBytes(8).toString('hex')}-01`;
  const toolCall = (_meta: Record<string, unknown>) => ({ name: 'list_agents', arguments: {}, _meta });

  it('continues its client’s trace, `_meta.traceparent` before the header, up to the ledger', async () => {
    const { token } = mintToken({ plan: 'pro' }, { stack: stack.addresses });
    const [answered, header] = [traceparent(), traceparent()];
    await requestModern('tools/call', toolCall({ traceparent: answered }), {
      url: url(),
      token,
      headers: { traceparent: header },
    });
    const [, traceId = '', spanId = ''] = answered.split('-');
    const { span } = await within(traceId, 'tools/call');
    expect(span).toMatchObject({ kind: SERVER, parentSpanId: spanId });
    expect((await within(traceId, 'tool_call list_agents')).parent).toBe('tools/call');
    await ingestionOf((await within(traceId, 'settle')).span);

    await requestLegacy('tools/list', {}, { url: url(), token, headers: { traceparent: header } });
    expect((await within(header.split('-')[1] ?? '', 'tools/list')).span.parentSpanId).toBe(header.split('-')[2]);
  });

  it('over WebSocket is a trace too', async () => {
    const { token } = mintToken({ plan: 'pro' }, { stack: stack.addresses });
    const answered = traceparent();
    const client = await legacyClient(token, 'websocket', url());
    await client.callTool(toolCall({ traceparent: answered }));
    const { span } = await within(answered.split('-')[1] ?? '', 'tools/call');
    expect(span).toMatchObject({
      parentSpanId: answered.split('-')[2],
      attributes: { 'network.protocol.name': 'websocket' },
    });
  });

  it.each([
    ['nobody who has not authenticated', undefined, traceparent()],
    ['no sender of what is no trace', 'pro', `00-${'0'.repeat(32)}-${'0'.repeat(16)}-01`],
    ['no sender of a trace and more', 'pro', `${traceparent()}-${SECRET_TEXT}`],
  ])('takes the trace of %s', async (_who, plan, sent) => {
    const token = plan && mintToken({ plan }, { stack: stack.addresses }).token;
    await requestLegacy('tools/list', {}, { url: url(), ...(token ? { token } : {}), headers: { traceparent: sent } });
    // A later span has arrived, so an earlier one would have arrived too.
    const later = traceparent();
    const good = mintToken({}, { stack: stack.addresses }).token;
    await requestLegacy('tools/list', {}, { url: url(), token: good, headers: { traceparent: later } });
    await within(later.split('-')[1] ?? '', 'tools/list');
    expect(collector.trace(sent.split('-')[1] ?? '')).toEqual([]);
  });
});

describe('work without a request', () => {
  it('has a trace too: the refresh of a token with its exchange', async () => {
    await refreshed.waitFor('token_refreshed', { timeoutMs: 10_000 });
    const exchange = await collector.span('POST', ({ name, attributes }) => {
      return name === 'POST' && attributes['tollgate.auth.operation'] === 'exchange';
    });
    expect(exchange).toMatchObject({ service: 'tollgate-worker', kind: CLIENT });
    expect(exchange.attributes).toMatchObject({ 'http.request.method': 'POST', 'http.response.status_code': 200 });
    expect((await within(exchange.traceId, 'refresh token')).span.attributes['tollgate.refresh.result']).toBe(
      'refreshed',
    );
  });

  it('links the decision of an operator to what each node made of it', async () => {
    const { userId } = await connect('ws');
    const admin = await startAdmin(stack.addresses);
    // A node without a position takes its first wake-up as the sign to read everything.
    await admin('POST', `/v1/users/${userId}/unblock`);
    await collector.named('POST /v1/users/:id/unblock');
    await admin('PUT', `/v1/users/${userId}/plan`, { plan: 'enterprise' });
    const decided = await collector.named('PUT /v1/users/:id/plan');
    expect(decided.attributes).toMatchObject({ 'http.response.status_code': 200 });
    const followed = await collector.span('process announcements', ({ name, links }) => {
      return name === 'process announcements' && links.some(({ traceId }) => traceId === decided.traceId);
    });
    expect(followed).toMatchObject({ kind: CONSUMER });
  });

  it('is exported to the collector with its headers, by a service with its attributes, as JSON', () => {
    const [first] = collector.requests;
    expect(first).toMatchObject({ url: '/v1/traces' });
    expect(first?.headers).toMatchObject({ 'content-type': 'application/json', 'x-collector-key': 'of-the-collector' });
    expect(collector.bodies[0]).toContain('"to test"');
    expect(collector.spans.filter(({ status }) => status === ERROR)).toEqual([]);
  });
});
