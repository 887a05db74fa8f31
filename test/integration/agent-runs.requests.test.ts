import { describe, expect, it } from '@jest/globals';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { eventsOf, freshRequestId, runToEnd } from '../support/agent-runs.ts';
import { toolFile } from '../support/catalogues.ts';
import { openClient, type TestClient, TRANSPORTS } from '../support/clients.ts';
import { silentLogger } from '../support/core.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { stack } from '../support/stack.ts';
import { mintToken, type PlanName } from '../support/tokens.ts';

const PRO_TOOLS = toolFile.tools
  .filter(({ permission }) => ['basic', 'analytics', 'data_management', 'monitoring'].includes(String(permission)))
  .map(({ name }) => name);
const BASIC_TOOLS = ['create_thread', 'get_thread_history', 'list_agents', 'get_agent_status'];

/** Resolves with the answer to a message with a request id: the next event of that type, or the error. */
async function ask(client: TestClient, type: string, fields: Record<string, unknown>, answer = type) {
  const request_id = freshRequestId();
  client.send(type, { ...fields, request_id });
  const event = await client.waitFor((one) => {
    return one.fields.request_id === request_id && (one.type === answer || one.type === 'error');
  });
  return { type: event.type, fields: event.fields };
}

/** Counts the runs whose start a client has received. */
const begun = (client: TestClient) => client.events.filter(({ type }) => type === 'agent_started').length;

