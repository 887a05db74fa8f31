import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { runToEnd } from '../support/agent-runs.ts';
import { planFile, toolFile } from '../support/catalogues.ts';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { billedRecords } from '../support/ledger.ts';
import { legacyClient, modernClient, modernRequest, requestLegacy, requestModern } from '../support/mcp.ts';
import { ModelServer } from '../support/model-server.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { mintToken, type PlanName, serviceToken } from '../support/tokens.ts';
import { callTool, eventsOfCall } from '../support/tool-calls.ts';
import { until } from '../support/until.ts';
import { HttpUpstream } from '../support/upstreams/http-upstream.ts';
import { echo, type ServerScript, text } from '../support/upstreams/mcp-script.ts';
import { programRow } from '../support/upstreams/upstream-node.ts';

const SECRET = 'the-secret-of-the-server';
const HELLO = { words: 'hello' };
const SAID = { content: [{ type: 'text', text: 'hello' }] };

let upstream: HttpUpstream;
let model: ModelServer;
let stack: StackProcesses;
const folder = mkdtempSync(join(tmpdir(), 'tollgate-upstreams-'));
const serversFile = join(folder, 'tool-servers.json');

const script: ServerScript = {
  tools: {
    echo,
    count: { run: () => ({ content: [], structuredContent: { executions: upstream.received('tools/call').length } }) },
    large: { run: () => text('x'.repeat(200_000)) },
    refuse: { run: () => ({ isError: true, content: [{ type: 'text', text: 'There is no such city.' }] }) },
    steps: {
      async run(_args, { mcpReq }) {
        const progressToken = mcpReq._meta?.progressToken ?? 0;
        for (const progress of [1, 2]) {
          await mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: 2 } });
        }
        return text('done');
      },
    },
    corpus: { run: ({ query }) => text(`found ${query}`) },
    hidden: { run: () => text('nobody may see this') },
  },
  resources: [
    { uri: 'docs://public/one', name: 'One' },
    { uri: 'docs://large', name: 'Large' },
    { uri: 'internal://plans', name: 'Not allowed' },
  ],
  templates: [{ uriTemplate: 'docs://public/{page}', name: 'Pages' }],
  prompts: [{ name: 'greet', arguments: [{ name: 'whom' }] }, { name: 'hidden_prompt' }],
};

const basic = (units: number) => ({ permission: 'basic', units });
const remote = () => ({
  name: 'remote',
  url: upstream.url,
  headers: { authorization: `Bearer \${REMOTE_TOKEN}` },
  tools: {
    echo: basic(3),
    count: basic(1),
    large: basic(1),
    refuse: basic(1),
    steps: { permission: 'analytics', units: 0 },
    corpus: { executes: 'query_corpus' },
  },
  resources: { permission: 'analytics', allow: ['docs://*'] },
  prompts: { permission: 'basic', allow: ['greet'] },
});

function write(name: string, content: unknown): void {
  writeFileSync(join(folder, name), JSON.stringify(content));
}

beforeAll(async () => {
  closeAfter('file', () => rmSync(folder, { recursive: true }));
  upstream = await HttpUpstream.start(script, 'file');
  model = await ModelServer.start();
  closeAfter('file', () => model.close());
  write('plans.json', planFile);
  write('tools.json', toolFile);
  const tools = ['echo', 'query_corpus', 'program__echo'];
  write('agents.json', { default: 'tester', agents: [{ name: 'tester', description: 'a', tools }] });
  write('tool-servers.json', { servers: [remote(), programRow(['echo', 'pid'], { protocol: 'auto' })] });
  stack = await startStack({
    env: {
      CATALOGUE_DIR: folder,
      TOOL_SERVERS: serversFile,
      REMOTE_TOKEN: SECRET,
      AGENT_MODEL_URL: model.url,
      AGENT_MODEL_NAME: 'm',
      MESSAGE_RATE_PER_MINUTE: '1000',
    },
  });
  const token = tokenOf('pro');
  await until(
    async () => {
      const names = (await listed(token)).map(({ name }) => name);
      return ['echo', 'steps', 'query_corpus', 'program__echo'].every((name) => names.includes(name));
    },
    { timeoutMs: 15_000, label: 'the tools of both servers' },
  );
  // The worker has its own connections.
  await until(
    async () => {
      const seen = [
        ...(await metrics(stack.addresses.workers[0]?.url)).matchAll(
          /upstream_requests_total\{server="(\w+)",operation="lists",result="ok"\}/g,
        ),
      ];
      return seen.length === 2;
    },
    { timeoutMs: 15_000, label: 'the tools of both servers at the worker' },
  );
}, 60_000);

