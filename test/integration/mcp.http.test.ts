import { describe, expect, it } from '@jest/globals';
import { startAdmin } from '../support/admin.ts';
import { openClient } from '../support/clients.ts';
import { LEGACY, type McpPost, MODERN, modernRequest, postMcp, requestLegacy, requestModern } from '../support/mcp.ts';
import { nodeUrl } from '../support/nodes.ts';
import { stack, startStack, useStack } from '../support/stack.ts';
import { mintToken, serviceToken, validToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const initialize = (version: string) => ({
  jsonrpc: '2.0',
  id: 'first',
  method: 'initialize',
  params: { protocolVersion: version, capabilities: {}, clientInfo: { name: 'raw', version: '1' } },
});

describe('POST /mcp of 2026-07-28', () => {
  it('lists the supported versions without a handshake', async () => {
    const { status, body } = await requestModern('server/discover', {}, { token: validToken() });
    expect([status, body.result]).toEqual([
      200,
      expect.objectContaining({
        resultType: 'complete',
        supportedVersions: [MODERN],
        capabilities: { tools: {} },
        ttlMs: 60_000,
        cacheScope: 'private',
      }),
    ]);
  });

  it('lists executable tools in a stable order, cacheable for their caller only', async () => {
    const list = (plan: string, node: number) =>
      requestModern('tools/list', {}, { token: validToken({ plan }), url: nodeUrl(node) });
    const [free, pro, again] = await Promise.all([list('free', 0), list('pro', 1), list('pro', 2)]);
    expect(pro.body.result).toMatchObject({ resultType: 'complete', cacheScope: 'private', ttlMs: 60_000 });
    expect(pro.body.result.tools).toEqual(again.body.result.tools);
    const names = ({ body }: typeof free) => body.result.tools.map(({ name }: { name: string }) => name);
    expect(names(free)).toEqual(['create_thread', 'get_thread_history', 'list_agents', 'get_agent_status']);
    expect(names(pro).slice(0, 4)).toEqual(names(free));
    expect(names(pro)).not.toContain('query_corpus');
    expect(pro.body.result.tools[0]).toMatchObject({
      inputSchema: { type: 'object' },
      description: expect.any(String),
    });
    expect(pro.headers.get('cache-control')).toBe('no-store');
  });

  it.each([
    ['mcp-protocol-version', { 'mcp-protocol-version': undefined }],
    ['mcp-method', { 'mcp-method': undefined }],
    ['mcp-name', { 'mcp-name': undefined }],
    ['another method', { 'mcp-method': 'tools/list' }],
    ['another name', { 'mcp-name': 'create_thread' }],
    ['another version', { 'mcp-protocol-version': LEGACY }],
  ] satisfies [string, McpPost['headers']][])(
    'is refused when its headers are not those of its body: %s',
    async (_name, headers) => {
      const { status, body } = await requestModern(
        'tools/call',
        { name: 'list_agents' },
        { token: validToken(), headers, id: 9 },
      );
      expect([status, body.id, body.error.code]).toEqual([400, 9, -32020]);
    },
  );

  it('names the versions it has to who asks for another', async () => {
    const headers = { 'mcp-protocol-version': '2199-01-01', 'mcp-method': 'tools/list' };
    const request = modernRequest('tools/list', { _meta: { 'io.modelcontextprotocol/protocolVersion': '2199-01-01' } });
    const { status, body } = await postMcp(request, { token: validToken(), headers });
    expect([status, body.error]).toEqual([
      400,
      expect.objectContaining({ code: -32022, data: { supported: [MODERN], requested: '2199-01-01' } }),
    ]);
  });

  it.each(['resources/list', 'subscriptions/listen', 'initialize', 'no/such'])('has no method %s', async (method) => {
    const { status, body } = await requestModern(method, {}, { token: validToken(), id: 'x' });
    expect([status, body.id, body.error.code]).toEqual([404, 'x', -32601]);
  });
});

describe('POST /mcp of 2025-11-25 and older', () => {
  it.each([LEGACY, '2025-06-18', '2025-03-26', '2024-11-05'])('initializes with %s', async (version) => {
    const { status, body } = await postMcp(initialize(version), { token: validToken() });
    expect([status, body]).toEqual([
      200,
      {
        jsonrpc: '2.0',
        id: 'first',
        result: {
          protocolVersion: version,
          capabilities: { tools: {} },
          serverInfo: expect.objectContaining({ name: 'tollgate' }),
        },
      },
    ]);
  });

  it('keeps no session: what follows may reach another node', async () => {
    const token = validToken();
    const first = await postMcp(initialize(LEGACY), { token });
    expect(first.headers.get('mcp-session-id')).toBeNull();
    const note = await postMcp({ jsonrpc: '2.0', method: 'notifications/initialized' }, { token, url: nodeUrl(1) });
    expect([note.status, note.body]).toEqual([202, {}]);
    const { body } = await requestLegacy('tools/list', {}, { token, url: nodeUrl(2) });
    expect(body.result.tools).toHaveLength(7);
    expect(body.result.cacheScope).toBeUndefined();
  });

  it.each(['GET', 'DELETE'])('has neither a stream of its own nor a session to end: %s is 405', async (method) => {
    const headers = { authorization: `Bearer ${validToken()}`, accept: 'text/event-stream' };
    const response = await fetch(`${nodeUrl(0)}/mcp`, { method, headers });
    expect([response.status, response.headers.get('allow')]).toEqual([405, 'POST']);
    await response.body?.cancel();
  });
});

describe('what is no request', () => {
  it.each([
    ['a batch', '[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600],
    ['an empty batch', '[]', -32600],
    ['no JSON', '{"jsonrpc":', -32700],
    ['nothing', '', -32700],
    ['JSON that is nested too deeply', `${'['.repeat(40)}${']'.repeat(40)}`, -32700],
    ['a text', '"ping"', -32600],
  ])('%s is refused with a JSON-RPC error', async (_name, frame, code) => {
    const { status, body } = await postMcp(frame, { token: validToken() });
    expect([status, body]).toEqual([400, { jsonrpc: '2.0', error: expect.objectContaining({ code }) }]);
  });

  it('that is not there is refused like one that is empty', async () => {
    const headers = { authorization: `Bearer ${validToken()}` };
    const response = await fetch(`${nodeUrl(0)}/mcp`, { method: 'POST', headers });
    const error = expect.objectContaining({ code: -32600 });
    expect([response.status, await response.json()]).toEqual([400, { jsonrpc: '2.0', error }]);
  });

  it('above 64 KiB is 413', async () => {
    const { status, body } = await requestLegacy('ping', { pad: 'x'.repeat(65_536) }, { token: validToken() });
    expect([status, body.error.data.code]).toEqual([413, 'MESSAGE_TOO_LARGE']);
  });

  it('in another content type is refused', async () => {
    const { status, body } = await postMcp(initialize(LEGACY), {
      token: validToken(),
      headers: { 'content-type': 'text/plain' },
    });
    expect([status, body.error.data.code]).toEqual([400, 'FORMAT_ERROR']);
  });
});

describe('parameters of the wrong form', () => {
  const legacy = (method: string, params: object) => requestLegacy(method, { ...params }, { token: validToken() });
  const modern = (method: string, params: object) => requestModern(method, { ...params }, { token: validToken() });

  it.each([
    ['tools/call', legacy, {}, 'Invalid tools/call request: params.name: expected string, received undefined.'],
    ['tools/call', modern, {}, 'Invalid tools/call request: params.name: expected string, received undefined.'],
    [
      'tools/call',
      modern,
      { name: 'list_agents', arguments: [] },
      'Invalid tools/call request: params.arguments: expected record, received array.',
    ],
    ['tools/list', legacy, { cursor: 5 }, 'Invalid request: params.cursor: expected string, received number.'],
    [
      'initialize',
      legacy,
      { protocolVersion: 5, clientInfo: { name: 'a', version: '1' } },
      'Invalid request: params.protocolVersion: expected string, received number; ' +
        'params.capabilities: expected object, received undefined.',
    ],
  ])('are -32602 with the problems in words: %s', async (method, send, params, message) => {
    const { body } = await send(method, params);
    const data = { code: 'FORMAT_ERROR', retryable: false };
    expect(body).toEqual({ jsonrpc: '2.0', id: expect.anything(), error: { code: -32602, message, data } });
  });

  it.each([
    [50, /: expected string, received number; and 45 more\.$/],
    [2_000, /^Invalid request: too many problems to name\.$/],
  ])('are named up to a bound: %i', async (wrong, message) => {
    const icons = Array.from({ length: wrong }, () => (wrong > 50 ? 5 : { src: 5 }));
    const clientInfo = { name: 'a', version: '1', icons };
    const { body } = await legacy('initialize', { protocolVersion: LEGACY, capabilities: {}, clientInfo });
    expect(body.error).toMatchObject({ code: -32602, message: expect.stringMatching(message) });
  });
});

describe('the id of an error', () => {
  it('is that of the request, also where the SDK refuses it before a handler', async () => {
    const headers = { 'mcp-protocol-version': '1999-01-01' };
    const { status, body } = await requestLegacy('tools/list', {}, { token: validToken(), headers, id: 'mine' });
    expect([status, body.id]).toEqual([400, 'mine']);
  });

  it.each([{}, null])('is absent where the request has none that can be repeated: %j', async (id) => {
    const { status, body } = await postMcp({ jsonrpc: '2.0', id, method: 'tools/list' }, { token: validToken() });
    expect([status, body]).toEqual([400, { jsonrpc: '2.0', error: expect.objectContaining({ code: -32600 }) }]);
  });

  it('is absent in the refusal of another method', async () => {
    const response = await fetch(`${nodeUrl(0)}/mcp`, { headers: { authorization: `Bearer ${validToken()}` } });
    expect(await response.json()).not.toHaveProperty('id');
  });
});

describe('the Accept header', () => {
  it.each(['*/*', 'application/json', 'application/*', 'Application/JSON;q=0.5', 'text/html, */*;q=0.1', ''])(
    '%j is answered in both eras, as it accepts JSON',
    async (accept) => {
      for (const request of [requestLegacy, requestModern]) {
        const { status, headers, body } = await request('tools/list', {}, { token: validToken(), headers: { accept } });
        expect([status, headers.get('content-type')]).toEqual([200, expect.stringMatching(/^application\/json/)]);
        expect(body.result.tools.length).toBeGreaterThan(0);
      }
    },
  );

  it.each(['text/html', 'text/*', 'application/json;q=0, */*'])('%j, which excludes JSON, is 406', async (accept) => {
    const { status, body } = await requestLegacy('tools/list', {}, { token: validToken(), headers: { accept } });
    expect([status, body.id]).toEqual([406, 1]);
  });
});

describe('authorization', () => {
  const metadataUrl = `${nodeUrl(0)}/.well-known/oauth-protected-resource/mcp`;

  it('without a token is 401 with the place of the metadata, which names the authorization server', async () => {
    const { status, headers, body } = await requestModern('tools/list', {}, {});
    expect([status, body.error.data.code]).toEqual([401, 'NO_TOKEN']);
    expect(headers.get('www-authenticate')).toBe(`Bearer resource_metadata="${metadataUrl}"`);
    for (const url of [metadataUrl, metadataUrl.replace(/\/mcp$/, '')]) {
      expect(await (await fetch(url)).json()).toEqual({
        resource: `${nodeUrl(0)}/mcp`,
        authorization_servers: [mintToken().claims.iss],
        bearer_methods_supported: ['header'],
        resource_name: 'Tollgate',
      });
    }
  });

  it('lets a page look for the metadata with the headers that MCP clients send', async () => {
    const headers = {
      origin: 'http://app.example.test',
      'access-control-request-method': 'GET',
      'access-control-request-headers': 'mcp-protocol-version',
    };
    const authServer = `${stack().authUrl}/.well-known/oauth-authorization-server`;
    for (const url of [metadataUrl, metadataUrl.replace(/\/mcp$/, ''), authServer]) {
      const { status, headers: answer } = await fetch(url, { method: 'OPTIONS', headers });
      expect([url, status, answer.get('access-control-allow-origin')]).toEqual([url, 204, headers.origin]);
      expect(answer.get('access-control-allow-headers')?.toLowerCase()).toContain('mcp-protocol-version');
    }
  });

  it.each([
    ['of another audience', { token: validToken({ aud: 'elsewhere' }) }],
    ['that has expired', { token: mintToken({}, { expiresInSeconds: -60 }).token }],
    ['signed by somebody else', { token: mintToken({}, { secret: 'x'.repeat(40) }).token }],
    ['that is none', { token: 'abc' }],
  ])('with a token %s is 401 and invalid_token, before the body is looked at', async (_name, post) => {
    const { status, headers } = await postMcp('no JSON at all', post);
    expect(status).toBe(401);
    expect(headers.get('www-authenticate')).toMatch(
      /^Bearer resource_metadata="[^"]+", error="invalid_token", error_description="[^"]+"$/,
    );
  });

  it('takes no token from the URL, and no service for a user', async () => {
    const url = `${nodeUrl(0)}/mcp?access_token=${validToken()}&token=${validToken()}`;
    expect((await fetch(url, { method: 'POST' })).status).toBe(401);
    expect((await requestLegacy('ping', {}, { token: await serviceToken('usage:read') })).status).toBe(401);
  });

  it('B16 of a foreign origin is 403 before the token is looked at, and a listed one may read the answers', async () => {
    const foreign = await requestLegacy('ping', {}, { headers: { origin: 'http://evil.example' } });
    expect([foreign.status, foreign.body.error.data.code]).toEqual([403, 'ORIGIN_NOT_ALLOWED']);
    const origin = 'http://app.example.test';
    const listed = await requestLegacy('ping', {}, { token: validToken(), headers: { origin } });
    expect([listed.status, listed.headers.get('access-control-allow-origin')]).toEqual([200, origin]);
    const preflight = await fetch(`${nodeUrl(0)}/mcp`, {
      method: 'OPTIONS',
      headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'mcp-method' },
    });
    expect(preflight.status).toBe(204);
    expect(preflight.headers.get('access-control-allow-headers')).toContain('mcp-method');
  });

  it('follows what operators decide, request by request: plan, revocation, block', async () => {
    const { token, userId } = mintToken({ plan: 'pro' });
    const tools = async () => (await requestLegacy('tools/list', {}, { token })).body.result?.tools?.length;
    expect(await tools()).toBe(7);
    const admin = await startAdmin();
    await admin('PUT', `/v1/users/${userId}/plan`, { plan: 'free' });
    expect(await tools()).toBe(4);
    await admin('POST', `/v1/users/${userId}/block`);
    const blocked = await requestLegacy('tools/list', {}, { token });
    expect([blocked.status, blocked.body.error.data.code]).toEqual([403, 'USER_BLOCKED']);
    expect(blocked.headers.get('www-authenticate')).toBeNull();
  });

  it('ends with a revocation, on every node', async () => {
    const { token, claims } = mintToken();
    expect((await requestLegacy('ping', {}, { token })).status).toBe(200);
    await (await startAdmin())('POST', '/v1/tokens/revoke', { user_id: claims.sub });
    for (const node of [0, 1, 2]) {
      const { status, body } = await requestLegacy('ping', {}, { token, url: nodeUrl(node) });
      expect([status, body.error.data.code]).toEqual([401, 'TOKEN_REVOKED']);
    }
  });
});

describe('limits', () => {
  it('of messages are those of every transport: 429 with the id, -33029 and Retry-After', async () => {
    const token = validToken({ plan: 'free' });
    const answers = [];
    for (let id = 1; id <= 31; id++) answers.push(await requestLegacy('ping', {}, { token, id, url: nodeUrl(id % 3) }));
    expect(answers.slice(0, 30).map(({ status }) => status)).toEqual(Array(30).fill(200));
    const last = answers[30];
    expect([last?.status, last?.body.id, last?.body.error.code]).toEqual([429, 31, -33029]);
    expect(Number(last?.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(last?.body.error.data).toMatchObject({ code: 'RATE_LIMITED', retryable: true });
  });

  it('of an hour on a tool are 429 too, in both eras', async () => {
    const token = validToken({ plan: 'enterprise' });
    const call = { name: 'cost_analyzer', arguments: {} };
    const codes = [];
    for (let at = 0; at < 201; at++)
      codes.push((await requestLegacy('tools/call', call, { token, id: at })).body.error?.code);
    expect(codes.filter((code) => code !== undefined)).toEqual([-33029]);
    for (const request of [requestModern, requestLegacy]) {
      const { status, headers, body } = await request('tools/call', call, { token, id: 'late' });
      expect([status, body.id, body.error.code]).toEqual([429, 'late', -33029]);
      expect(Number(headers.get('retry-after'))).toBeGreaterThan(60);
    }
  });
});

describe('requests in flight', () => {
  it('give their place back also when their client hangs up, whenever it does', async () => {
    const token = validToken({ plan: 'developer' });
    for (let at = 0; at < 60; at++) {
      const leaving = AbortSignal.timeout(at % 6);
      await requestModern('tools/list', {}, { token, signal: leaving }).catch(() => undefined);
    }
    // As many concurrent requests as a user may have.
    const last = await Promise.all(Array.from({ length: 16 }, () => requestModern('tools/list', {}, { token })));
    expect(last.map(({ status }) => status)).toEqual(Array(16).fill(200));
  });
});

describe('a node that drains', () => {
  it('serves clients until a proxy has detected the drain, then sends them elsewhere with Retry-After', async () => {
    const processes = await startStack({ gateways: 1, workers: 0, env: { DRAIN_SECONDS: '8' } });
    const of = processes.addresses;
    const url = nodeUrl(0, of);
    const { token } = mintToken({}, { stack: of });
    // The node closes them one after the other, so it continues to run for a while.
    for (let at = 0; at < 3; at++) await openClient({ token, url });
    const stopping = processes.gateways[0]?.stop();
    const request = () => requestLegacy('ping', {}, { token, url, id: 1 });
    await until(async () => (await fetch(`${url}/health/ready`)).status === 503);
    expect((await request()).status).toBe(200);
    await until(async () => (await request()).status === 503, { timeoutMs: 8_000 });
    const { headers, body } = await request();
    // A proxy detects the drain long before its end.
    expect(headers.get('retry-after')).toBe('1');
    expect(body.error).toMatchObject({ code: -33503, data: { code: 'SERVER_DRAINING' } });
    await stopping;
  });
});

describe('failed attempts', () => {
  const small = useStack({
    gateways: 1,
    workers: 0,
    env: { AUTH_FAILURES_PER_MINUTE: '3', PUBLIC_URL: 'https://tollgate.example.test/' },
  });

  it('block their address as at a handshake, for bad tokens only', async () => {
    const of = small().addresses;
    const url = nodeUrl(0, of);
    const bad = async () => (await requestLegacy('ping', {}, { token: 'bad', url })).status;
    expect([await bad(), await bad(), await bad(), await bad()]).toEqual([401, 401, 401, 429]);
    const good = await requestLegacy('ping', {}, { token: mintToken({}, { stack: of }).token, url });
    expect(good.status).toBe(200);
  });

  it('name the public address if one is configured, whatever the request says', async () => {
    const url = nodeUrl(0, small().addresses);
    const { headers } = await requestLegacy('ping', {}, { url });
    const metadataLocation = 'https://tollgate.example.test/.well-known/oauth-protected-resource/mcp';
    expect(headers.get('www-authenticate')).toContain(`resource_metadata="${metadataLocation}"`);
  });
});

describe('a tools/call', () => {
  it('with arguments that do not fit is a result with isError, so that a model can correct them', async () => {
    const params = { name: 'create_thread', arguments: { title: 5 } };
    const { status, body } = await requestModern('tools/call', params, { token: validToken() });
    expect([status, body.result]).toEqual([
      200,
      expect.objectContaining({ isError: true, content: [{ type: 'text', text: expect.stringContaining('title') }] }),
    ]);
  });

  it('of a tool that the plan hides is answered as one that does not exist, word for word', async () => {
    const token = validToken({ plan: 'free' });
    const request = (name: string) => requestModern('tools/call', { name, arguments: {} }, { token, id: 1 });
    const hidden = await request('cost_analyzer');
    const unknown = await request('cost_analyzes');
    expect([hidden.status, hidden.body.error.code]).toEqual([200, -32602]);
    expect(JSON.stringify(hidden.body).replaceAll('cost_analyzer', 'cost_analyzes')).toBe(JSON.stringify(unknown.body));
  });

  it('B91 under one idempotency key is one call, also with another id, node or protocol era', async () => {
    const token = validToken();
    const params = { name: 'create_thread', arguments: { title: 'Once' }, _meta: { 'tollgate/idempotencyKey': 'k1' } };
    const first = await requestModern('tools/call', params, { token, id: 1 });
    const second = await requestLegacy('tools/call', params, { token, id: 2, url: nodeUrl(1) });
    expect(second.body.result.structuredContent).toEqual(first.body.result.structuredContent);
    expect([first, second].map(({ body }) => body.result._meta['tollgate/repeated'])).toEqual([false, true]);
    const other = await requestModern('tools/call', { ...params, arguments: { title: 'Other' } }, { token });
    expect(other.body.error).toMatchObject({ code: -32602, data: { code: 'IDEMPOTENCY_CONFLICT' } });
    const bad = await requestModern('tools/call', { ...params, _meta: { 'tollgate/idempotencyKey': '' } }, { token });
    expect(bad.body.error).toMatchObject({ code: -32602, data: { code: 'FORMAT_ERROR' } });
  });
});
