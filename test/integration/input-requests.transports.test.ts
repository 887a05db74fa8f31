import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { inputRequired, inputResponse, type ServerContext } from '@modelcontextprotocol/server';
import { runToEnd } from '../support/agent-runs.ts';
import { planFile, toolFile } from '../support/catalogues.ts';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { billedRecords } from '../support/ledger.ts';
import { type McpAnswer, modernRequest, requestLegacy, requestModern } from '../support/mcp.ts';
import { ModelServer } from '../support/model-server.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { callTool } from '../support/tool-calls.ts';
import { until } from '../support/until.ts';
import { HttpUpstream } from '../support/upstreams/http-upstream.ts';
import { type ServerScript, text } from '../support/upstreams/mcp-script.ts';

type Json = Readonly<Record<string, unknown>>;

const CAN = { elicitation: { form: {} }, sampling: {}, roots: {} };
const BOOK = { name: 'book', arguments: { room: 7 } };
const ANSWERS = {
  name: { action: 'accept', content: { name: 'Ada' } },
  words: { role: 'assistant', content: { type: 'text', text: 'Welcome' }, model: 'm', stopReason: 'endTurn' },
  places: { roots: [{ uri: 'file:///home' }] },
};
const NOT_PASSED_ON = 'The tool needs input from its caller, but input requests are not forwarded here.';
const NAME = inputRequired.elicit({
  message: 'Who books?',
  requestedSchema: { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] },
});
const WORDS = inputRequired.createMessage({
  messages: [{ role: 'user', content: { type: 'text', text: 'A greeting' } }],
  maxTokens: 20,
});

/** Returns the answer of the form; undefined before. */
function nameIn({ mcpReq }: ServerContext): unknown {
  const answer = inputResponse(mcpReq.inputResponses, 'name');
  return answer.kind === 'elicit' ? answer.content?.name : undefined;
}

const script: ServerScript = {
  tools: {
    book: {
      run({ room }, context) {
        const name = nameIn(context);
        if (name !== undefined) return text(`${context.mcpReq.requestState()}: room ${room} for ${name}`);
        const inputRequests = { name: NAME, words: WORDS, places: inputRequired.listRoots() };
        return inputRequired({ inputRequests, requestState: 'kept by the server' });
      },
    },
  },
  resources: [{ uri: 'docs://one', name: 'One' }],
  prompts: [{ name: 'greet', arguments: [{ name: 'whom' }] }],
  inputFirst: (context) => {
    if (nameIn(context) !== undefined) return undefined;
    return inputRequired({ inputRequests: { name: NAME }, requestState: 'of the server' });
  },
};

let upstream: HttpUpstream;
let model: ModelServer;
let stack: StackProcesses;

beforeAll(async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-questions-'));
  closeAfter('file', () => rmSync(folder, { recursive: true }));
  const write = (file: string, content: unknown) => writeFileSync(join(folder, file), JSON.stringify(content));
  upstream = await HttpUpstream.start(script, 'file');
  model = await ModelServer.start((_request, at) =>
    at === 0 ? { calls: [{ name: 'book', args: BOOK.arguments }] } : { text: ['Done.'] },
  );
  closeAfter('file', () => model.close());
  write('plans.json', planFile);
  write('tools.json', toolFile);
  write('agents.json', { default: 'a', agents: [{ name: 'a', description: 'a', tools: ['book'] }] });
  const everything = { permission: 'basic', allow: ['*'] };
  const server = {
    ...{ name: 'remote', url: upstream.url, asks: ['elicitation', 'sampling', 'roots'] },
    ...{ tools: { book: { permission: 'basic', units: 3 } }, resources: everything, prompts: everything },
  };
  write('tool-servers.json', { servers: [server] });
  const env = {
    CATALOGUE_DIR: folder,
    TOOL_SERVERS: join(folder, 'tool-servers.json'),
    MESSAGE_RATE_PER_MINUTE: '1000',
  };
  const ofModel = { AGENT_MODEL_URL: model.url, AGENT_MODEL_NAME: 'm' };
  stack = await startStack({ gateways: 2, workers: 1, env: { ...env, ...ofModel } });
  const token = mint().token;
  // Each process has fetched the capabilities of the server; the worker reports it in its metrics.
  const read = /upstream_requests_total\{server="remote",operation="lists",result="ok"\}/;
  for (const at of [0, 1]) {
    const offered = async () =>
      JSON.stringify((await request('tools/list', {}, { token, at })).body).includes('"book"');
    await until(offered, { timeoutMs: 15_000, label: 'the tool' });
  }
  const worker = stack.addresses.workers[0]?.url;
  await until(async () => read.test(await (await fetch(`${worker}/metrics`)).text()), { timeoutMs: 15_000 });
}, 60_000);

beforeEach(() => {
  upstream.requests.length = 0;
});

const mint = () => mintToken({ plan: 'pro' }, { stack: stack.addresses });
const runs = (method = 'tools/call') => upstream.received(method).length;

