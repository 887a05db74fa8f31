import { beforeAll, describe, expect, it } from '@jest/globals';
import { io } from 'socket.io-client';
import { Tollgate } from '../../packages/client/src/tollgate.ts';
import { socketIoTransport } from '../../packages/client/src/transports/socketio.ts';
import { openClient } from '../support/clients.ts';
import { openStream, type StreamOptions } from '../support/event-stream.ts';
import { billedRecords } from '../support/ledger.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const ask = (path: string, options: StreamOptions = {}, node = 0) => openStream(nodeUrl(node) + path, options).ended();
const post = (tool: string, token: string, body: unknown, node = 0) =>
  ask(`/v1/tools/${tool}`, { method: 'POST', token, body }, node);

describe('POST /v1/tools/{tool}', () => {
  it('executes a call once per idempotency key, on any node, and bills it once', async () => {
    const { token, userId } = mintToken({ plan: 'pro' });
    const body = { arguments: { title: 'Mine' }, idempotency_key: 'key_1', request_id: 'req_1' };
    const first = await post('create_thread', token, body);
    expect([first.status, first.json]).toMatchObject([
      200,
      { tool: 'create_thread', success: true, repeated: false, request_id: 'req_1', result: { title: 'Mine' } },
    ]);
    const again = await post('create_thread', token, body, 1);
    const { tool_call_id, result } = first.json;
    expect(again.json).toMatchObject({ tool_call_id, result, repeated: true, rate_limit_status: null });
    await until(async () => (await billedRecords(userId)).length > 0, { timeoutMs: 10_000 });
    expect(await billedRecords(userId)).toMatchObject([
      { id: first.json.usage_record_id, transport: 'http', idempotency_key: 'key_1', request_id: 'req_1' },
    ]);
  });

  it('names the thread of the request in the events of the call', async () => {
    const { token } = mintToken({ plan: 'pro' });
    const client = await openClient({ transport: 'ws', token });
    await client.welcome();
    await post('list_agents', token, { thread_id: 'thread_mine' });
    const { fields } = await client.waitFor('tool_completed');
    expect(fields).toMatchObject({ thread_id: 'thread_mine', run_id: null, success: true });
  });

  const bigArguments = { arguments: { title: 'x'.repeat(66_000) } };
  const manyValues = { arguments: { list: new Array(5_000).fill(1) } };
  it.each([
    ['an unknown tool', 'nothing', {}, 404, 'TOOL_NOT_FOUND'],
    ['a tool of a higher plan', 'cost_analyzer', {}, 403, 'PERMISSION_DENIED'],
    ['arguments that do not fit', 'create_thread', { arguments: { title: 5 } }, 400, 'FORMAT_ERROR'],
    ['arguments that are no object', 'create_thread', { arguments: [] }, 400, 'FORMAT_ERROR'],
    ['a name that no tool can have', 'x'.repeat(65), {}, 400, 'FORMAT_ERROR'],
    ['arguments above the size of an MCP message', 'create_thread', bigArguments, 413, 'MESSAGE_TOO_LARGE'],
    ['arguments with too many values', 'create_thread', manyValues, 400, 'JSON_ERROR'],
  ])('refuses %s', async (_name, tool, body, status, code) => {
    const answer = await post(tool, mintToken({ plan: 'free' }).token, { ...body, request_id: 'req_1' });
    expect([answer.status, answer.json]).toMatchObject([status, { error: { code } }]);
  });

  it('refuses another call under a used idempotency key, with the id of the request', async () => {
    const { token } = mintToken({ plan: 'pro' });
    await post('create_thread', token, { arguments: { title: 'One' }, idempotency_key: 'k' });
    const body = { arguments: { title: 'Two' }, idempotency_key: 'k', request_id: 'req_2' };
    const { status, json } = await post('create_thread', token, body);
    expect([status, json]).toMatchObject([422, { error: { code: 'IDEMPOTENCY_CONFLICT', request_id: 'req_2' } }]);
  });
});

const READS = ['/v1/tools', '/v1/threads', '/v1/threads/thread_a/messages', '/v1/usage'];

describe.each(READS)('GET %s', (path) => {
  it('needs the token of a user, and an allowed origin', async () => {
    const missing = await ask(path);
    expect([missing.status, missing.json]).toMatchObject([401, { error: { code: 'NO_TOKEN' } }]);
    const headers = { origin: 'https://other.example' };
    const foreign = await ask(path, { token: mintToken().token, headers });
    expect([foreign.status, foreign.json]).toMatchObject([403, { error: { code: 'ORIGIN_NOT_ALLOWED' } }]);
  });

  it('counts as a message of the user', async () => {
    const { token } = mintToken({ plan: 'free' });
    const answers = await Promise.all(Array.from({ length: 31 }, () => ask(path, { token })));
    const refused = answers.filter(({ status }) => status === 429);
    expect(refused.map(({ json }) => json.error)).toMatchObject([{ code: 'RATE_LIMITED' }]);
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(30);
  });
});

const TRANSPORTS = {
  websocket: 'websocket',
  sse: 'sse',
  socketio: socketIoTransport(io, { transports: ['websocket'] }),
} as const;

describe.each(Object.entries(TRANSPORTS))('the client package over %s', (_name, transport) => {
  let client: Tollgate;
  beforeAll(() => {
    const user = mintToken({ plan: 'pro' });
    client = new Tollgate({ url: nodeUrl(2), getToken: () => user.token, transport });
    closeAfter('file', () => client.close());
  });

  it('calls tools once per key, and rejects a refused call with its code', async () => {
    const call = () => client.callTool('create_thread', { title: 'Mine' }, { idempotencyKey: 'k' });
    const first = await call();
    expect(first).toMatchObject({ tool: 'create_thread', success: true, repeated: false });
    expect(await call()).toMatchObject({ tool_call_id: first.tool_call_id, repeated: true });
    await expect(client.callTool('nothing')).rejects.toMatchObject({ code: 'TOOL_NOT_FOUND', retryable: false });
  });

  it('lists tools, threads and messages, page by page', async () => {
    const { threadId } = await client.run('How is my workload doing?').result();
    expect((await client.tools()).map(({ name }) => name)).toContain('create_thread');
    const threads = await client.threads.list();
    expect(threads[0]).toMatchObject({ thread_id: threadId, title: 'How is my workload doing?' });
    const newest = await client.threads.history(threadId, { limit: 1 });
    expect(newest.messages).toMatchObject([{ role: 'assistant' }]);
    const older = await client.threads.history(threadId, { before: newest.before ?? '' });
    expect(older).toMatchObject({ messages: [{ role: 'user', text: 'How is my workload doing?' }], before: null });
  });

  it('reports the usage of the user', async () => {
    const charged = async () => (await client.usage()) as { readonly plan: string; readonly today: { calls: number } };
    const { plan, today } = await charged();
    expect(plan).toBe('pro');
    await client.callTool('list_agents');
    await until(async () => (await charged()).today.calls > today.calls);
  });
});
