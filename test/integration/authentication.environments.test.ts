import { beforeAll, describe, expect, it } from '@jest/globals';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { refused } from '../support/refusals.ts';
import { startService } from '../support/services.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { buyTicket } from '../support/tickets.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

let development: StackProcesses;
let production: StackProcesses;

beforeAll(async () => {
  [development, production] = await Promise.all([
    startStack({ workers: 0, env: { ENVIRONMENT: 'development', DEV_AUTH_BYPASS: 'true' } }),
    startStack({
      workers: 0,
      env: {
        ENVIRONMENT: 'production',
        AUTH_DEADLINE_SECONDS: '1',
        LOG_LEVEL: 'trace',
        // Variables that opened the former system, and must open nothing.
        DEMO_MODE: 'true',
        E2E_TESTING: '1',
        E2E_OAUTH_SIMULATION_KEY: 'key',
        TESTING: 'true',
        EMERGENCY_BYPASS: 'true',
      },
    }),
  ]);
});

const inDevelopment = () => ({ url: nodeUrl(0, development.addresses) });
const inProduction = () => ({ url: nodeUrl(0, production.addresses) });

describe('DEV_AUTH_BYPASS in development', () => {
  it('B5 lets a connection to /ws in without a token, as dev_user', async () => {
    const client = await openClient({ ...inDevelopment(), path: '/ws' });
    expect(await client.welcome()).toMatchObject({
      endpoint: '/ws',
      format: 'regular_json',
      authenticated: true,
      user_id: 'dev_user',
      plan: 'developer',
      auth_method: 'development_bypass',
    });
    client.send('tools_list');
    await client.waitFor('tools_list');
  });

  it('B5 B38 lets the other endpoints be reached without a token too, a user’s own only by that user', async () => {
    for (const options of [{ path: '/ws/secure' }, { path: '/ws/dev_user' }, { transport: 'socketio' }] as const) {
      const client = await openClient({ ...inDevelopment(), ...options });
      expect((await client.welcome()).user_id).toBe('dev_user');
      await client.close();
    }
    const { error } = await refused({ ...inDevelopment(), path: '/ws/somebody' });
    expect(error.code).toBe('USER_MISMATCH');
  });

  it.each(TRANSPORTS)('still refuses an invalid token over %s', async (transport) => {
    const foreign = mintToken({}, { stack: development.addresses, secret: 'not the secret of this stack, 32+ bytes' });
    const { error } = await refused({ ...inDevelopment(), transport, token: foreign.token });
    expect(error.code).toBe('VALIDATION_FAILED');
    const now = Math.floor(Date.now() / 1000);
    const expired = mintToken({ iat: now - 60, exp: now - 30 }, { stack: development.addresses });
    expect((await refused({ ...inDevelopment(), transport, token: expired.token })).error.code).toBe('TOKEN_EXPIRED');
    expect((await refused({ ...inDevelopment(), transport, token: 'hello' })).error.code).toBe('INVALID_FORMAT');
  });

  it('takes a valid token for what it says', async () => {
    const { token, userId } = mintToken({ plan: 'free' }, { stack: development.addresses });
    const client = await openClient({ ...inDevelopment(), token });
    expect(await client.welcome()).toMatchObject({ user_id: userId, plan: 'free', auth_method: 'header' });
  });
});