interface RequestingTool {
  readonly token: string;
  /** The node. */
  readonly at?: number;
  readonly capabilities?: Json;
}

const meta = (capabilities: Json, more: Json = {}) => ({
  'io.modelcontextprotocol/clientCapabilities': capabilities,
  ...more,
});

function request(
  method: string,
  params: Json,
  { token, at = 0, capabilities = CAN }: RequestingTool,
): Promise<McpAnswer> {
  const named = 'uri' in params ? { headers: { 'mcp-name': String(params.uri) } } : {};
  const _meta = meta(capabilities, params._meta as Json);
  return requestModern(method, { ...params, _meta }, { token, url: nodeUrl(at, stack.addresses), ...named });
}

/** Returns the same request with the requested input. */
const answering = (params: Json, { body }: McpAnswer, inputResponses: Json = ANSWERS) => ({
  ...params,
  inputResponses,
  requestState: body.result.requestState,
});

describe('a tool that asks its caller over MCP of 2026-07-28', () => {
  it('is answered on another node, continues with its own state, and is one record', async () => {
    const { token, userId } = mint();
    const requested = await request('tools/call', BOOK, { token, at: 0 });
    expect(requested.status).toBe(200);
    const { resultType, inputRequests, requestState, _meta } = requested.body.result;
    expect([resultType, Object.keys(inputRequests)]).toEqual(['input_required', ['name', 'words', 'places']]);
    expect(inputRequests.name.params).toMatchObject({ message: 'Who books?' });
    expect(Buffer.from(requestState, 'base64').toString('latin1')).not.toContain('kept by the server');
    const done = await request('tools/call', answering(BOOK, requested), { token, at: 1 });
    expect(done.body.result.content).toEqual([{ type: 'text', text: 'kept by the server: room 7 for Ada' }]);
    expect(done.body.result._meta['tollgate/toolCallId']).toBe(_meta['tollgate/toolCallId']);
    const second = upstream.received('tools/call')[1]?.message.params;
    expect(second).toMatchObject({ inputResponses: ANSWERS, requestState: 'kept by the server' });
    await until(async () => (await billedRecords(userId, stack.addresses)).length > 0, { timeoutMs: 15_000 });
    const records = await billedRecords(userId, stack.addresses);
    expect(records).toMatchObject([{ tool: 'book', units: 3, status: 'success', transport: 'mcp' }]);
    // A repeated request gets the same answer.
    const again = await request('tools/call', answering(BOOK, requested), { token, at: 0 });
    expect(again.body.result).toMatchObject({
      content: done.body.result.content,
      _meta: { 'tollgate/repeated': true },
    });
    expect(runs()).toBe(2);
  });

  it('goes on for the same user, tool and arguments alone, and with no state that was changed', async () => {
    const { token } = mint();
    const requested = await request('tools/call', BOOK, { token });
    const answer = answering(BOOK, requested);
    const { requestState } = answer;
    const refused = [
      request('tools/call', answer, { token: mint().token }),
      request('tools/call', { ...answer, arguments: { room: 8 } }, { token }),
      request('tools/call', { ...answer, name: 'list_agents' }, { token }),
      request('tools/call', { ...answer, _meta: { 'tollgate/idempotencyKey': 'k' } }, { token }),
      request('tools/call', { ...answer, requestState: `${requestState}-TAMPERED` }, { token }),
      request(
        'tools/call',
        { ...answer, requestState: requestState.replace(/^./, (c: string) => (c === 'A' ? 'B' : 'A')) },
        { token },
      ),
      request('tools/call', { ...answer, requestState: 'kept by the server' }, { token }),
      request('prompts/get', { name: 'greet', inputResponses: ANSWERS, requestState }, { token }),
    ];
    for (const { status, body } of await Promise.all(refused)) {
      expect([status, body.error]).toMatchObject([200, { code: -32602, data: { code: 'REQUEST_STATE_INVALID' } }]);
    }
    expect([runs(), runs('prompts/get')]).toEqual([1, 0]);
    expect((await request('tools/call', answer, { token })).body.result.content).toHaveLength(1);
  });

  it('goes through the same on a WebSocket, and from it to HTTP', async () => {
    const { token } = mint();
    const socket = await openClient({ path: '/ws/mcp', token, url: nodeUrl(0, stack.addresses) });
    await socket.welcome();
    const call = async (params: Json, id: number) => {
      socket.sendRaw(JSON.stringify(modernRequest('tools/call', { ...params, _meta: meta(CAN) }, id)));
      return (await socket.waitFor(({ rpcId }) => rpcId === id)).fields;
    };
    const requested = await call(BOOK, 1);
    expect(requested).toMatchObject({
      resultType: 'input_required',
      inputRequests: { name: { method: 'elicitation/create' } },
    });
    const answer = { ...BOOK, inputResponses: ANSWERS, requestState: requested.requestState };
    expect((await request('tools/call', answer, { token, at: 1 })).body.result.isError).toBeUndefined();
    expect(await call(answer, 2)).toMatchObject({ resultType: 'complete', _meta: { 'tollgate/repeated': true } });
    expect(runs()).toBe(2);
  });

  it('is served to the official client, which asks its user by itself', async () => {
    const client = new Client(
      { name: 'asked', version: '1' },
      { capabilities: CAN, versionNegotiation: { mode: 'auto' } },
    );
    client.setRequestHandler('elicitation/create', () => ({ action: 'accept', content: { name: 'Bea' } }));
    client.setRequestHandler('sampling/createMessage', () => ({
      role: 'assistant',
      content: { type: 'text', text: 'Welcome' },
      model: 'm',
    }));
    client.setRequestHandler('roots/list', () => ({ roots: [] }));
    const requestInit = { headers: { authorization: `Bearer ${mint().token}` } };
    const url = new URL('/mcp', nodeUrl(0, stack.addresses));
    await client.connect(new StreamableHTTPClientTransport(url, { requestInit }));
    closeAfter('test', () => client.close());
    const { content } = await client.callTool(BOOK);
    expect(content).toEqual([{ type: 'text', text: 'kept by the server: room 7 for Bea' }]);
    const prompt = await client.getPrompt({ name: 'greet', arguments: { whom: 'you' } });
    expect(prompt.messages).toHaveLength(1);
  });

  it('names what its caller would have to declare, with status 400, and charges nothing', async () => {
    const { token, userId } = mint();
    const capabilities = { sampling: {} };
    const { status, body } = await request('tools/call', BOOK, { token, capabilities });
    expect([status, body.error.code]).toEqual([400, -32021]);
    expect(body.error.data.requiredCapabilities).toHaveProperty('elicitation');
    const client = await openClient({ token, url: nodeUrl(0, stack.addresses) });
    client.send('usage_summary', { request_id: 'req_1' });
    const { fields } = await client.waitFor('usage_summary');
    expect(fields).toMatchObject({ under_way: { calls: 0 }, today: { calls: 0, units: 0 } });
    expect(await billedRecords(userId, stack.addresses)).toEqual([]);
  });

  it('is counted in the metrics as what it is', async () => {
    await request('tools/call', BOOK, { token: mint().token });
    const found = await (await fetch(`${nodeUrl(0, stack.addresses)}/metrics`)).text();
    expect(found).toMatch(/tool_calls_total\{tool="book",transport="mcp",status="input_required"\} [1-9]/);
    expect(found).toMatch(
      /upstream_requests_total\{server="remote",operation="tools\/call",result="input_required"\} [1-9]/,
    );
  });
});

