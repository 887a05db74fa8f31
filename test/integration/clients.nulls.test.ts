import { beforeAll, describe, expect, it } from '@jest/globals';
import { type Admin, requestAdmin, startAdmin } from '../support/admin.ts';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { stack } from '../support/stack.ts';
import { freshUserId, mintToken } from '../support/tokens.ts';

let admin: Admin;
beforeAll(async () => {
  admin = await startAdmin();
});

describe.each(TRANSPORTS)('a client over %s that writes null for unset fields', (transport) => {
  it('starts a run, calls a tool and lists threads as if the fields were missing', async () => {
    const client = await openClient({ transport, token: mintToken().token });
    await client.welcome();
    client.send('agent_request', { message: 'Hello', agent: null, thread_id: null, request_id: null });
    expect((await client.waitFor('agent_accepted')).fields).toMatchObject({ run_id: expect.any(String) });
    client.send('tool_call', { tool: 'list_agents', arguments: null, idempotency_key: null, request_id: null });
    expect((await client.waitFor('tool_result')).fields).toMatchObject({ success: true });
    client.send('threads_list', { request_id: null });
    await client.waitFor('threads_list');
    client.send('agent_request', { message: null, request_id: 'r9' });
    const { fields } = await client.waitFor('error');
    expect(fields).toMatchObject({ code: 'FORMAT_ERROR', field: 'message', request_id: 'r9' });
  });
});

describe('an HTTP body with null for unset fields', () => {
  it('revokes by the one field that is set', async () => {
    const userId = freshUserId();
    const body = { user_id: userId, before: null, jti: null, sid: null };
    expect(await admin('POST', '/v1/tokens/revoke', body)).toMatchObject({ status: 200, body: { user_id: userId } });
  });

  it('publishes, buys a ticket and logs in as if the fields were missing', async () => {
    const event = { type: 'notice', fields: null };
    expect((await admin('POST', `/v1/users/${freshUserId()}/events`, event)).status).toBe(202);
    const authorization = `Bearer ${mintToken().token}`;
    const ticket = await requestAdmin(new URL('/v1/tickets', nodeUrl(0)), 'POST', { authorization }, { origin: null });
    expect(ticket.status).toBe(201);
    const login = { email: 'pro@demo.local', password: stack().demoPassword };
    const url = new URL('/auth/login', stack().authUrl);
    const nulls = { ...login, client_id: null, client_secret: null };
    const answers = [await requestAdmin(url, 'POST', {}, login), await requestAdmin(url, 'POST', {}, nulls)];
    expect(answers.map(({ status }) => status)).toEqual([200, 200]);
  });
});

describe('malformed JSON', () => {
  const paths = [
    ['PUT', '/v1/users/u1/plan'],
    ['POST', '/v1/users/u1/events'],
    ['POST', '/v1/tokens/revoke'],
    ['POST', '/v1/usage/corrections'],
    ['POST', '/v1/tickets'],
    ['PUT', '/auth/users/u1/plan'],
    ['POST', '/auth/users/u1/block'],
  ] as const;

  it.each(paths)('%s %s is 401 for a stranger: no error of the body comes before that', async (method, path) => {
    const base = path.startsWith('/auth') ? stack().authUrl : nodeUrl(0);
    for (const body of ['{"plan":', `"${'x'.repeat(100_000)}"`, '{"__proto__":1}']) {
      const response = await fetch(new URL(path, base), {
        method,
        headers: { 'content-type': 'application/json' },
        body,
      });
      expect(response.status).toBe(401);
      await response.body?.cancel();
    }
  });
});

describe('a wrong parameter', () => {
  it.each([
    ['usage:read', 'GET', '/v1/usage/records?limit=5000', 'limit'],
    ['usage:read', 'GET', '/v1/usage/tallies?from=yesterday', 'from'],
    ['usage:read', 'GET', '/v1/usage/windows?to=2026', 'to'],
    ['usage:read', 'GET', '/v1/usage/export?format=xml&window=2026-01-01T00', 'format'],
    ['usage:write', 'POST', '/v1/usage/corrections', 'record_id'],
    ['admin', 'GET', '/v1/users/a%20b/data', 'id'],
    ['admin', 'GET', '/v1/erasures/none', 'id'],
  ] as const)('of a request with the scope %s is named in `field`: %s %s', async (scope, method, path, field) => {
    const request = await startAdmin(stack(), scope);
    const { status, body } = await request(method, path, method === 'POST' ? {} : undefined);
    expect([status, body.error.code, body.error.field]).toEqual([400, 'FORMAT_ERROR', field]);
  });
});
