import { createHash, randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { type Admin, requestAdmin, startAdmin } from '../support/admin.ts';
import { openClient } from '../support/clients.ts';
import { EventStreamClient } from '../support/event-stream.ts';
import { nodeUrl } from '../support/nodes.ts';
import { operator, operatorToken } from '../support/operators.ts';
import { stack } from '../support/stack.ts';
import { freshUserId, login, mintToken, serviceToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

let service: Admin;
beforeAll(async () => {
  service = await startAdmin();
});

const get = (path: string, token: string, node = 0) =>
  requestAdmin(new URL(path, nodeUrl(node)), 'GET', { authorization: `Bearer ${token}` });

/** The latest entry of the audit log about a target. */
async function entryOf(value: string) {
  const { body } = await service('GET', '/v1/audit?limit=200');
  // biome-ignore lint/suspicious/noExplicitAny: as AdminAnswer
  return body.entries.find((entry: any) => Object.values(entry.target).includes(value));
}

describe('an operator', () => {
  it('signs in with PKCE at the issuer that the console names, and is known by that token', async () => {
    const { body: config } = await requestAdmin(new URL('/console/config.json', nodeUrl(0)), 'GET', {});
    expect(config).toMatchObject({ client_id: 'tollgate-console', issuer: stack().authUrl, environment: 'test' });
    const verifier = randomBytes(32).toString('base64url');
    const redirect = `${nodeUrl(0).replace('127.0.0.1', 'localhost')}${config.redirect_path}`.replace(
      /([^:])\/\//,
      '$1/',
    );
    const form = {
      response_type: 'code',
      client_id: config.client_id,
      redirect_uri: redirect,
      scope: config.scope,
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
      code_challenge_method: 'S256',
      email: 'admin@demo.local',
      password: stack().demoPassword,
    };
    const signedIn = await fetch(config.endpoints.authorization, {
      method: 'POST',
      body: new URLSearchParams(form),
      redirect: 'manual',
    });
    const code = new URL(signedIn.headers.get('location') ?? '').searchParams.get('code') ?? '';
    const grant = { grant_type: 'authorization_code', client_id: config.client_id, redirect_uri: redirect, code };
    const answer = await fetch(config.endpoints.token, {
      method: 'POST',
      body: new URLSearchParams({ ...grant, code_verifier: verifier }),
    });
    const { access_token: token } = (await answer.json()) as { access_token: string };
    const { body } = await get('/v1/admin/me', token);
    expect(body).toMatchObject({ subject: 'user:user_admin', kind: 'operator' });
    expect(body.scopes).toEqual(expect.arrayContaining(['admin', 'admin:read', 'usage:read', 'usage:write']));
  });

  it('is refused for the same scopes in a token of another client, and without scopes', async () => {
    const refused = async (token: string) => {
      const { status, body } = await get('/v1/admin/me', token);
      return [status, body.error.code];
    };
    expect(await refused(operatorToken('admin', { clientId: 'another' }).token)).toEqual([401, 'VALIDATION_FAILED']);
    expect(await refused((await login('developer')).access_token)).toEqual([401, 'VALIDATION_FAILED']);
    expect(await refused(mintToken({ roles: ['admin'] }).token)).toEqual([401, 'VALIDATION_FAILED']);
    expect(await refused(operatorToken('openid').token)).toEqual([403, 'PERMISSION_DENIED']);
  });

  it('loses access with a block or a revocation, on every node', async () => {
    const { token, userId } = operatorToken('admin:read');
    expect((await get('/v1/admin/me', token)).status).toBe(200);
    await service('POST', `/v1/users/${userId}/block`);
    for (const node of [0, 1, 2]) expect((await get('/v1/admin/me', token, node)).body.error.code).toBe('USER_BLOCKED');
    await service('POST', `/v1/users/${userId}/unblock`);
    await service('POST', '/v1/tokens/revoke', { user_id: userId });
    expect((await get('/v1/admin/me', token, 1)).body.error.code).toBe('TOKEN_REVOKED');
  });

  it('can read everything with admin:read, and change nothing', async () => {
    const viewer = operator('admin:read');
    for (const path of ['overview', 'nodes', 'series', 'alerts', 'me']) {
      expect((await viewer('GET', `/v1/admin/${path}`)).status).toBe(200);
    }
    for (const path of ['/v1/nodes', '/v1/tool-servers', '/v1/users/u/connections', '/v1/usage/cursors', '/v1/audit']) {
      expect([path, (await viewer('GET', path)).status]).toEqual([path, 200]);
    }
    const changes: [string, string, object?][] = [
      ['POST', '/v1/users/u/block'],
      ['PUT', '/v1/users/u/plan', { plan: 'pro' }],
      ['DELETE', '/v1/users/u/connections'],
      ['POST', '/v1/tokens/revoke', { jti: 'j' }],
      ['POST', '/v1/users/u/events', { type: 'a.b' }],
      ['POST', '/v1/config/reload'],
      ['POST', '/v1/admin/nodes/n/drain'],
      ['POST', '/v1/admin/nodes/n/kill'],
      ['POST', '/v1/usage/corrections', {}],
      ['DELETE', '/v1/users/u/data'],
    ];
    for (const [method, path, body] of changes) {
      expect([path, (await viewer(method, path, body)).status]).toEqual([path, 403]);
    }
  });

  it('can send 600 requests per minute and node', async () => {
    const viewer = operator('admin:read');
    for (let sent = 0; sent < 600; sent += 50) {
      await Promise.all(Array.from({ length: 50 }, () => viewer('GET', '/v1/admin/me')));
    }
    const { status, body } = await viewer('GET', '/v1/admin/me');
    expect([status, body.error.code]).toEqual([429, 'RATE_LIMITED']);
    expect(body.error.retry_after_ms).toBeLessThanOrEqual(60_000);
    expect((await operator('admin:read')('GET', '/v1/admin/me')).status).toBe(200);
  });
});

describe('every route of the console', () => {
  it('answers nothing without a token, with a private cache policy', async () => {
    const paths = ['me', 'overview', 'series?step=x', 'nodes', 'alerts', 'stream'].map((path) => `/v1/admin/${path}`);
    for (const path of [...paths, '/v1/audit?limit=x']) {
      expect((await requestAdmin(new URL(path, nodeUrl(0)), 'GET', {})).body.error.code).toBe('NO_TOKEN');
    }
    const headers = { authorization: `Bearer ${operatorToken('admin:read').token}` };
    const response = await fetch(new URL('/v1/admin/overview', nodeUrl(0)), { headers });
    expect(response.headers.get('cache-control')).toBe('no-store');
  });

  it('cannot be read by pages of other origins, even of those in CORS_ORIGINS', async () => {
    const origin = 'http://app.example.test';
    const headers = { authorization: `Bearer ${operatorToken('admin:read').token}`, origin };
    const read = async (path: string) => {
      const response = await fetch(new URL(path, nodeUrl(0)), { headers });
      return [response.status, response.headers.get('access-control-allow-origin')];
    };
    expect(await read('/ws/config')).toEqual([200, origin]);
    for (const path of ['/v1/admin/overview', '/v1/nodes', '/v1/usage/cursors', '/v1/audit']) {
      expect([path, ...(await read(path))]).toEqual([path, 200, null]);
    }
  });
});

describe('the overview', () => {
  it('counts the connections of all nodes by plan, transport and node', async () => {
    const { token } = mintToken({ plan: 'enterprise' });
    await openClient({ transport: 'ws', url: nodeUrl(0), token }).then((client) => client.welcome());
    await openClient({ transport: 'socketio', url: nodeUrl(1), token }).then((client) => client.welcome());
    const viewer = operator('admin:read');
    const overview = await until(
      async () => {
        const { body } = await viewer('GET', '/v1/admin/overview', undefined, 2);
        const { by_plan: plans, by_transport: transports } = body.connections;
        return (plans.enterprise ?? 0) >= 2 && transports.websocket >= 1 && transports['socket.io'] >= 1 && body;
      },
      { timeoutMs: 20_000 },
    );
    expect(overview).toMatchObject({ gateways: 3, workers: 1, breakers: { auth_service: 'closed' } });
    expect(overview.memory.rss_bytes).toBeGreaterThan(10e6);
    const { body } = await viewer('GET', '/v1/admin/nodes');
    const roles = body.nodes.map((node: { role: string }) => node.role).toSorted();
    expect(roles).toEqual(['gateway', 'gateway', 'gateway', 'worker']);
    for (const node of body.nodes) {
      expect(node).toMatchObject({ version: expect.any(String), draining: false, uptime_seconds: expect.any(Number) });
      expect(overview.connections.by_node[node.node_id] === undefined).toBe(node.role === 'worker');
    }
  });

  it('is streamed to one console per operator and node, until the operator is blocked', async () => {
    const { token, userId } = operatorToken('admin:read');
    const open = () => new EventStreamClient(`${new URL('/v1/admin/stream', nodeUrl(0))}`, { token });
    const first = open();
    await until(() => first.text.includes('event: overview'));
    expect(first.text).toContain('event: alerts');
    expect(first.headers['cache-control']).toContain('no-store');
    const second = open();
    await until(() => first.end === 'complete');
    expect(first.text).toContain('"code":"CONNECTION_LIMIT_EXCEEDED"');
    await until(() => second.text.includes('event: overview'));
    await service('POST', `/v1/users/${userId}/block`);
    await until(() => second.end === 'complete', { timeoutMs: 15_000 });
    expect(second.text).toContain('"code":"USER_BLOCKED"');
  });
});

describe('the audit log', () => {
  it.each<[string, string, string, object | undefined, number]>([
    ['blockUser', 'POST', '/v1/users/:user/block', undefined, 200],
    ['unblockUser', 'POST', '/v1/users/:user/unblock', undefined, 200],
    ['setPlan', 'PUT', '/v1/users/:user/plan', { plan: 'pro' }, 200],
    ['setPlan', 'PUT', '/v1/users/:user/plan', { plan: 'no such plan' }, 400],
    ['closeConnections', 'DELETE', '/v1/users/:user/connections', undefined, 200],
    ['closeConnection', 'DELETE', '/v1/users/:user/connections/ws_1', undefined, 200],
    ['revokeTokens', 'POST', '/v1/tokens/revoke', { user_id: ':user' }, 200],
    ['publishEvent', 'POST', '/v1/users/:user/events', { type: 'a.notice', fields: { text: 'secret text' } }, 202],
    ['drainNode', 'POST', '/v1/admin/nodes/:user/drain', undefined, 404],
    ['killNode', 'POST', '/v1/admin/nodes/:user/kill', undefined, 404],
    ['eraseUserData', 'DELETE', '/v1/users/:user/data', undefined, 202],
    ['exportUserData', 'GET', '/v1/users/:user/data', undefined, 200],
  ])(
    'has the action %s (%s %s, %j → %i): who, what, whom, from where, result',
    async (action, method, path, body, status) => {
      const user = freshUserId();
      const admin = operatorToken('admin');
      const response = await fetch(new URL(path.replace(':user', user), nodeUrl(1)), {
        method,
        headers: {
          authorization: `Bearer ${admin.token}`,
          'user-agent': 'a console',
          ...(body ? { 'content-type': 'application/json' } : {}),
        },
        ...(body ? { body: JSON.stringify(body).replace(':user', user) } : {}),
      });
      expect(response.status).toBe(status);
      await response.text();
      const entry = await entryOf(user);
      expect(entry).toMatchObject({ actor: `user:${admin.userId}`, action, status, user_agent: 'a console' });
      expect(entry.from).toMatch(/127\.0\.0\.1|::1/);
      expect(entry.error === null).toBe(status < 400);
      expect(JSON.stringify(entry)).not.toContain('secret text');
      expect(JSON.stringify(entry)).not.toContain(admin.token);
    },
  );

  it('has the attempts of viewers, and none of strangers', async () => {
    const [user, other] = [freshUserId(), freshUserId()];
    await operator('admin:read')('POST', `/v1/users/${user}/block`);
    expect(await entryOf(user)).toMatchObject({ action: 'blockUser', status: 403, error: 'PERMISSION_DENIED' });
    await requestAdmin(new URL(`/v1/users/${other}/block`, nodeUrl(0)), 'POST', {});
    expect(await entryOf(other)).toBeUndefined();
  });

  it('has no events that services publish, because they are data', async () => {
    const user = freshUserId();
    const headers = { authorization: `Bearer ${await serviceToken('events:write')}` };
    const url = new URL(`/v1/users/${user}/events`, nodeUrl(0));
    expect((await requestAdmin(url, 'POST', headers, { type: 'a.b' })).status).toBe(202);
    expect(await entryOf(user)).toBeUndefined();
  });

  it('is read in pages without gap or repetition, also by actor and action', async () => {
    const admin = operator('admin');
    const users = Array.from({ length: 5 }, freshUserId);
    for (const user of users) await admin('POST', `/v1/users/${user}/block`);
    const found: string[] = [];
    const filter = `actor=user:${admin.userId}&action=blockUser`;
    for (let cursor: string | null = ''; cursor !== null; ) {
      const from: string = cursor === '' ? '' : `&cursor=${cursor}`;
      const { body } = await admin('GET', `/v1/audit?limit=2&${filter}${from}`);
      found.push(...body.entries.map((entry: { target: { user_id: string } }) => entry.target.user_id));
      cursor = body.next_cursor;
    }
    expect(found).toEqual(users.toReversed());
  });
});