describe('prompts and resources that ask first', () => {
  it.each([
    ['prompts/get', { name: 'greet', arguments: { whom: 'you' } }, 'messages'],
    ['resources/read', { uri: 'docs://one' }, 'contents'],
  ])('%s is answered on any node, for the same request and user', async (method, params, member) => {
    const { token } = mint();
    const requested = await request(method, params, { token, at: 0 });
    expect(requested.body.result).toMatchObject({ resultType: 'input_required', inputRequests: { name: {} } });
    const answer = answering(params, requested);
    const stolen = await request(method, answer, { token: mint().token, at: 1 });
    expect(stolen.body.error).toMatchObject({ code: -32602, data: { code: 'REQUEST_STATE_INVALID' } });
    const { body } = await request(method, answer, { token, at: 1 });
    expect(body.result[member]).toHaveLength(1);
    expect(upstream.received(method).at(-1)?.message.params).toMatchObject({ requestState: 'of the server' });
    const missing = await request(method, params, { token, capabilities: {} });
    expect([missing.status, missing.body.error.code]).toEqual([400, -32021]);
  });
});

describe('over transports without input requests', () => {
  it('a call of the older era fails, and says why', async () => {
    const { body } = await requestLegacy('tools/call', BOOK, { token: mint().token, url: nodeUrl(0, stack.addresses) });
    expect(body.result).toMatchObject({ isError: true, content: [{ text: NOT_PASSED_ON }] });
  });

  it.each(TRANSPORTS)('a tool_call over %s fails, and says why', async (transport) => {
    const client = await openClient({ transport, token: mint().token, url: nodeUrl(0, stack.addresses) });
    const { fields } = await callTool(client, 'book', BOOK.arguments);
    expect(fields).toMatchObject({
      success: false,
      error: { code: 'TOOL_FAILED', message: NOT_PASSED_ON },
    });
    expect(runs()).toBe(1);
  });

  it('a call of an agent fails, and its run goes on', async () => {
    const client = await openClient({ token: mint().token, url: nodeUrl(0, stack.addresses) });
    const { events } = await runToEnd(client);
    const { fields } = events.find(({ type }) => type === 'tool_completed') ?? {};
    expect(fields).toMatchObject({ success: false, error: { code: 'TOOL_FAILED', message: NOT_PASSED_ON } });
    expect(events.at(-1)?.type).toBe('agent_completed');
  });
});
