import { beforeAll, describe, expect, it } from '@jest/globals';
import { type ClientOptions, openClient, TRANSPORTS } from '../support/clients.ts';
import { FAULTS, type FaultyAuthServer, json, startFaultyAuthServer } from '../support/faulty-auth-server.ts';
import { type Leases, NOTHING_LEFT, openLeases } from '../support/leases.ts';
import { nodeUrl } from '../support/nodes.ts';
import { openRawSocket } from '../support/raw-socket.ts';
import { refused } from '../support/refusals.ts';
import { type StackProcesses, startStack, useStack } from '../support/stack.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { freshUserId, login, mintToken, serviceToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** The breaker stays open for five seconds; the rest is for a busy machine. */
const UNTIL_CLOSED = { timeoutMs: 20_000, everyMs: 200 };

/** Returns the value of a metric, 0 if there is no sample yet. */
async function metric(url: string, name: string): Promise<number> {
  const text = await (await fetch(new URL('/metrics', url))).text();
  const line = text.split('\n').find((candidate) => candidate.startsWith(`${name} `));
  return Number(line?.slice(name.length + 1) ?? 0);
}

const SPARED = 'tollgate_auth_service_requests_total{operation="introspect",result="AUTH_CIRCUIT_BREAKER_OPEN"}';

describe('a gateway that asks about every token', () => {
  const processes = useStack({ env: { TOKEN_INTROSPECTION: 'always', MAX_CONNECTIONS_PER_USER: '20' } });
  const url = () => nodeUrl(0, processes().addresses);
  const freshToken = async () => (await login('developer', processes().addresses)).access_token;

  async function revoke(token: string): Promise<void> {
    const of = processes().addresses;
    const authorization = `Bearer ${await serviceToken('admin', { stack: of })}`;
    const body = new URLSearchParams({ token });
    await fetch(`${of.authUrl}/oauth/revoke`, { method: 'POST', body, headers: { authorization } });
  }

  async function comesIn(token: string, options: ClientOptions = {}): Promise<number> {
    const startedAt = performance.now();
    const client = await openClient({ url: url(), token, ...options });
    expect(await client.welcome()).toMatchObject({ authenticated: true });
    await client.close();
    return performance.now() - startedAt;
  }

  it.each(TRANSPORTS)('lets a good token in, and finds out a revoked one at once, over %s', async (transport) => {
    await comesIn(await freshToken(), { transport });
    const revoked = await freshToken();
    await revoke(revoked);
    const { error, closed } = await refused({ url: url(), transport, token: revoked });
    expect(error).toMatchObject({ code: 'TOKEN_REVOKED', retryable: false });
    if (transport === 'ws') expect(closed).toEqual({ code: 1008, reason: 'TOKEN_REVOKED' });
  });

  it('B99 does not introspect an invalid token, and invalid ones lock no user out', async () => {
    const { token } = mintToken(
      {},
      { stack: processes().addresses, secret: 'another secret, long enough to sign with' },
    );
    for (let i = 0; i < 20; i++) {
      expect((await refused({ url: url(), token })).error.code).toBe('VALIDATION_FAILED');
    }
    expect(await metric(url(), 'tollgate_auth_breaker_state')).toBe(0);
    await comesIn(await freshToken());
  });

  it('finds out a revoked token of a service, and on HTTP routes', async () => {
    const of = processes().addresses;
    const token = await serviceToken('usage:read', { stack: of });
    const usage = () => fetch(new URL('/v1/usage/records', url()), { headers: { authorization: `Bearer ${token}` } });
    await revoke(token);
    expect((await usage()).status).toBe(401);
  });

  it('B122 B141 accepts valid tokens while the auth service hangs, and at once with the breaker open', async () => {
    const tokens = await Promise.all(Array.from({ length: 8 }, freshToken));
    const { auth } = processes();
    if (auth.pid === undefined) throw new Error('the auth service does not run');
    process.kill(auth.pid, 'SIGSTOP');
    try {
      const watch = await Stopwatch.start();
      const took = await Promise.all(tokens.slice(0, 6).map((token) => comesIn(token)));
      expect(Math.max(...took)).toBeLessThan(watch.allow(8_000));
      expect(await metric(url(), 'tollgate_auth_breaker_state')).toBe(2);
      const spared = await metric(url(), SPARED);
      await comesIn(tokens[6] ?? '');
      expect(await metric(url(), SPARED)).toBe(spared + 1);
    } finally {
      process.kill(auth.pid, 'SIGCONT');
    }
    await until(async () => {
      const revoked = await freshToken();
      await revoke(revoked);
      const client = await openClient({ url: url(), token: revoked });
      const first = await client.waitFor(() => true);
      await client.close();
      return first.fields.code === 'TOKEN_REVOKED';
    }, UNTIL_CLOSED);
  });

  it('B40 B63 B98 B109 lets valid tokens in while the auth service is down, and asks again when it is back', async () => {
    const tokens = await Promise.all(Array.from({ length: 12 }, freshToken));
    const { auth } = processes();
    await auth.kill();
    for (const token of tokens) await comesIn(token);
    expect(await metric(url(), SPARED)).toBeGreaterThan(0);
    expect(await metric(url(), 'tollgate_auth_breaker_state')).toBe(2);
    await auth.start();
    await until(async () => {
      await comesIn(await freshToken());
      return (await metric(url(), 'tollgate_auth_breaker_state')) === 0;
    }, UNTIL_CLOSED);
  });
});

