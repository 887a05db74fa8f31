import { beforeAll, describe, expect, it } from '@jest/globals';
import { type Admin, requestAdmin, startAdmin } from '../support/admin.ts';
import { openClient, type TestClient, TRANSPORTS } from '../support/clients.ts';
import { openLeases } from '../support/leases.ts';
import { nodeUrl } from '../support/nodes.ts';
import { freshUserId, mintToken, serviceToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

let admin: Admin;
beforeAll(async () => {
  admin = await startAdmin();
});

const idOf = async (client: TestClient) => String((await client.welcome()).connection_id);

async function expectClosed(client: TestClient): Promise<void> {
  expect((await client.waitFor('error')).fields).toMatchObject({ code: 'CONNECTION_CLOSED', retryable: false });
  const closed = await client.closed;
  if (closed.code === undefined) expect(closed.reason).toBe('io server disconnect');
  else expect(closed).toEqual({ code: 4003, reason: 'CONNECTION_CLOSED' });
}

describe.each(TRANSPORTS)('the connections of a user over %s', (transport) => {
  async function openOnEach(token: string): Promise<TestClient[]> {
    return Promise.all([0, 1, 2].map((node) => openClient({ transport, url: nodeUrl(node), token })));
  }

  it('are listed from any node, whichever holds them', async () => {
    const { token, userId } = mintToken();
    const clients = await openOnEach(token);
    const welcomes = await Promise.all(clients.map((client) => client.welcome()));
    for (const node of [0, 1, 2]) {
      const { body } = await admin('GET', `/v1/users/${userId}/connections`, undefined, node);
      expect(body).toMatchObject({ user_id: userId, total: 3, has_more: false });
      const expected = welcomes.map(({ connection_id, endpoint, server_id }) => [connection_id, endpoint, server_id]);
      const listed = body.connections.map((one: Record<string, string>) => [one.connection_id, one.endpoint, one.node]);
      expect(listed.toSorted()).toEqual(expected.toSorted());
      for (const one of body.connections) {
        expect(Date.parse(one.opened_at)).toBeLessThanOrEqual(Date.now());
        expect(Date.parse(one.lease_ends_at)).toBeGreaterThan(Date.now());
      }
    }
  });

  it('are closed one by one or all at once, receive the reason, and may connect again', async () => {
    const { token, userId } = mintToken();
    const clients = await openOnEach(token);
    const ids = await Promise.all(clients.map(idOf));
    const [first, ...others] = clients;
    if (!first) throw new Error('no client');
    const one = await admin('DELETE', `/v1/users/${userId}/connections/${ids[0]}`, undefined, 1);
    expect(one).toEqual({ status: 200, body: { user_id: userId, closed: [ids[0]] } });
    await expectClosed(first);
    for (const client of others) {
      client.send('ping');
      await client.waitFor('pong');
    }
    const all = await admin('DELETE', `/v1/users/${userId}/connections`, undefined, 2);
    expect(all.body.closed.toSorted()).toEqual(ids.slice(1).toSorted());
    for (const client of others) await expectClosed(client);
    const again = await admin('DELETE', `/v1/users/${userId}/connections`);
    expect(again).toEqual({ status: 200, body: { user_id: userId, closed: [] } });
    await (await openLeases()).untilReleased(userId);
    await (await openClient({ transport, token })).welcome();
  });

  it('receive a published event on every node, in their own dialect, and no other user does', async () => {
    const { token, userId } = mintToken();
    const clients = await openOnEach(token);
    await Promise.all(clients.map((client) => client.welcome()));
    const bystander = await openClient({ transport, token: mintToken().token });
    await bystander.welcome();
    const event = { type: 'maintenance.notice', fields: { at: '22:00', minutes: 5, nested: { deep: [1, null] } } };
    const { status, body } = await admin('POST', `/v1/users/${userId}/events`, event);
    expect([status, body]).toEqual([202, { user_id: userId, type: event.type, nodes: 3 }]);
    for (const client of clients) {
      const { fields } = await client.waitFor(event.type);
      expect(fields).toMatchObject(event.fields);
    }
    expect(bystander.events.some(({ type }) => type === event.type)).toBe(false);
  });
});

describe('a published event', () => {
  it.each([
    ['/ws', {}],
    ['/ws/mcp', {}],
  ])('reaches %s too', async (path) => {
    const { token, userId } = mintToken();
    const client = await openClient({ path, token });
    await client.welcome();
    await admin('POST', `/v1/users/${userId}/events`, { type: 'notice', fields: { text: 'hello' } });
    expect((await client.waitFor('notice')).fields).toMatchObject({ text: 'hello' });
  });

  it('to a user who is nowhere is taken, and says so', async () => {
    const { body } = await admin('POST', `/v1/users/${freshUserId()}/events`, { type: 'notice' });
    expect(body).toMatchObject({ nodes: 0 });
  });

  it('cannot speak in the gateway’s name, nor break a dialect', async () => {
    const path = `/v1/users/${freshUserId()}/events`;
    for (const type of [
      'error',
      'agent_completed',
      'plan_changed',
      'connect_error',
      'disconnect',
      'ping',
      '',
      'a b',
      '__proto__',
    ]) {
      expect((await admin('POST', path, { type })).body.error.code).toBe('FORMAT_ERROR');
    }
    for (const name of ['type', 'seq', 'epoch', 'timestamp', 'payload', 'jsonrpc']) {
      const { status } = await admin('POST', path, { type: 'notice', fields: { [name]: 1 } });
      expect(status).toBe(400);
    }
    for (const body of [undefined, [], { type: 'notice', fields: 'text' }, { type: 'notice', extra: 1 }]) {
      expect((await admin('POST', path, body)).status).toBe(400);
    }
    const large = await admin('POST', path, { type: 'notice', fields: { text: 'x'.repeat(9_000) } });
    expect([large.status, large.body.error.code]).toEqual([413, 'MESSAGE_TOO_LARGE']);
  });
});

describe('the nodes', () => {
  it('are listed with what they hold', async () => {
    const servers = await Promise.all(
      [0, 1, 2].map(async (node) => {
        const client = await openClient({ url: nodeUrl(node), token: mintToken().token });
        return String((await client.welcome()).server_id);
      }),
    );
    const { nodes } = await until(
      async () => {
        const { body } = await admin('GET', '/v1/nodes', undefined, 1);
        const holding = body.nodes.filter((one: { connections: number }) => one.connections > 0);
        return holding.length === 3 && body;
      },
      { timeoutMs: 10_000, everyMs: 200 },
    );
    expect(nodes.map(({ node_id }: { node_id: string }) => node_id).toSorted()).toEqual(servers.toSorted());
    for (const { started_at } of nodes) expect(Date.parse(started_at)).toBeLessThan(Date.now());
  }, 15_000);
});

const ROUTES = [
  ['GET', '/v1/users/u1/connections'],
  ['DELETE', '/v1/users/u1/connections'],
  ['DELETE', '/v1/users/u1/connections/ws_1'],
  ['PUT', '/v1/users/u1/plan'],
  ['POST', '/v1/users/u1/block'],
  ['POST', '/v1/users/u1/unblock'],
  ['POST', '/v1/users/u1/events'],
  ['POST', '/v1/tokens/revoke'],
  ['GET', '/v1/nodes'],
] as const;

describe.each(ROUTES)('%s %s', (method, path) => {
  it('is for services with the scope admin only', async () => {
    const url = new URL(path, nodeUrl(0));
    const cases = [
      [undefined, 401, 'NO_TOKEN'],
      ['not.a.token', 401, 'VALIDATION_FAILED'],
      [mintToken({ roles: ['admin'], permissions: ['admin'] }).token, 401, 'VALIDATION_FAILED'],
      [await serviceToken('usage:read usage:write'), 403, 'PERMISSION_DENIED'],
    ] as const;
    for (const [token, status, code] of cases) {
      const answer = await requestAdmin(url, method, token ? { authorization: `Bearer ${token}` } : {}, undefined);
      expect([answer.status, answer.body.error.code]).toEqual([status, code]);
    }
  });
});

it('a service’s token that was revoked opens none of them', async () => {
  const token = await serviceToken('admin', { clientId: 'short-lived' });
  const ask = () => requestAdmin(new URL('/v1/nodes', nodeUrl(0)), 'GET', { authorization: `Bearer ${token}` });
  expect((await ask()).status).toBe(200);
  const [, payload = ''] = token.split('.');
  await admin('POST', '/v1/tokens/revoke', { jti: JSON.parse(Buffer.from(payload, 'base64url').toString()).jti });
  await until(async () => (await ask()).body.error?.code === 'TOKEN_REVOKED');
});

it.each([
  ['DELETE', (id: string) => `/v1/users/${id}/connections`],
  ['POST', (id: string) => `/v1/users/${id}/block`],
] as const)('%s is done for a client that announces JSON and sends none', async (method, path) => {
  const authorization = `Bearer ${await serviceToken('admin', { clientId: 'test-operator' })}`;
  const url = new URL(path(freshUserId()), nodeUrl(0));
  const { status } = await requestAdmin(url, method, { authorization, 'content-type': 'application/json' });
  expect(status).toBe(200);
});

it.each([
  ['PUT', '/v1/users/u1/plan', { plan: 'platinum' }],
  ['PUT', '/v1/users/u1/plan', { plan: 7 }],
  ['PUT', '/v1/users/u1/plan', {}],
  ['PUT', '/v1/users/a%20b/plan', { plan: 'pro' }],
  ['PUT', `/v1/users/${'u%20'.repeat(40)}/plan`, { plan: 'pro' }],
  ['POST', '/v1/users/a%00b/block', undefined],
  ['DELETE', '/v1/users/u1/connections/a%20b', undefined],
  ['POST', '/v1/tokens/revoke', {}],
  ['POST', '/v1/tokens/revoke', { jti: 'a', sid: 'b' }],
  ['POST', '/v1/tokens/revoke', { jti: '' }],
  ['POST', '/v1/tokens/revoke', { sid: 's', before: '2020-01-01T00:00:00Z' }],
  ['POST', '/v1/tokens/revoke', { user_id: 'u1', before: 'yesterday' }],
  ['POST', '/v1/tokens/revoke', { user_id: 'u1', before: '2999-01-01T00:00:00Z' }],
])('%s %s with %j returns what is wrong, in one line', async (method, path, body) => {
  const answer = await admin(method, path, body);
  expect([answer.status, answer.body.error.code]).toEqual([400, 'FORMAT_ERROR']);
  expect(answer.body.error.message).toMatch(/^["\w][^\n]+$/);
});

it('names the wrong field, and sends the error of the credential before that of the body', async () => {
  const wrong = { plan: 7 };
  const answer = await admin('PUT', '/v1/users/u1/plan', wrong);
  expect(answer.body.error).toMatchObject({ code: 'FORMAT_ERROR', field: 'plan' });
  const url = new URL('/v1/users/a%20b/plan', nodeUrl(0));
  const stranger = await requestAdmin(url, 'PUT', { 'content-type': 'application/json' }, wrong);
  expect([stranger.status, stranger.body.error.code]).toEqual([401, 'NO_TOKEN']);
});

it('takes a user id of any length that a token can have', async () => {
  const id = `auth0|${'u'.repeat(120)}/%25@${freshUserId()}`.padEnd(255, '=');
  expect((await admin('PUT', `/v1/users/${encodeURIComponent(id)}/plan`, { plan: 'pro' })).body.user_id).toBe(id);
});