const url = () => nodeUrl(0, stack.addresses);
const mint = (plan: PlanName) => mintToken({ plan }, { stack: stack.addresses });
const tokenOf = (plan: PlanName) => mint(plan).token;
const metrics = async (at = url()) => (await fetch(`${at}/metrics`)).text();

async function listed(token: string): Promise<{ name: string }[]> {
  return (await requestModern('tools/list', {}, { token, url: url() })).body.result.tools;
}

describe.each(TRANSPORTS)('a tool of an upstream server over %s', (transport) => {
  it('is reported in events, recorded and billed like every other, with the price of the file', async () => {
    const { token, userId } = mint('pro');
    const client = await openClient({ transport, token, url: url() });
    const { fields } = await callTool(client, 'echo', HELLO);
    expect(fields).toMatchObject({ success: true, result: SAID });
    await until(() => eventsOfCall(client, fields.tool_call_id).length === 2);
    expect(eventsOfCall(client, fields.tool_call_id).map(({ type }) => type)).toEqual([
      'tool_executing',
      'tool_completed',
    ]);
    const record = await until(async () => (await billedRecords(userId, stack.addresses))[0], { timeoutMs: 15_000 });
    expect(record).toMatchObject({ tool: 'echo', units: 3, status: 'success', permission: 'basic' });
  });

  it('has its arguments checked by the schema that its server has, before anything is asked or counted', async () => {
    const client = await openClient({ transport, token: tokenOf('pro'), url: url() });
    const before = upstream.received('tools/call').length;
    const refused = await callTool(client, 'echo', { words: 7 });
    expect(refused).toMatchObject({ type: 'error', fields: { code: 'FORMAT_ERROR' } });
    expect(upstream.received('tools/call')).toHaveLength(before);
  });

  it('is cut at 64 KiB with a mark', async () => {
    const client = await openClient({ transport, token: tokenOf('pro'), url: url() });
    const { fields } = await callTool(client, 'large');
    expect(fields.result).toMatchObject({ truncated: true, bytes: expect.any(Number) });
    expect(JSON.stringify(fields.result).length).toBeLessThanOrEqual(65_536);
  });

  it('executes a row of the catalogue that had no executor, under the name, schema and price of the row', async () => {
    const client = await openClient({ transport, token: tokenOf('pro'), url: url() });
    const { fields } = await callTool(client, 'query_corpus', { corpus: 'c', query: 'all of it' });
    expect(fields).toMatchObject({ success: true, result: { content: [{ text: 'found all of it' }] } });
    expect(await callTool(client, 'query_corpus', {})).toMatchObject({ fields: { code: 'FORMAT_ERROR' } });
  });

  it('is refused to who has not the permission', async () => {
    const client = await openClient({ transport, token: tokenOf('free'), url: url() });
    expect(await callTool(client, 'steps')).toMatchObject({
      fields: { code: 'PERMISSION_DENIED', upgrade_path: 'pro' },
    });
  });
});

