import { describe, expect, it } from '@jest/globals';
import { until } from '../support/until.ts';
import { loneUpstream } from '../support/upstreams/lone-upstream.ts';
import { GOOD_RESULT, GOOD_TOOL, type ScriptedAnswer, ScriptedServer } from '../support/upstreams/scripted-server.ts';

const LEGACY = { protocol: '2025-11-25' };
const JSON_TYPE = { 'content-type': 'application/json' };
const ODD_TOOL = { ...GOOD_TOOL, name: 'odd' };
const TOOLS = { 'tools/list': { result: { tools: [GOOD_TOOL, ODD_TOOL] } } };
/** More than the calls that open a circuit breaker. */
const MANY = 12;

/** Connects to a server whose tool `odd` answers in this way. */
async function withOdd(odd: ScriptedAnswer, row: object = LEGACY) {
  const server = await ScriptedServer.start({
    ...TOOLS,
    'tools/call': ({ params }) => (params.name === 'odd' ? odd : { result: GOOD_RESULT }),
  });
  const lone = loneUpstream({ url: server.url, ...row });
  await lone.ready('odd');
  return { server, ...lone };
}

const rpc = (status: number, more: object = {}): ScriptedAnswer => {
  return { status, body: { id: null, error: { code: -32602, message: 'limit must be positive' } }, ...more };
};
const large = 'x'.repeat(1_200_000);
const deep = `${'['.repeat(20_000)}${']'.repeat(20_000)}`;
const result = (id: string) => `{"jsonrpc":"2.0","id":${id},"result":{"content":[],"structuredContent":{"a":${deep}}}}`;
const events = (text: string) => ({ status: 200, headers: { 'content-type': 'text/event-stream' }, body: text });

describe('a circuit breaker', () => {
  it.each<[string, ScriptedAnswer, RegExp]>([
    ['HTTP 400 with a JSON-RPC error', rpc(400), /limit must be positive/],
    ['HTTP 404 with a JSON-RPC error', rpc(404), /limit must be positive/],
    ['HTTP 422 with a JSON-RPC error', rpc(422), /limit must be positive/],
    ['HTTP 429 with a JSON-RPC error', rpc(429), /limit must be positive/],
    ['HTTP 500 with a JSON-RPC error', rpc(500), /limit must be positive/],
    ['HTTP 200 with a JSON-RPC error without an id', rpc(200), /limit must be positive/],
    ['HTTP 400 with a page', { status: 400, body: '<p>secret</p>' }, /refused the request \(HTTP 400\)/],
    ['HTTP 403', { status: 403 }, /refused the request \(HTTP 403\)/],
    ['HTTP 413', { status: 413 }, /refused the request \(HTTP 413\)/],
    ['HTTP 422 with a JSON object', { status: 422, body: { detail: 'secret' } }, /refused the request \(HTTP 422\)/],
    ['a result that is no object', { result: 'done' as never }, /not an object/],
    ['a result above the bound', { result: { content: [{ type: 'image', data: large, mimeType: 'a/b' }] } }, /larger/],
    ['an event stream above the bound', events(`data: ${large}\n\n`), /larger than the gateway accepts/],
    ['20,000 levels of JSON', { headers: JSON_TYPE, body: result('null') }, /more than 64 levels/],
    ['an error of 20,000 levels', { status: 400, headers: JSON_TYPE, body: `{"error":${deep}}` }, /HTTP 400/],
    ['a resumable event stream above the bound', events(`id: 1\ndata:\n\nid: 2\ndata: ${large}\n\n`), /larger/],
  ])('stays closed, and other users are served, after many answers of %s', async (_name, odd, message) => {
    const { call, upstream } = await withOdd(odd);
    for (let at = 0; at < MANY; at++) {
      const answer = await call('odd', {}, `user ${at}`);
      expect(answer).toMatchObject({ code: 'TOOL_FAILED', message: expect.stringMatching(message) });
      expect(String(answer)).not.toMatch(/secret/);
    }
    expect(await call('good', {}, 'another')).toBe('fine');
    expect(upstream.status.breakers.calls).toBe('closed');
  });

  it('stays closed after an event with 20,000 levels of JSON', async () => {
    const server = await ScriptedServer.start({
      ...TOOLS,
      'tools/call': ({ id, params }) => {
        return params.name === 'good' ? { result: GOOD_RESULT } : events(`data: ${result(String(id))}\n\n`);
      },
    });
    const { call, ready, upstream } = loneUpstream({ url: server.url, ...LEGACY });
    await ready('odd');
    for (let at = 0; at < MANY; at++) {
      expect(await call('odd')).toMatchObject({ message: expect.stringMatching(/more than 64 levels/) });
    }
    expect([await call('good'), upstream.status.breakers.calls]).toEqual(['fine', 'closed']);
  });

  it('stays closed after results that miss their output schema', async () => {
    const outputSchema = { type: 'object', properties: { found: { type: 'number' } }, required: ['found'] };
    const answers: ScriptedAnswer[] = [{ result: { content: [], structuredContent: { found: 'many' } } }];
    answers.push({ result: { content: [], structuredContent: null } }, { result: GOOD_RESULT });
    const server = await ScriptedServer.start({
      'tools/list': { result: { tools: [GOOD_TOOL, { ...ODD_TOOL, outputSchema }] } },
      'tools/call': ({ params, id }) => {
        return params.name === 'good' ? { result: GOOD_RESULT } : (answers[Number(id) % answers.length] ?? 'reset');
      },
    });
    const { call, ready, upstream } = loneUpstream({ url: server.url, ...LEGACY });
    await ready('odd');
    for (let at = 0; at < MANY; at++) expect(await call('odd')).toMatchObject({ code: 'TOOL_FAILED' });
    expect([await call('good'), upstream.status.breakers.calls]).toEqual(['fine', 'closed']);
  });

  it('of the calls stays closed while lists cannot be read', async () => {
    const server = await ScriptedServer.start(TOOLS);
    const { call, ready, upstream } = loneUpstream({ url: server.url, ...LEGACY, timeout_seconds: 1 });
    await ready('good');
    server.answers = { 'tools/list': { status: 500 } };
    for (let at = 0; at < 8; at++) {
      const failing = upstream.request('lists', new AbortController().signal, (client) => {
        return client.listTools(undefined, { cacheMode: 'refresh' });
      });
      await expect(failing).rejects.toThrow();
    }
    expect(upstream.status.breakers).toMatchObject({ lists: 'open', calls: 'closed', reads: 'closed' });
    expect(await call('good')).toBe('fine');
  });

  it('of the calls opens when the server fails them, and lists are still read', async () => {
    const { call, upstream } = await withOdd({ status: 502 });
    for (let at = 0; at < 6; at++) await call('odd');
    expect(upstream.status.breakers).toMatchObject({ lists: 'closed', calls: 'open' });
  });
});

