import { randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { Accounts } from '../../src/accounts/accounts.ts';
import { type ClientOptions, openClient, TRANSPORTS } from '../support/clients.ts';
import { ENDPOINT_CASES } from '../support/endpoint-cases.ts';
import { type Leases, NOTHING_LEFT, openLeases } from '../support/leases.ts';
import { nodeUrl } from '../support/nodes.ts';
import { openRawSocket } from '../support/raw-socket.ts';
import { refused } from '../support/refusals.ts';
import { serviceHeaders, startService } from '../support/services.ts';
import { stack } from '../support/stack.ts';
import { freshUserId, mintToken, validToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

let leases: Leases;

beforeAll(async () => {
  leases = await openLeases();
});

const freshId = () => `test-${randomBytes(6).toString('hex')}`;
const base64url = (text: string) => Buffer.from(text).toString('base64url');

describe('the auth service', () => {
  it('B205 says of a service that its token is valid, and whose it is', async () => {
    const { token } = await startService('netra-backend');
    const body = JSON.stringify({ token });
    const headers = { 'content-type': 'application/json' };
    const response = await fetch(`${stack().authUrl}/auth/validate`, { method: 'POST', headers, body });
    expect(await response.json()).toMatchObject({ valid: true, service_id: 'netra-backend' });
  });

  it('B206 gives no token to a service without the secret, and speaks of authentication', async () => {
    const grant = { grant_type: 'client_credentials', client_id: 'netra-backend' };
    for (const secret of [{}, { client_secret: 'not the secret' }] as Record<string, string>[]) {
      const body = new URLSearchParams({ ...grant, ...secret });
      const response = await fetch(`${stack().authUrl}/oauth/token`, { method: 'POST', body });
      expect(response.status).toBe(401);
      expect(await response.text()).toMatch(/authentication/i);
    }
  });
});

describe('a service token at the handshake', () => {
  it.each(ENDPOINT_CASES)('B213 B249 lets a service in on %s as itself', async (_name, options) => {
    const { userId, headers } = await startService(freshId(), { scope: 'usage:read admin' });
    const client = await openClient({ ...options, headers });
    expect(await client.welcome()).toMatchObject({
      authenticated: true,
      user_id: userId,
      auth_method: 'service',
      plan: 'free',
      permissions: ['basic', 'usage:read', 'admin'],
    });
  });

  it('B249 lets a service in on the endpoint of its own user id, and of no other', async () => {
    const { userId, headers } = await startService(freshId());
    const client = await openClient({ path: `/ws/${userId}`, headers });
    expect((await client.welcome()).user_id).toBe(userId);
    expect((await refused({ path: '/ws/user_1', headers })).error.code).toBe('USER_MISMATCH');
  });

  it('B257 gives a scope no tool, and no limit that a user would not have', async () => {
    const { userId, headers } = await startService(freshId(), { scope: 'usage:read usage:write admin token:exchange' });
    const client = await openClient({ path: '/ws', headers });
    const { limits } = await client.welcome();
    expect(limits).toMatchObject({ max_connections_per_user: 3, max_message_rate: 30 });
    client.send('tools_list');
    const { tools } = (await client.waitFor('tools_list')).fields as { tools: { permission: string }[] };
    expect(new Set(tools.map(({ permission }) => permission))).toEqual(new Set(['basic']));
    expect(await leases.live(userId)).toHaveLength(1);
  });

  it('B254 passes its scopes on as permissions, but none that would be all of them', async () => {
    const id = freshId();
    const claims = { sub: `service:${id}`, token_use: 'service', scope: '* analytics' };
    const client = await openClient({ path: '/ws', headers: serviceHeaders(id, validToken(claims)) });
    expect((await client.welcome()).permissions).toEqual(['basic', 'analytics']);
  });

  it('counts against the cap over all nodes like a user’s', async () => {
    const { userId, headers } = await startService(freshId());
    const clients = [];
    for (const node of [0, 1, 2, 0]) {
      const client = await openClient({ url: nodeUrl(node), headers });
      await client.welcome();
      clients.push(client);
    }
    expect(await clients[0]?.closed).toEqual({ code: 4001, reason: 'CONNECTION_LIMIT_EXCEEDED' });
    expect(await leases.live(userId)).toHaveLength(3);
  });

  it('counts against the message limit like a user’s', async () => {
    const { headers } = await startService(freshId());
    const client = await openClient({ path: '/ws', headers });
    await client.welcome();
    for (let message = 0; message < 31; message++) client.send('ping');
    expect((await client.waitFor('error')).fields.code).toBe('RATE_LIMITED');
  });

  it('has a higher plan when an operator gave it one, and keeps its scopes', async () => {
    const { userId, headers } = await startService(freshId());
    const client = await openClient({ path: '/ws', headers });
    await client.welcome();
    await new Accounts(leases).setPlan(userId, 'pro');
    const { fields } = await client.waitFor('plan_changed');
    expect(fields).toMatchObject({ plan: 'pro', permissions: expect.arrayContaining(['analytics', 'usage:read']) });
  });

  it.each(TRANSPORTS)('B206 is refused over %s when its bearer does not say who it is', async (transport) => {
    const { headers } = await startService(freshId());
    for (const missing of ['x-service-id', 'x-user-context']) {
      const rest = Object.fromEntries(Object.entries(headers).filter(([name]) => name !== missing));
      const { error } = await refused({ transport, headers: rest });
      expect(error).toMatchObject({
        code: 'INVALID_FORMAT',
        message: expect.stringMatching(/service authentication/i),
      });
    }
  });

  it.each([
    ['the id of another service', { 'x-service-id': 'another' }],
    ['the context of another service', { 'x-user-context': 'service:another' }],
    ['the names of another service', { 'x-service-id': 'another', 'x-user-context': 'service:another' }],
    ['the context of a user', { 'x-user-context': 'user_1' }],
    ['the context of a user, dressed up', { 'x-user-context': 'user:user_1' }],
  ])('is refused with %s', async (_what, names) => {
    const { userId, headers } = await startService(freshId());
    for (const transport of TRANSPORTS) {
      const { error } = await refused({ transport, headers: { ...headers, ...names } });
      expect(error).toMatchObject({ code: 'USER_MISMATCH', retryable: false });
      expect(error.message).toMatch(/service authentication failed/i);
    }
    expect(await leases.remains(userId)).toEqual(NOTHING_LEFT);
  });

  it('is refused with a name that is sent twice', async () => {
    const { id, headers } = await startService(freshId());
    const raw = openRawSocket({
      url: nodeUrl(0),
      path: '/ws/secure',
      headers: { ...headers, 'x-service-id': [id, 'another'] },
    });
    await until(() => raw.closeFrame);
    expect(raw.closeFrame).toEqual({ code: 1008, reason: 'USER_MISMATCH' });
  });

  it.each([
    ['a user’s token', {}],
    ['a user’s token that calls itself a service', { sub: 'service:spoofed' }],
    ['a service’s token for a user', { token_use: 'service' }],
  ])('B212 is refused with %s under its scheme', async (_what, claims) => {
    for (const transport of TRANSPORTS) {
      const headers = serviceHeaders('spoofed', validToken(claims));
      expect((await refused({ transport, headers })).error.code).toBe('VALIDATION_FAILED');
    }
  });

  it('B212 is refused as a bearer, in whichever form, with the names or without', async () => {
    const { token, headers } = await startService(freshId());
    const bearer = { ...headers, authorization: `Bearer ${token}` };
    const presented: ClientOptions[] = [
      { token },
      { headers: bearer },
      { protocols: ['jwt-auth', `jwt.${base64url(token)}`] },
      { transport: 'socketio', token },
      { transport: 'socketio', headers: bearer },
    ];
    for (const options of presented) expect((await refused(options)).error.code).toBe('VALIDATION_FAILED');
  });

  it('B54 is not repeated in its refusal', async () => {
    const { token, headers } = await startService(freshId());
    const raw = openRawSocket({
      url: nodeUrl(0),
      path: '/ws/secure',
      headers: { ...headers, 'x-user-context': 'service:another' },
    });
    await until(() => raw.closeFrame);
    const output = JSON.stringify((await raw.answer).headers) + raw.body.toString();
    expect(output).not.toContain(token);
    expect(output).not.toContain('another"');
  });
});

describe('a service token beside another credential', () => {
  it('B52 is refused when the two disagree', async () => {
    const { headers } = await startService(freshId());
    const { token } = mintToken();
    const both: ClientOptions[] = [
      { headers, protocols: ['jwt-auth', `jwt.${base64url(token)}`] },
      { transport: 'socketio', headers, token },
    ];
    for (const options of both) expect((await refused(options)).error.code).toBe('CONFLICTING_CREDENTIALS');
  });

  it('is one credential when the two are the same', async () => {
    const { userId, token, headers } = await startService(freshId());
    const client = await openClient({ headers, protocols: ['jwt-auth', `jwt.${base64url(token)}`] });
    expect(await client.welcome()).toMatchObject({ user_id: userId, auth_method: 'service' });
  });

  it('B52 is refused when two Authorization headers were sent', async () => {
    const { headers } = await startService(freshId());
    const authorization = [String(headers.authorization), `Bearer ${validToken()}`];
    for (const presented of [authorization, authorization.toReversed()]) {
      const raw = openRawSocket({
        url: nodeUrl(0),
        path: '/ws/secure',
        headers: { ...headers, authorization: presented },
      });
      await until(() => raw.closeFrame);
      expect(raw.closeFrame).toEqual({ code: 1008, reason: 'INVALID_FORMAT' });
    }
  });
});

describe('service_auth', () => {
  async function openAnonymous(headers: Record<string, string> = {}) {
    const client = await openClient({ path: '/ws', headers });
    expect((await client.welcome()).authenticated).toBe(false);
    return client;
  }

  it('B213 lets a service in by a token of its own', async () => {
    const { id, userId, token } = await startService(freshId());
    const client = await openAnonymous();
    client.send('service_auth', { service_id: id, context: userId, token });
    const { fields } = await client.waitFor('auth_success');
    expect(fields).toMatchObject({ user_id: userId, auth_method: 'service', plan: 'free' });
    expect(await leases.live(userId)).toHaveLength(1);
  });

  it('B213 without a token means the one of the handshake', async () => {
    const { id, userId, headers } = await startService('netra-backend');
    const client = await openClient({ path: '/ws', headers });
    const { connection_id } = await client.welcome();
    client.send('service_auth', { service_id: id, context: userId });
    expect((await client.waitFor('auth_success')).fields).toMatchObject({ user_id: userId, connection_id });
  });

  it('B210 without any token is refused, and says that a service must authenticate', async () => {
    const client = await openAnonymous({ 'x-service-id': 'netra-backend', 'x-user-context': 'service:netra-backend' });
    client.send('service_auth', { service_id: 'netra-backend', context: 'service:netra-backend' });
    const { fields } = await client.waitFor('error');
    expect(fields).toMatchObject({ code: 'NO_TOKEN', message: expect.stringMatching(/service authentication/i) });
    expect(await client.closed).toEqual({ code: 1008, reason: 'NO_TOKEN' });
  });

  it.each([
    ['the names of another', { service_id: 'another', context: 'service:another' }, 'USER_MISMATCH'],
    ['the context of a user', { context: 'user_1' }, 'USER_MISMATCH'],
    ['no id', { service_id: undefined }, 'INVALID_FORMAT'],
    ['no context', { context: undefined }, 'INVALID_FORMAT'],
    ['text for a token', { token: 'hello' }, 'INVALID_FORMAT'],
    ['an invalid token', { token: 'a.b.c' }, 'VALIDATION_FAILED'],
    ['an empty token', { token: '' }, 'NO_TOKEN'],
  ])('B209 B210 with %s ends the connection, readably', async (_what, changes, code) => {
    const { id, userId, token } = await startService(freshId());
    const client = await openAnonymous();
    client.send('service_auth', { service_id: id, context: userId, token, ...changes });
    const { fields } = await client.waitFor('error');
    expect(fields).toMatchObject({ code, message: expect.stringMatching(/authentication/i) });
    expect(JSON.stringify(fields)).not.toContain(token);
    expect(await client.closed).toEqual({ code: 1008, reason: code });
    expect(await leases.remains(userId)).toEqual(NOTHING_LEFT);
  });

  it('B209 takes no user’s token, nor does auth take a service’s', async () => {
    const { id, userId, token } = await startService(freshId());
    const byUser = await openAnonymous();
    byUser.send('service_auth', { service_id: id, context: userId, token: validToken() });
    expect((await byUser.waitFor('error')).fields.code).toBe('VALIDATION_FAILED');
    const byService = await openAnonymous();
    byService.send('auth', { token });
    expect((await byService.waitFor('error')).fields.code).toBe('VALIDATION_FAILED');
  });

  it('B53 does not turn a user into a service, nor a service into a user', async () => {
    const { id, userId, token, headers } = await startService(freshId());
    const user = await openClient({ path: '/ws', token: validToken() });
    await user.welcome();
    user.send('service_auth', { service_id: id, context: userId, token });
    expect(await user.closed).toEqual({ code: 1008, reason: 'USER_MISMATCH' });
    const service = await openClient({ path: '/ws', headers });
    await service.welcome();
    service.send('auth', { token: validToken() });
    expect(await service.closed).toEqual({ code: 1008, reason: 'USER_MISMATCH' });
  });
});

describe('the token of a service’s connection', () => {
  it('is renewed by a later one of the same service only', async () => {
    const id = freshId();
    const claims = { sub: `service:${id}`, token_use: 'service' };
    const tokenFor = (expiresInSeconds: number, more = {}) => mintToken({ ...claims, ...more }, { expiresInSeconds });
    const client = await openClient({ path: '/ws', headers: serviceHeaders(id, tokenFor(300).token) });
    await client.welcome();
    client.send('token_refresh', { token: tokenFor(600, { sub: freshUserId(), token_use: 'access' }).token });
    expect((await client.waitFor('error')).fields.code).toBe('VALIDATION_FAILED');
    const later = tokenFor(600);
    client.send('token_refresh', { token: later.token });
    const { fields } = await client.waitFor('token_refreshed');
    expect(fields.token_expires_at).toBe(new Date(later.claims.exp * 1000).toISOString());
    client.send('token_refresh', { token: tokenFor(900, { sub: 'service:another' }).token });
    expect(await client.closed).toEqual({ code: 1008, reason: 'USER_MISMATCH' });
  });
});

describe('an HTTP route for services', () => {
  const usage = (headers: Record<string, string>) => fetch(new URL('/v1/usage/records', nodeUrl(0)), { headers });

  it('B249 takes a service token as a bearer and in the form of the handshake', async () => {
    const { token, headers } = await startService(freshId());
    expect((await usage({ authorization: `Bearer ${token}` })).status).toBe(200);
    expect((await usage({ ...headers })).status).toBe(200);
  });

  it('B249 refuses one whose bearer says to be another, without the scope, or a user’s', async () => {
    const { headers } = await startService(freshId());
    expect((await usage({ ...headers, 'x-service-id': 'another' })).status).toBe(403);
    expect((await usage({ authorization: String(headers.authorization) })).status).toBe(401);
    expect((await usage((await startService(freshId(), { scope: 'admin' })).headers)).status).toBe(403);
    expect((await usage(serviceHeaders('x', validToken()))).status).toBe(401);
  });
});