describe.each([
  ['2026-07-28', requestModern],
  ['2025-11-25', requestLegacy],
] as const)('over MCP of %s', (_era, request) => {
  it('tools of servers are listed by plan, by their names, and by their server where a name is taken', async () => {
    const names = async (plan: PlanName) => {
      const { body } = await request('tools/list', {}, { token: tokenOf(plan), url: url() });
      return body.result.tools.map(({ name }: { name: string }) => name);
    };
    const [free, pro] = [await names('free'), await names('pro')];
    expect(free).toEqual(expect.arrayContaining(['echo', 'program__echo', 'pid']));
    expect(free).not.toContain('steps');
    expect(pro).toEqual(expect.arrayContaining(['steps', 'query_corpus']));
    expect(pro).not.toContain('hidden');
  });

  it('a result is what its server made it, and an error says what its server said', async () => {
    const token = tokenOf('pro');
    const call = async (name: string, args: object) =>
      (await request('tools/call', { name, arguments: args }, { token, url: url() })).body;
    expect((await call('echo', HELLO)).result).toMatchObject(SAID);
    expect((await call('program__echo', HELLO)).result).toMatchObject(SAID);
    expect((await call('refuse', {})).result).toMatchObject({
      isError: true,
      content: [{ text: 'There is no such city.' }],
    });
    expect((await call('hidden', {})).error.code).toBe(-32602);
  });

  it('a result of structured content only is repeated as text, for clients that read no other', async () => {
    const { body } = await request(
      'tools/call',
      { name: 'count', arguments: {} },
      { token: tokenOf('pro'), url: url() },
    );
    const { content, structuredContent } = body.result;
    expect(structuredContent).toEqual({ executions: expect.any(Number) });
    expect(content).toEqual([{ type: 'text', text: JSON.stringify(structuredContent) }]);
  });

  it('an idempotency key has a call executed once, over any transport', async () => {
    const { token } = mint('pro');
    const _meta = { 'tollgate/idempotencyKey': 'k' };
    const first = await request('tools/call', { name: 'count', arguments: {}, _meta }, { token, url: url() });
    const client = await openClient({ token, url: url() });
    const again = await callTool(client, 'count', {}, { idempotency_key: 'k' });
    expect(again.fields).toMatchObject({
      repeated: true,
      result: { structuredContent: first.body.result.structuredContent },
    });
  });

  it('resources are those that the operator allows of servers that the caller has the permission for', async () => {
    const requests = async (method: string, params: object, plan: PlanName = 'pro') =>
      (await request(method, params as never, { token: tokenOf(plan), url: url(), headers: named(params) })).body;
    expect((await requests('resources/list', {})).result.resources).toMatchObject([
      { uri: 'docs://public/one', name: 'One' },
      { uri: 'docs://large' },
    ]);
    expect((await requests('resources/read', { uri: 'docs://large' })).error.data.code).toBe('TOOL_FAILED');
    expect((await requests('resources/list', {}, 'free')).result.resources).toEqual([]);
    expect((await requests('resources/templates/list', {})).result.resourceTemplates).toHaveLength(1);
    for (const uri of ['docs://public/one', 'docs://public/two']) {
      expect((await requests('resources/read', { uri })).result.contents).toMatchObject([{ uri }]);
    }
    const refused = ['internal://plans', 'docs://public/missing'].map((uri) => requests('resources/read', { uri }));
    refused.push(requests('resources/read', { uri: 'docs://public/one' }, 'free'));
    for (const { error } of await Promise.all(refused)) {
      expect(error).toMatchObject({ code: expect.any(Number), data: { uri: expect.any(String) } });
      expect([-32602, -32002]).toContain(error.code);
    }
  });

  it('prompts are those that the operator allows, and their arguments are completed', async () => {
    const requests = async (method: string, params: object) =>
      (await request(method, params as never, { token: tokenOf('free'), url: url(), headers: named(params) })).body;
    expect((await requests('prompts/list', {})).result.prompts).toMatchObject([{ name: 'greet' }]);
    const { result } = await requests('prompts/get', { name: 'greet', arguments: { whom: 'you' } });
    expect(result.messages).toMatchObject([{ content: { text: 'greet {"whom":"you"}' } }]);
    expect((await requests('prompts/get', { name: 'hidden_prompt' })).error.code).toBe(-32602);
    const ref = { type: 'ref/prompt', name: 'greet' };
    const completed = await requests('completion/complete', { ref, argument: { name: 'whom', value: 'y' } });
    expect(completed.result.completion.values).toEqual(['y-completed']);
  });
});

/** A call that requests progress notifications. */
const STEPS = { name: 'steps', arguments: {}, _meta: { progressToken: 'p' } };
const named = (params: object) => ('uri' in params ? { 'mcp-name': String(params.uri) } : {});