describe('a rate limit of a tool server', () => {
  const retryAfter = (seconds: string) => ({ 'retry-after': seconds });

  it('with a JSON-RPC error holds for its user, who learns the time, and for no other', async () => {
    const { call, server } = await withOdd(rpc(429, { headers: retryAfter('7') }));
    expect(await call('odd', {}, 'a')).toMatchObject({
      retryAfterMs: 7_000,
      fields: { retryable: true },
      message: 'limit must be positive',
    });
    const held = await call('good', {}, 'a');
    expect(held).toMatchObject({ code: 'TOOL_FAILED', message: expect.stringMatching(/limits the rate/) });
    expect((held as { retryAfterMs: number }).retryAfterMs).toBeGreaterThan(5_000);
    expect(await call('good', {}, 'b')).toBe('fine');
    expect(server.received('tools/call')).toHaveLength(2);
  });

  it.each([
    ['429', { status: 429, headers: retryAfter('3') }],
    ['503', { status: 503, headers: retryAfter(new Date(Date.now() + 60_000).toUTCString()) }],
  ])('by HTTP %s without JSON-RPC holds for all users, and opens no circuit breaker', async (_status, answer) => {
    const { call, server, upstream } = await withOdd(answer);
    await call('odd', {}, 'a');
    expect(await call('good', {}, 'b')).toMatchObject({ message: expect.stringMatching(/limits the rate/) });
    expect(server.received('tools/call')).toHaveLength(1);
    expect(upstream.status.limitedMs).toBeGreaterThan(0);
    expect(upstream.status.breakers.calls).toBe('closed');
  });

  it('ends after its time', async () => {
    const { call } = await withOdd({ status: 429, headers: retryAfter('1') });
    await call('odd', {}, 'a');
    await until(async () => (await call('good', {}, 'b')) === 'fine');
  });

  it('without a time, or with an unreadable one, concerns one call', async () => {
    const { call } = await withOdd({ status: 429, headers: retryAfter('soon') });
    expect(await call('odd')).toMatchObject({ code: 'TOOL_FAILED' });
    expect(await call('good')).toBe('fine');
  });
});

describe('a result of a tool server', () => {
  it.each([
    ['content that is text', { content: 'fine' }],
    ['content that is one block', { content: { type: 'text', text: 'fine' } }],
    ['content blocks that are text', { content: ['fine'] }],
    ['null for unset members', { content: GOOD_RESULT.content, structuredContent: null, isError: null, _meta: null }],
    ['null in its content', { content: [{ type: 'text', text: 'fine', annotations: null, _meta: null }] }],
    [
      'an annotation that is no date',
      { content: [{ type: 'text', text: 'fine', annotations: { lastModified: '?' } }] },
    ],
    ['structured content that is a list', { content: GOOD_RESULT.content, structuredContent: [1] }],
    ['unknown members', { content: [{ type: 'text', text: 'fine', more: 1 }], more: [] }],
  ])('with %s can be used', async (_name, result) => {
    const { call } = await withOdd({ result });
    expect(await call('odd')).toBe('fine');
  });

  it('with content of an unknown type has it as text', async () => {
    const { call } = await withOdd({ result: { content: [{ type: 'chart', points: [1, 2] }] } });
    expect(await call('odd')).toBe('{"type":"chart","points":[1,2]}');
  });

  it.each([
    ['without jsonrpc', (id: unknown) => `{"id":${id},"result":${JSON.stringify(GOOD_RESULT)}}`],
    [
      'with error null',
      (id: unknown) => `{"jsonrpc":"2.0","id":${id},"result":${JSON.stringify(GOOD_RESULT)},"error":null}`,
    ],
    ['with its id as text', (id: unknown) => `{"jsonrpc":"2.0","id":"${id}","result":${JSON.stringify(GOOD_RESULT)}}`],
    ['in an array', (id: unknown) => `[{"jsonrpc":"2.0","id":${id},"result":${JSON.stringify(GOOD_RESULT)}}]`],
  ])('%s in its JSON-RPC can be used', async (_name, body) => {
    const server = await ScriptedServer.start({ ...TOOLS, 'tools/call': ({ id }) => ({ body: body(id) }) });
    const { call, ready } = loneUpstream({ url: server.url, ...LEGACY });
    await ready('odd');
    expect(await call('odd')).toBe('fine');
  });
});
