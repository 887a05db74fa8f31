import { describe, expect, it } from '@jest/globals';
import { eventsOf, freshRequestId, runToEnd } from '../support/agent-runs.ts';
import { openClient, TRANSPORTS, type TransportName } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { openRawSocket } from '../support/raw-socket.ts';
import { stack } from '../support/stack.ts';
import { mintToken, type PlanName } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const PLANS: readonly PlanName[] = ['free', 'pro', 'enterprise'];

/** Connects a fresh user over one of the two transports to one of the three nodes. */
async function connect(index: number, plan: PlanName = 'pro') {
  const minted = mintToken({ plan });
  const transport = TRANSPORTS[index % 2] as TransportName;
  const client = await openClient({ transport, url: nodeUrl(index % 3), token: minted.token });
  return { ...minted, client, welcome: await client.welcome() };
}

describe('the context of a connection', () => {
  it('B43 B46 names user, connection and thread, and each run its own run and request', async () => {
    const { client, userId, welcome } = await connect(0);
    expect(welcome).toMatchObject({
      user_id: userId,
      connection_id: expect.stringMatching(/^ws_[\w-]+$/),
      thread_id: expect.stringMatching(/^thread_[\w-]+$/),
    });
    const [first, second] = [await runToEnd(client), await runToEnd(client)];
    for (const { accepted, runId } of [first, second]) {
      expect(runId).toMatch(/^run_[\w-]+$/);
      expect(accepted.fields.thread_id).toBe(welcome.thread_id);
    }
    expect(second.runId).not.toBe(first.runId);
    client.send('agent_request', { message: 'hello' });
    const unnamed = await client.waitFor(({ type, fields }) => {
      return type === 'agent_accepted' && ![first.runId, second.runId].includes(String(fields.run_id));
    });
    expect(unnamed.fields.request_id).toMatch(/^req_[\w-]+$/);
  });

  it('B44 B46 has ids that no other connection has, of the same user or another', async () => {
    const { token } = mintToken();
    const clients = await Promise.all([
      ...[0, 1, 2].map((node) => openClient({ url: nodeUrl(node), token })),
      openClient({ transport: 'socketio', token: mintToken().token }),
      openClient({ path: '/ws' }),
    ]);
    const welcomes = await Promise.all(clients.map((client) => client.welcome()));
    expect(new Set(welcomes.map(({ connection_id }) => connection_id)).size).toBe(5);
    const threads = welcomes.map(({ thread_id }) => thread_id).filter((id) => id !== undefined);
    expect(new Set(threads).size).toBe(4);
  });

  it('B47 B253 is that of its plan: permissions, limits and tools differ', async () => {
    const users = await Promise.all(PLANS.map((plan, index) => connect(index, plan)));
    expect(users.map(({ welcome }) => welcome.plan)).toEqual(PLANS);
    const rates = users.map(({ welcome }) => (welcome.limits as { max_message_rate: number }).max_message_rate);
    expect(rates).toEqual([30, 60, 300]);
    const [free = [], pro = [], enterprise = []] = users.map(({ welcome }) => welcome.permissions as string[]);
    expect(free).toEqual(['basic']);
    expect(pro).toEqual(expect.arrayContaining(free));
    expect(enterprise).toEqual(expect.arrayContaining(pro));
    expect(new Set([free.length, pro.length, enterprise.length]).size).toBe(3);
  });
});