describe('over MCP', () => {
  it.each(['auto', 'legacy'] as const)(
    'a caller that requests it receives progress notifications (%s)',
    async (mode) => {
      const client = await modernClient(tokenOf('pro'), mode, url());
      const answered: unknown[] = [];
      const onprogress = (progress: unknown) => answered.push(progress);
      const result = await client.callTool({ name: 'steps', arguments: {} }, { onprogress });
      expect(result.content).toEqual([{ type: 'text', text: 'done' }]);
      expect(answered).toEqual([
        { progress: 1, total: 2 },
        { progress: 2, total: 2 },
      ]);
    },
  );

  it.each([
    { era: '2025-11-25', request: { jsonrpc: '2.0', id: 7, method: 'tools/call', params: STEPS } },
    { era: '2026-07-28', request: modernRequest('tools/call', STEPS, 7) },
  ])('so is a caller on a WebSocket, in frames before the answer ($era)', async ({ request }) => {
    const client = await openClient({ path: '/ws/mcp', url: url(), token: tokenOf('pro') });
    await client.welcome();
    client.sendRaw(JSON.stringify(request));
    const answer = await client.waitFor(({ rpcId }) => rpcId === 7);
    // The events of the call arrive beside it.
    const before = client.events.slice(0, client.events.indexOf(answer));
    const answered = before.filter(({ type }) => type === 'notifications/progress').map(({ fields }) => fields);
    expect(answered).toEqual([
      expect.objectContaining({ progressToken: 'p', progress: 1, total: 2 }),
      expect.objectContaining({ progressToken: 'p', progress: 2, total: 2 }),
    ]);
  });

  it('a caller whose token would be the larger part of each word of progress gets the result alone', async () => {
    const params = { name: 'steps', arguments: {}, _meta: { progressToken: 'p'.repeat(10_000) } };
    for (const request of [requestLegacy, requestModern]) {
      // A message before the result would make it a stream.
      const { headers, body } = await request('tools/call', params, { token: tokenOf('pro'), url: url() });
      expect(headers.get('content-type')).toMatch(/json/);
      expect(body.result.content).toEqual([{ type: 'text', text: 'done' }]);
    }
  });

  it('a caller that accepts JSON only gets the result alone, although it requests progress', async () => {
    for (const request of [requestLegacy, requestModern]) {
      const post = { token: tokenOf('pro'), url: url(), headers: { accept: 'application/json' } };
      const { headers, body } = await request('tools/call', STEPS, post);
      expect(headers.get('content-type')).toMatch(/json/);
      expect(body.result.content).toEqual([{ type: 'text', text: 'done' }]);
    }
  });

  it('a refusal has its status also for a caller that requests progress', async () => {
    const { status, headers, body } = await requestLegacy('tools/call', STEPS, { token: tokenOf('free'), url: url() });
    expect([status, headers.get('content-type'), body.error.code]).toEqual([
      200,
      expect.stringMatching(/json/),
      -32602,
    ]);
  });

  it('on a WebSocket tools, resources and prompts of servers are the same', async () => {
    const client = await legacyClient(tokenOf('pro'), 'websocket', url());
    expect(await client.callTool({ name: 'echo', arguments: HELLO })).toMatchObject(SAID);
    expect((await client.listResources()).resources).toHaveLength(2);
    expect((await client.getPrompt({ name: 'greet', arguments: { whom: 'you' } })).messages).toHaveLength(1);
  });
});

it('a server gets the secret that is meant for it, and nothing of who called', async () => {
  const { token, userId } = mint('pro');
  await requestModern('tools/call', { name: 'echo', arguments: HELLO }, { token, url: url() });
  const seen = upstream.requests.at(-1);
  expect(seen?.headers.authorization).toBe(`Bearer ${SECRET}`);
  const everything = JSON.stringify(upstream.requests.map(({ headers, message }) => [headers, message]));
  expect(everything).not.toContain(token);
  expect(everything).not.toContain(userId);
});