describe('a gateway that asks about opaque tokens', () => {
  let server: FaultyAuthServer;
  let processes: StackProcesses;
  let leases: Leases;
  const url = () => nodeUrl(0, processes.addresses);

  beforeAll(async () => {
    server = await startFaultyAuthServer('file');
    const env = { TOKEN_INTROSPECTION: 'opaque', AUTH_SERVICE_URL: server.url, AUTH_DEADLINE_SECONDS: '4' };
    processes = await startStack({ workers: 0, env });
    leases = await openLeases(processes.addresses);
  });

  function answerAs(userId: string): void {
    const exp = Math.floor(Date.now() / 1000) + 600;
    server.behaviour = json({ active: true, sub: userId, exp, plan: 'pro', sid: 'sid_1' });
  }
  const freshOpaque = () => `opaque~${freshUserId()}/+==`;
  const encoded = (token: string) => Buffer.from(token).toString('base64url');

  it.each([
    ['the header', 'header', (token: string): ClientOptions => ({ token })],
    ['a sub-protocol', 'subprotocol', (token: string) => ({ protocols: ['jwt-auth', `jwt.${encoded(token)}`] })],
    ['Socket.IO', 'handshake', (token: string) => ({ transport: 'socketio' as const, token })],
  ])('B99 lets one in by %s', async (_where, method, options) => {
    const userId = freshUserId();
    answerAs(userId);
    const client = await openClient({ url: url(), ...options(freshOpaque()) });
    const welcome = await client.welcome();
    expect(welcome).toMatchObject({ authenticated: true, user_id: userId, plan: 'pro', auth_method: method });
  });

  it('lets one in by a message, and renews it by another', async () => {
    const userId = freshUserId();
    answerAs(userId);
    const client = await openClient({ url: url(), path: '/ws' });
    client.send('auth', { token: freshOpaque() });
    expect((await client.waitFor('auth_success')).fields).toMatchObject({ user_id: userId });
    const exp = Math.floor(Date.now() / 1000) + 900;
    server.behaviour = json({ active: true, sub: userId, exp });
    client.send('token_refresh', { token: freshOpaque() });
    const { fields } = await client.waitFor('token_refreshed');
    expect(fields.token_expires_at).toBe(new Date(exp * 1000).toISOString());
  });

  it('still verifies JWTs itself, and takes no opaque token for a service', async () => {
    const before = server.requests.length;
    const { token, userId } = mintToken({ iss: server.url }, { stack: processes.addresses });
    const client = await openClient({ url: url(), token });
    expect(await client.welcome()).toMatchObject({ user_id: userId });
    const headers = { authorization: 'Service-Token opaque', 'x-service-id': 'a', 'x-user-context': 'service:a' };
    expect((await refused({ url: url(), headers })).error.code).toBe('INVALID_FORMAT');
    expect(server.requests.length).toBe(before);
  });

  it.each<[string, (segments: readonly string[]) => string]>([
    ['with padding', (segments) => `${segments.join('.')}=`],
    ['with spare bits in the signature', ([header, payload, mac = '']) => `${header}.${payload}.${mac.slice(0, -1)}9`],
    ['in the other alphabet', ([header, payload]) => `${header}.${payload}.+/AA`],
    ['without a signature', ([header, payload]) => `${header}.${payload}.`],
    ['encrypted, with spare bits in a part', () => `${encoded('{"alg":"dir","enc":"A128GCM"}')}..AB.AAAA.AAAA`],
  ])('does not ask about a JOSE token in another spelling: %s', async (_what, spelled) => {
    answerAs(freshUserId());
    const before = server.requests.length;
    const { token } = mintToken({ iss: server.url }, { stack: processes.addresses });
    const { error } = await refused({ url: url(), token: spelled(token.split('.')) });
    expect(error.code).toBe('VALIDATION_FAILED');
    expect(server.requests.length).toBe(before);
  });

  it('asks about an encrypted token in its one spelling, which its issuer alone can read', async () => {
    const userId = freshUserId();
    answerAs(userId);
    const nonce = encoded(userId);
    const token = `${encoded('{"alg":"dir","enc":"A128GCM"}')}..${nonce}.AAAA.AAAA`;
    expect(await (await openClient({ url: url(), token })).welcome()).toMatchObject({ user_id: userId });
  });

  it.each(TRANSPORTS)('refuses one that is not active, over %s, and repeats nothing of it', async (transport) => {
    server.behaviour = json({ active: false });
    const token = freshOpaque();
    const { error } = await refused({ url: url(), transport, token });
    expect(error).toMatchObject({ code: 'VALIDATION_FAILED', retryable: false });
    expect(JSON.stringify(error)).not.toContain('opaque~');
  });

  it('B125 B130 leaves nothing of a socket that closes while the auth service is asked', async () => {
    const userId = freshUserId();
    const asked = server.requests.length;
    const { promise, resolve } = Promise.withResolvers<() => void>();
    server.behaviour = (response) =>
      resolve(() => {
        answerAs(userId);
        server.behaviour(response, { path: '', authorization: undefined, form: {} });
      });
    const headers = { authorization: `Bearer ${freshOpaque()}` };
    const raw = openRawSocket({ url: url(), path: '/ws/secure', headers });
    await until(() => server.requests.length === asked + 1);
    const watch = await Stopwatch.start();
    raw.socket.destroy();
    await until(async () => (await metric(url(), 'tollgate_pending_connections')) === 0);
    expect(watch.ms).toBeLessThan(watch.allow(2_000));
    const answer = await promise;
    answer();
    await leases.untilReleased(userId);
    expect(await leases.remains(userId)).toEqual(NOTHING_LEFT);
    expect(await leases.live(userId)).toEqual([]);
  });

  it.each(TRANSPORTS)(
    'B105 B122 B176 ends within the deadline when the auth service hangs, over %s',
    async (transport) => {
      server.behaviour = FAULTS.hang;
      const watch = await Stopwatch.start();
      const { error, closed, tookMs } = await refused({ url: url(), transport, token: freshOpaque() });
      expect(error).toMatchObject({ code: 'AUTH_SERVICE_TIMEOUT', retryable: true });
      expect(error.message).toMatch(/timed out/i);
      if (transport === 'ws') expect(closed).toEqual({ code: 1013, reason: 'AUTH_SERVICE_TIMEOUT' });
      expect(tookMs).toBeLessThan(watch.allow(4_000));
    },
  );

  it('B40 B177 B178 B185 says which outage it is, then that the breaker is open, and recovers', async () => {
    answerAs(freshUserId());
    for (let i = 0; i < 10; i++) await (await openClient({ url: url(), token: freshOpaque() })).welcome();
    server.behaviour = FAULTS.html;
    const { error, closed } = await refused({ url: url(), token: freshOpaque() });
    expect(error).toMatchObject({ code: 'INVALID_RESPONSE_FORMAT', retryable: true });
    expect(closed).toEqual({ code: 1013, reason: 'INVALID_RESPONSE_FORMAT' });
    server.behaviour = FAULTS.tooMany;
    const unavailable = await refused({ url: url(), token: freshOpaque() });
    expect(unavailable.error).toMatchObject({ code: 'AUTH_SERVICE_UNAVAILABLE', retry_after_ms: 30_000 });
    expect(unavailable.error.message).toMatch(/unavailable/);
    const codes: unknown[] = [];
    const asked = server.requests.length;
    for (let i = 0; i < 10; i++) codes.push((await refused({ url: url(), token: freshOpaque() })).error.code);
    expect(server.requests.length - asked).toBeLessThanOrEqual(3);
    expect(codes.at(-1)).toBe('AUTH_CIRCUIT_BREAKER_OPEN');
    const open = await refused({ url: url(), transport: 'socketio', token: freshOpaque() });
    expect(open.error).toMatchObject({ code: 'AUTH_CIRCUIT_BREAKER_OPEN', retryable: true });
    expect(JSON.stringify([error, unavailable.error, open.error])).not.toMatch(/127\.0\.0\.1|proxy|undici|opaque~/);
    const jwt = mintToken({ iss: server.url }, { stack: processes.addresses });
    expect(await (await openClient({ url: url(), token: jwt.token })).welcome()).toMatchObject({ authenticated: true });
    answerAs(freshUserId());
    await until(async () => {
      const client = await openClient({ url: url(), token: freshOpaque() });
      const first = await client.waitFor(() => true);
      await client.close();
      return first.type === 'connection_established';
    }, UNTIL_CLOSED);
  });
});

describe('a gateway that asks about no token', () => {
  it('takes an opaque one for a credential of a wrong form', async () => {
    expect((await refused({ token: 'opaque' })).error.code).toBe('INVALID_FORMAT');
  });
});