describe('production', () => {
  it.each(TRANSPORTS)('B6 B211 refuses a connection over %s without a token', async (transport) => {
    expect((await refused({ ...inProduction(), transport })).error.code).toBe('NO_TOKEN');
  });

  it('B6 allows no operation on /ws without a token', async () => {
    const client = await openClient({ ...inProduction(), path: '/ws' });
    expect((await client.welcome()).authenticated).toBe(false);
    client.send('tools_list');
    await client.waitFor('info');
    expect(client.events.map(({ type }) => type)).not.toContain('tools_list');
  });

  it.each<Record<string, string>>([
    { 'X-E2E-Test': 'true' },
    { 'X-E2E-Bypass': 'true', 'X-Test-Mode': 'true' },
    { 'X-Demo-Mode': 'true' },
    { 'X-Bypass-Auth': 'true', 'X-Environment': 'development' },
    { 'X-Service-ID': 'netra-backend', 'X-User-Context': 'service:netra-backend' },
    { 'X-User-ID': 'admin', 'X-Forwarded-User': 'admin' },
    { Cookie: 'session=admin; token=a.b.c' },
  ])('B38 B39 B49 opens to no header: %j', async (headers) => {
    expect((await refused({ ...inProduction(), headers })).error.code).toBe('NO_TOKEN');
    expect((await refused({ ...inProduction(), headers, transport: 'socketio' })).error.code).toBe('NO_TOKEN');
  });

  it.each(['demo', 'e2e-test-token', 'mock_token', 'dev_user', 'staging-e2e-bypass', 'null', 'undefined'])(
    'B38 B39 B49 opens to no token text: %s',
    async (token) => {
      expect((await refused({ ...inProduction(), token })).error.code).toBe('INVALID_FORMAT');
    },
  );

  it('takes a valid token', async () => {
    const { token, userId } = mintToken({}, { stack: production.addresses });
    const client = await openClient({ ...inProduction(), token });
    expect((await client.welcome()).user_id).toBe(userId);
  });

  it('B54 writes no token into its log, whatever the level', async () => {
    const of = production.addresses;
    const good = mintToken({}, { stack: of });
    const foreign = mintToken({}, { stack: of, secret: 'not the secret of this stack, 32+ bytes' });
    const client = await openClient({ ...inProduction(), path: '/ws' });
    client.send('auth', { token: good.token });
    await client.waitFor('auth_success');
    await refused({ ...inProduction(), token: foreign.token });
    await refused({ ...inProduction(), transport: 'socketio', token: foreign.token });
    const ticket = await buyTicket(good.token, inProduction());
    await (await openClient({ ...inProduction(), query: { ticket } })).welcome();
    await refused({ ...inProduction(), query: { ticket } });
    const service = await startService('netra-backend', { stack: of });
    await (await openClient({ ...inProduction(), headers: service.headers })).welcome();
    await refused({ ...inProduction(), headers: { ...service.headers, 'x-user-context': 'user_1' } });
    const log = await until(() => {
      const { output } = production.gateways[0] ?? { output: '' };
      return output.includes('admitted') ? output : undefined;
    });
    for (const secret of [ticket, service.token, service.userId]) expect(log).not.toContain(secret);
    for (const { token, userId, claims } of [good, foreign]) {
      for (const secret of [token, token.split('.')[2] ?? token, claims.email, userId]) {
        expect(log).not.toContain(secret);
      }
    }
  });
});

describe('the deadline for authentication', () => {
  it('B122 ends a connection to /ws that only talks with AUTH_TIMEOUT, however much it talks', async () => {
    const watch = await Stopwatch.start();
    const client = await openClient({ ...inProduction(), path: '/ws' });
    const talk = setInterval(() => client.send('ping'), 100);
    const closed = await client.closed.finally(() => clearInterval(talk));
    expect(closed).toEqual({ code: 1008, reason: 'AUTH_TIMEOUT' });
    const tookMs = watch.ms;
    expect(tookMs).toBeGreaterThan(900);
    expect(tookMs).toBeLessThan(watch.allow(2_500));
    expect(client.events.at(-1)?.fields).toMatchObject({ code: 'AUTH_TIMEOUT', retryable: true });
    expect(client.events.map(({ type }) => type)).toContain('pong');
  });

  it('is none for a connection that has authenticated', async () => {
    const { token } = mintToken({}, { stack: production.addresses });
    const client = await openClient({ ...inProduction(), path: '/ws' });
    client.send('auth', { token });
    await client.waitFor('auth_success');
    const later = await openClient({ ...inProduction(), path: '/ws' });
    expect(await later.closed).toEqual({ code: 1008, reason: 'AUTH_TIMEOUT' });
    client.send('ping');
    await client.waitFor('pong');
  });
});