it('an agent that has a tool of a server uses it in its runs, and the run pays for it', async () => {
  model.script = (_request, at) =>
    at === 0
      ? {
          calls: [
            { name: 'echo', args: HELLO },
            { name: 'program__echo', args: HELLO },
          ],
        }
      : { text: ['Done.'] };
  const { token, userId } = mint('pro');
  const client = await openClient({ token, url: url() });
  const { events } = await runToEnd(client);
  const completed = events.filter(({ type }) => type === 'tool_completed').map(({ fields }) => fields);
  expect(completed.map(({ result, error }) => error ?? result)).toEqual([SAID, SAID]);
  expect(model.requests[0]?.body.tools?.map((tool) => tool.function.name)).toEqual([
    'echo',
    'query_corpus',
    'program__echo',
  ]);
  await until(
    async () =>
      (await billedRecords(userId, stack.addresses)).filter(({ tool }) => tool === 'echo' || tool === 'program__echo')
        .length === 2,
    {
      timeoutMs: 15_000,
    },
  );
});

it('a server that says that its tools have changed is asked again, and the change shows', async () => {
  const token = tokenOf('pro');
  const { count, ...others } = script.tools;
  script.tools = others;
  upstream.toolsChanged();
  await until(async () => !(await listed(token)).some(({ name }) => name === 'count'), { timeoutMs: 10_000 });
  const client = await openClient({ token, url: url() });
  expect(await callTool(client, 'count')).toMatchObject({ fields: { code: 'TOOL_NOT_AVAILABLE' } });
  script.tools = { ...others, ...(count ? { count } : {}) };
  upstream.toolsChanged();
  await until(async () => (await listed(token)).some(({ name }) => name === 'count'), { timeoutMs: 10_000 });
});

it('the metrics have requests by their result, and the breaker, by server', async () => {
  const found = await metrics();
  expect(found).toMatch(
    /tollgate_upstream_requests_total\{server="remote",operation="tools\/call",result="ok"\} [1-9]/,
  );
  expect(found).toMatch(/tollgate_upstream_breaker_state\{server="program"\} 0/);
  expect(found).toMatch(/tollgate_upstream_call_seconds_count\{server="remote"\} [1-9]/);
});

it('GET /v1/tool-servers has the state of each server, for services with the scope admin', async () => {
  const ask = async (scope: string) => {
    const service = await serviceToken(scope, { stack: stack.addresses });
    return await fetch(`${url()}/v1/tool-servers`, { headers: { authorization: `Bearer ${service}` } });
  };
  expect((await ask('usage:read')).status).toBe(403);
  const body = (await (await ask('admin')).json()) as { servers: { name: string }[] };
  expect(body.servers.find(({ name }) => name === 'remote')).toMatchObject({
    transport: 'http',
    state: 'ready',
    problem: null,
    read_at: expect.any(String),
    breakers: { calls: 'closed', reads: 'closed', lists: 'closed' },
    tools: expect.arrayContaining(['echo']),
    omitted: [],
  });
  expect(JSON.stringify(body)).not.toContain(SECRET);
});

it('an operator adds and removes servers without a restart; a file with a mistake changes nothing', async () => {
  const token = tokenOf('pro');
  const reload = async () => {
    const service = await serviceToken('admin', { stack: stack.addresses });
    const headers = { authorization: `Bearer ${service}` };
    const response = await fetch(`${url()}/v1/config/reload`, { method: 'POST', headers });
    return { status: response.status, body: await response.text() };
  };
  write('tool-servers.json', { servers: [{ ...remote(), headers: { authorization: `Bearer ${SECRET}` } }] });
  const refused = await reload();
  expect(refused).toMatchObject({ status: 400, body: expect.stringContaining('servers.0.headers.authorization') });
  expect(refused.body).not.toContain(SECRET);
  expect((await listed(token)).map(({ name }) => name)).toContain('pid');
  write('tool-servers.json', { servers: [remote()] });
  expect((await reload()).status).toBe(200);
  await until(async () => !(await listed(token)).some(({ name }) => name === 'pid'));
  const echoed = await requestModern('tools/call', { name: 'echo', arguments: HELLO }, { token, url: url() });
  expect(echoed.body.result).toMatchObject(SAID);
});