describe.each(TRANSPORTS)('a request over %s', (transport) => {
  async function connect(plan: PlanName = 'pro', node = 0): Promise<TestClient> {
    return openClient({ transport, url: nodeUrl(node), token: mintToken({ plan }).token });
  }

  it.each(['agent_request', 'start_agent', 'user_message', 'chat_message', 'chat'])(
    'is understood by the name %s',
    async (type) => {
      const run = await runToEnd(await connect(), { message: 'hello' }, type);
      expect(run.events.at(-1)?.type).toBe('agent_completed');
    },
  );

  it('that was over the limit runs when it is repeated once the limit allows it', async () => {
    const { token, userId } = mintToken({ plan: 'free' });
    const client = await openClient({ transport, url: nodeUrl(0), token });
    for (let i = 0; i < 30; i++) client.send('ping', { timestamp: i });
    await client.waitFor(({ type, fields }) => type === 'pong' && fields.original_timestamp === 29);
    const request_id = freshRequestId();
    client.send('agent_request', { message: 'hello', request_id });
    const refused = await client.waitFor('error');
    expect(refused.fields).toMatchObject({ code: 'RATE_LIMITED', request_id });
    // The minute is over, and another node has no copy in memory.
    const redis = await connectRedis(stack().redisUrl, 'commands', silentLogger);
    closeAfter('test', () => disconnectRedis(redis));
    await redis.del(new Keys(stack().keyPrefix).user(userId).messageRate);
    const again = await openClient({ transport, url: nodeUrl(1), token });
    const run = await runToEnd(again, { request_id });
    expect(run.events.at(-1)?.type).toBe('agent_completed');
  });

  it('starts one run however often its request_id comes, and is answered with that run', async () => {
    const client = await connect();
    const request_id = freshRequestId();
    const first = await runToEnd(client, { request_id });
    const from = client.mark();
    client.send('agent_request', { message: 'something else', request_id, thread_id: 'elsewhere' });
    const again = await client.waitFor('agent_accepted', { from });
    expect(again.fields).toMatchObject({
      run_id: first.runId,
      thread_id: first.accepted.fields.thread_id,
      request_id,
    });
    // A second run would have started before this one ended.
    await runToEnd(client);
    expect(begun(client)).toBe(2);
  });

  it('starts one run when it comes to three nodes at once, and all are answered with it', async () => {
    const { token } = mintToken({ plan: 'enterprise' });
    const clients = await Promise.all([0, 1, 2].map((node) => openClient({ transport, url: nodeUrl(node), token })));
    await Promise.all(clients.map((client) => client.welcome()));
    for (let round = 0; round < 5; round++) {
      const request_id = freshRequestId();
      const runs = await Promise.all(clients.map((client) => runToEnd(client, { request_id })));
      expect(new Set(runs.map(({ runId }) => runId)).size).toBe(1);
      expect(new Set(runs.map(({ accepted }) => accepted.fields.thread_id)).size).toBe(1);
    }
    // All earlier events have arrived when these have.
    const last = await Promise.all(clients.map((client) => runToEnd(client)));
    const [first] = clients as [TestClient];
    for (const { runId } of last) {
      await first.waitFor(({ type, fields }) => type === 'agent_completed' && fields.run_id === runId);
    }
    expect(begun(first)).toBe(8);
  });

  it('to an agent that is not there is AGENT_NOT_FOUND, naming those that are', async () => {
    const client = await connect();
    const { type, fields } = await ask(client, 'agent_request', { message: 'hello', agent: 'nobody' });
    expect([type, fields]).toEqual([
      'error',
      expect.objectContaining({
        code: 'AGENT_NOT_FOUND',
        retryable: false,
        agents: ['triage_agent', 'usage_agent', 'operations_agent'],
      }),
    ]);
    await runToEnd(client);
    expect(begun(client)).toBe(1);
  });

  it('to a named agent is answered by that agent', async () => {
    const client = await connect();
    const { events } = await runToEnd(client, { agent: 'operations_agent', message: 'Is the system healthy?' });
    expect(new Set(events.map(({ fields }) => fields.agent_name))).toEqual(new Set(['operations_agent']));
  });

  it('to end a run that is not there is RUN_NOT_FOUND', async () => {
    const client = await connect();
    for (const type of ['agent_cancel', 'stop_agent']) {
      const { fields } = await ask(client, type, { run_id: 'run_nowhere' });
      expect(fields).toMatchObject({ code: 'RUN_NOT_FOUND', run_id: 'run_nowhere' });
    }
  });

  it('to end a run that has ended says so, and adds no event', async () => {
    const client = await connect();
    const { runId, events } = await runToEnd(client);
    const { type, fields } = await ask(client, 'agent_cancel', { run_id: runId }, 'cancel_accepted');
    expect([type, fields]).toEqual([
      'cancel_accepted',
      expect.objectContaining({ run_id: runId, already_ended: true }),
    ]);
    await runToEnd(client);
    expect(eventsOf(client, runId)).toHaveLength(events.length);
  });

  it.each([
    ['free', BASIC_TOOLS],
    ['pro', PRO_TOOLS],
  ] as const)('for the tools of the %s plan lists what may be used, with its arguments', async (plan, names) => {
    const { fields } = await ask(await connect(plan), 'tools_list', {});
    const tools = fields.tools as Record<string, unknown>[];
    expect(tools.map(({ name }) => name)).toEqual(names);
    expect(tools[0]).toEqual({
      name: 'create_thread',
      description: expect.any(String),
      permission: 'basic',
      units: 1,
      arguments: expect.objectContaining({ type: 'object' }),
      available: true,
    });
  });

  it('for the threads lists them by their last change, titled by their first message', async () => {
    const client = await connect();
    expect((await ask(client, 'threads_list', {})).fields.threads).toEqual([]);
    await runToEnd(client, { thread_id: 'thread_a', message: 'first  of\nall' });
    await runToEnd(client, { thread_id: 'thread_b', message: `second ${'x'.repeat(200)}` });
    await runToEnd(client, { thread_id: 'thread_a', message: 'once more' });
    const { fields } = await ask(client, 'threads_list', {});
    expect(fields.threads).toEqual([
      { thread_id: 'thread_a', title: 'first of all', created_at: expect.any(String), updated_at: expect.any(String) },
      expect.objectContaining({ thread_id: 'thread_b', title: expect.stringMatching(/^second x{72}…$/) }),
    ]);
  });

  it('for the history of a thread gives questions and answers, newest first, page by page', async () => {
    const client = await connect();
    const first = await runToEnd(client, { thread_id: 'thread_a', message: 'Is the system healthy?' });
    const second = await runToEnd(client, { thread_id: 'thread_a', message: 'And my usage?' });
    await runToEnd(client, { thread_id: 'thread_b', message: 'elsewhere' });
    const answer = (run: typeof first) => run.events.at(-1)?.fields.final_response;
    const expected = [
      { role: 'assistant', text: answer(second), run_id: second.runId },
      { role: 'user', text: 'And my usage?', run_id: second.runId },
      { role: 'assistant', text: answer(first), run_id: first.runId },
      { role: 'user', text: 'Is the system healthy?', run_id: first.runId },
    ];
    const whole = await ask(client, 'thread_history', { thread_id: 'thread_a' });
    expect(whole.fields).toMatchObject({ thread_id: 'thread_a', messages: expected, before: null });

    const page = await ask(client, 'thread_history', { thread_id: 'thread_a', limit: 3 });
    expect(page.fields.messages).toMatchObject(expected.slice(0, 3));
    const rest = await ask(client, 'thread_history', { thread_id: 'thread_a', limit: 3, before: page.fields.before });
    expect(rest.fields).toMatchObject({ messages: expected.slice(3), before: null });
    const ids = [page, rest].flatMap(({ fields }) => fields.messages as { message_id: string }[]);
    expect(new Set(ids.map(({ message_id }) => message_id)).size).toBe(4);

    const none = await ask(client, 'thread_history', { thread_id: 'thread_nowhere' });
    expect(none.fields).toMatchObject({ messages: [], before: null });
  });

  it('that only reports typing gets no answer', async () => {
    const client = await connect();
    client.send('typing', { thread_id: 'thread_a' });
    client.send('ping');
    await client.waitFor('pong');
    expect(client.events.map(({ type }) => type)).toEqual(['connection_established', 'pong']);
  });
});

describe('an acknowledgement of Socket.IO', () => {
  it('is called once for every request, with what was asked for or with the error', async () => {
    const client = await openClient({ transport: 'socketio', token: mintToken().token });
    const accepted = (await client.call('agent_request', { message: 'hello' })) as Record<string, unknown>;
    expect(accepted).toMatchObject({ ok: true, type: 'agent_accepted', run_id: expect.any(String) });
    await client.waitFor(({ type, fields }) => type === 'agent_completed' && fields.run_id === accepted.run_id);
    expect(await client.call('typing', {})).toMatchObject({ ok: true });
    expect(await client.call('tools_list')).toMatchObject({ ok: true, tools: expect.any(Array) });
    expect(await client.call('agent_request', {})).toMatchObject({ error: { code: 'FORMAT_ERROR', field: 'message' } });
    expect(await client.call('agent_cancel', { run_id: accepted.run_id })).toMatchObject({
      ok: true,
      already_ended: true,
    });
    const types = client.events.map(({ type }) => type);
    for (const answered of ['agent_accepted', 'error', 'tools_list', 'cancel_accepted']) {
      expect(types).not.toContain(answered);
    }
  });
});
