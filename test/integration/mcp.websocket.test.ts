import { describe, expect, it } from '@jest/globals';
import { openClient, type TestClient } from '../support/clients.ts';
import { LEGACY, MODERN, modernRequest } from '../support/mcp.ts';
import { mintToken, validToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const INITIALIZE = { protocolVersion: LEGACY, capabilities: {}, clientInfo: { name: 'raw', version: '1' } };

/** Returns the frames of a client after its welcome, as sent. */
async function connect(claims: Parameters<typeof mintToken>[0] = {}): Promise<TestClient> {
  const client = await openClient({ path: '/ws/mcp', token: mintToken(claims).token });
  await client.welcome();
  return client;
}

function send(client: TestClient, message: object): void {
  client.sendRaw(JSON.stringify({ jsonrpc: '2.0', ...message }));
}

const answerTo = (client: TestClient, id: string | number) => client.waitFor(({ rpcId }) => rpcId === id);

describe('MCP on /ws/mcp', () => {
  it('is 2025-11-25 and older for who initializes', async () => {
    const client = await connect({ plan: 'pro' });
    send(client, { id: 'a', method: 'initialize', params: INITIALIZE });
    expect((await answerTo(client, 'a')).fields).toMatchObject({
      protocolVersion: LEGACY,
      capabilities: { tools: {} },
      serverInfo: { name: 'tollgate' },
    });
    send(client, { method: 'notifications/initialized' });
    send(client, { id: 2, method: 'tools/list' });
    expect((await answerTo(client, 2)).fields.tools).toHaveLength(7);
    send(client, { id: 3, method: 'tools/call', params: { name: 'list_agents', arguments: {} } });
    expect((await answerTo(client, 3)).fields).toMatchObject({ structuredContent: { agents: expect.any(Array) } });
    expect(client.events.filter(({ type }) => type === 'error')).toEqual([]);
  });

  it('is 2026-07-28 for who says so in each request, without headers', async () => {
    const client = await connect({ plan: 'free' });
    client.sendRaw(JSON.stringify(modernRequest('server/discover', {}, 1)));
    expect((await answerTo(client, 1)).fields).toMatchObject({ resultType: 'complete', supportedVersions: [MODERN] });
    client.sendRaw(JSON.stringify(modernRequest('tools/list', {}, 2)));
    expect((await answerTo(client, 2)).fields).toMatchObject({ cacheScope: 'private', ttlMs: 60_000 });
    // A name that no header could carry unencoded.
    client.sendRaw(JSON.stringify(modernRequest('tools/call', { name: 'outil_é\n=?base64?', arguments: {} }, 3)));
    expect((await answerTo(client, 3)).fields).toMatchObject({ rpc_code: -32602, code: 'TOOL_NOT_FOUND' });
    const other = { _meta: { 'io.modelcontextprotocol/protocolVersion': '2199-01-01' } };
    client.sendRaw(JSON.stringify(modernRequest('tools/list', other, 4)));
    expect((await answerTo(client, 4)).fields).toMatchObject({ rpc_code: -32022, supported: [MODERN] });
  });

  it('B8 answers ping for older clients until the client initializes, and as MCP does after', async () => {
    const client = await connect();
    send(client, { id: 1, method: 'ping' });
    expect((await answerTo(client, 1)).fields.pong).toBe(true);
    send(client, { id: 2, method: 'initialize', params: INITIALIZE });
    await answerTo(client, 2);
    send(client, { id: 3, method: 'ping' });
    expect((await answerTo(client, 3)).fields).toEqual({});
  });

  it('coexists with the gateway’s messages: a call also arrives as a notification', async () => {
    const client = await connect({ plan: 'pro' });
    send(client, { id: 'x', method: 'tools/call', params: { name: 'create_thread', arguments: { title: 'Beside' } } });
    const { fields } = await answerTo(client, 'x');
    const callId = (fields._meta as Record<string, unknown>)['tollgate/toolCallId'];
    await until(() => client.events.some(({ type }) => type === 'tool_completed'));
    const events = client.events.filter(({ fields: event }) => event.tool_call_id === callId);
    expect(events.map(({ type }) => type)).toEqual(['tool_executing', 'tool_completed']);
    expect(await client.call('tool_call', { tool: 'list_agents', arguments: {} })).toMatchObject({
      fields: { success: true },
    });
  });

  it('answers what it does not have with -32601, and notifications with nothing', async () => {
    const client = await connect();
    for (const [id, method] of ['resources/list', 'prompts/list', 'subscriptions/listen', 'a/b'].entries()) {
      send(client, { id, method });
      expect((await answerTo(client, id)).fields.rpc_code).toBe(-32601);
    }
    const from = client.mark();
    send(client, { method: 'notifications/unheard_of' });
    send(client, { method: 'notifications/cancelled', params: { requestId: 77 } });
    send(client, { id: 'end', method: 'ping' });
    await answerTo(client, 'end');
    expect(client.events.slice(from).map(({ rpcId }) => rpcId)).toEqual(['end']);
  });

  it('counts against the one message limit, whose refusal has the id of the request', async () => {
    const client = await connect({ plan: 'free' });
    for (let id = 1; id <= 31; id++) {
      send(client, { id, method: 'tools/call', params: { name: 'list_agents', arguments: {} } });
      await answerTo(client, id);
    }
    const { fields } = await answerTo(client, 31);
    expect(fields).toMatchObject({ rpc_code: -33029, code: 'RATE_LIMITED', retry_after_ms: expect.any(Number) });
    expect(client.events.filter(({ type }) => type === 'error')).toHaveLength(1);
  });

  it('has eight requests of a connection in flight; more are refused as retryable, the rest is answered', async () => {
    const client = await connect({ plan: 'developer' });
    const ids = Array.from({ length: 40 }, (_, at) => at + 1);
    const frames = ids.map((id) =>
      JSON.stringify({ jsonrpc: '2.0', id, method: 'tools/call', params: { name: 'list_agents', arguments: {} } }),
    );
    for (const frame of frames) client.sendRaw(frame);
    const answers = await Promise.all(ids.map((id) => answerTo(client, id)));
    const refused = answers.filter(({ type }) => type === 'error');
    expect(refused.length).toBeGreaterThan(0);
    expect(new Set(refused.map(({ fields }) => fields.rpc_code))).toEqual(new Set([-33029]));
    expect(answers.length - refused.length).toBeGreaterThanOrEqual(8);
  });

  it('refuses batches, and ends the connection with 1003 for a binary frame', async () => {
    const client = await connect();
    client.sendRaw('[{"jsonrpc":"2.0","id":1,"method":"tools/list"}]');
    expect((await client.waitFor('error')).fields).toMatchObject({ rpc_code: -32600 });
    client.sendRaw(Buffer.from('{"jsonrpc":"2.0","id":1,"method":"ping"}'));
    expect(await client.closed).toEqual({ code: 1003, reason: 'UNSUPPORTED_DATA' });
  });

  it('B23 is named in the refusal of JSON-RPC at /ws and /ws/secure', async () => {
    for (const path of ['/ws', '/ws/secure']) {
      const client = await openClient({ path, token: validToken() });
      client.sendRaw(JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'initialize', params: INITIALIZE }));
      const { fields } = await client.waitFor('error');
      expect([fields.code, fields.detail]).toEqual([
        'INVALID_MESSAGE',
        expect.stringMatching(/JSON-RPC format.*\/ws\/mcp/),
      ]);
    }
  });
});