describe('users at the same time', () => {
  it('B45 B257 share nothing: events, threads and runs are their own', async () => {
    const users = await Promise.all(PLANS.map((plan, index) => connect(index, plan)));
    const runs = await Promise.all(users.map(({ client, userId }) => runToEnd(client, { message: `I am ${userId}` })));
    for (const [at, { client, userId }] of users.entries()) {
      const others = users.filter((user) => user.userId !== userId).map((user) => user.userId);
      const seen = JSON.stringify(client.events);
      for (const other of others) expect(seen).not.toContain(other);
      expect(new Set(eventsOf(client, runs[at]?.runId).map(({ fields }) => fields.user_id))).toEqual(new Set([userId]));
      client.send('threads_list', { request_id: 'mine' });
      const { fields } = await client.waitFor('threads_list');
      expect(fields.threads).toEqual([expect.objectContaining({ title: `I am ${userId}` })]);
    }
  });

  it('B45 cannot end or read what belongs to another', async () => {
    const [owner, stranger] = [await connect(0), await connect(1)];
    const { runId, accepted } = await runToEnd(owner.client);
    stranger.client.send('agent_cancel', { run_id: runId, request_id: 'a' });
    expect((await stranger.client.waitFor('error')).fields).toMatchObject({ code: 'RUN_NOT_FOUND', request_id: 'a' });
    stranger.client.send('thread_history', { thread_id: accepted.fields.thread_id });
    expect((await stranger.client.waitFor('thread_history')).fields.messages).toEqual([]);
    const { epoch } = owner.welcome;
    stranger.client.send('resume', { after: 0, epoch });
    expect((await stranger.client.waitFor('resume_failed')).fields.reason).toBe('epoch_changed');
    expect(JSON.stringify(stranger.client.events)).not.toContain(owner.userId);
  });

  it('B45 that use the same request id start a run each', async () => {
    const users = await Promise.all([connect(0), connect(1), connect(2)]);
    const request_id = freshRequestId();
    const runs = await Promise.all(users.map(({ client }) => runToEnd(client, { request_id })));
    expect(new Set(runs.map(({ runId }) => runId)).size).toBe(3);
  });

  it('B48 B149 B157 ten of them authenticate in parallel, each as itself', async () => {
    const users = await Promise.all(Array.from({ length: 10 }, (_, index) => connect(index)));
    for (const { userId, welcome } of users) expect(welcome).toMatchObject({ user_id: userId, authenticated: true });
    expect(new Set(users.map(({ welcome }) => welcome.connection_id)).size).toBe(10);
  });
});

describe('what a client is sent', () => {
  /** Everything that no frame may contain. */
  const secretsOf = (token: string) => {
    const { secrets, redisUrl, keyPrefix } = stack();
    return [token, token.split('.')[2] ?? token, secrets.jwt, secrets.service, redisUrl, keyPrefix];
  };

  it('B54 is JSON and holds neither a token nor a secret: welcome, errors and events', async () => {
    const { token } = mintToken();
    const headers = { Authorization: `Bearer ${token}` };
    const raw = openRawSocket({ url: nodeUrl(0), path: '/ws', headers });
    await raw.answer;
    raw.sendFrame(JSON.stringify({ type: 'auth', token }));
    raw.sendFrame(JSON.stringify({ type: 'agent_request', message: 'How is my workload?', request_id: 'r' }));
    raw.sendFrame(token);
    raw.sendFrame(JSON.stringify({ type: 'agent_request', message: 'x', thread_id: token }));
    raw.sendFrame(JSON.stringify({ type: 'agent_request', message: 'x', agent: 'nobody' }));
    const text = () => raw.frames.map(({ payload }) => payload.toString()).join('\n');
    await until(() => text().includes('agent_completed') && text().includes('AGENT_NOT_FOUND'));
    for (const { payload } of raw.frames) expect(JSON.parse(payload.toString())).toHaveProperty('type');
    expect(secretsOf(token).filter((secret) => text().includes(secret))).toEqual([]);
  });

  it('B54 B118 of a refusal does not repeat the token that was refused', async () => {
    const { token } = mintToken({}, { secret: 'somebody else signs with this, 32+ bytes' });
    for (const path of ['/ws/secure', '/ws/mcp', '/ws/user_1']) {
      const raw = openRawSocket({ url: nodeUrl(0), path, headers: { Authorization: `Bearer ${token}` } });
      const { headers } = await raw.answer;
      await until(() => raw.closeFrame);
      const received = JSON.stringify(headers) + raw.body.toString();
      expect(secretsOf(token).filter((secret) => received.includes(secret))).toEqual([]);
    }
  });

  it('B54 over Socket.IO can be written as JSON and holds no token', async () => {
    const { token } = mintToken();
    const client = await openClient({ transport: 'socketio', token });
    await runToEnd(client);
    const received = JSON.stringify([client.events, await client.call('auth', { token })]);
    expect(secretsOf(token).filter((secret) => received.includes(secret))).toEqual([]);
  });

  it.each([
    ['before', false],
    ['after', true],
  ])('B54 does not repeat a token that came as the name of a message, %s authentication', async (_when, known) => {
    const { token } = mintToken();
    const client = await openClient({ path: '/ws', ...(known ? { token } : {}) });
    client.send(token);
    const { fields } = await client.waitFor(({ type }) => type === 'error' || type === 'info');
    expect(JSON.stringify(fields).includes(token)).toBe(false);
  });
});
