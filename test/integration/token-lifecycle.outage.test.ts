import { createServer } from 'node:http';
import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import type { TestClient } from '../support/clients.ts';
import { keysOf } from '../support/keys-of.ts';
import { closeAfter } from '../support/open-resources.ts';
import { type Login, SecondDeployment } from '../support/token-lifecycle.ts';

const TOKEN_MS = 60_000;
const GRACE_MS = 180_000;
/** Time that the clock advances by itself while a step waits for a retry of the auth client. */
const MARGIN_MS = 20_000;

let deployment: SecondDeployment;

beforeAll(async () => {
  deployment = await SecondDeployment.start({ gateways: 2 });
});

beforeEach(async () => {
  await deployment.stopAuthService();
  await deployment.startAuthService();
  // Closes a breaker that a test left open.
  await deployment.advance(60_000);
});

function expiryOf(token: string): number {
  return (JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as { exp: number }).exp * 1000;
}

function seen(client: TestClient, type: string): boolean {
  return client.events.some((event) => event.type === type);
}

describe('while the auth service is away a connection', () => {
  it('B64 B70 B72 B109 B119 B141 is degraded at the end of its token, and ends after the grace period', async () => {
    const { access_token } = await deployment.login();
    const client = await deployment.connect(access_token);
    const until = expiryOf(access_token) + GRACE_MS;
    await deployment.stopAuthService();
    const inState = async (state: string) => {
      const counted = [...(await deployment.metricsOf(0))].filter(([name]) => name.includes(`state="${state}"`));
      return counted.map(([, count]) => count);
    };
    await deployment.advance(TOKEN_MS, () => seen(client, 'token_refresh_failed'));
    await client.waitFor('token_refresh_failed');
    expect(await inState('refresh_failed')).toEqual([1]);
    await deployment.advance(TOKEN_MS + 20_000, () => seen(client, 'token_degraded'));
    const { fields } = await client.waitFor('token_degraded');
    expect(Date.parse(String(fields.until))).toBe(until);
    expect(deployment.clock.now()).toBeGreaterThanOrEqual(expiryOf(access_token));
    expect([await inState('degraded'), await inState('refresh_failed')]).toEqual([[1], [0]]);
    const failures = client.events.filter(({ type }) => type === 'token_refresh_failed');
    expect(failures[0]?.fields).toMatchObject({ attempt: 1, retry_in_ms: expect.any(Number) });

    await deployment.advance(until - deployment.clock.now() - MARGIN_MS);
    client.send('ping');
    await client.waitFor('pong');
    await deployment.advance(MARGIN_MS + 2_000);
    expect((await client.waitFor('session_terminated')).fields).toMatchObject({ reason: 'degraded_timeout' });
    expect(await client.closed).toMatchObject({ code: 1008, reason: 'TOKEN_EXPIRED' });
  });

  it('B122 B156 is active again as soon as the auth service is back', async () => {
    const { access_token } = await deployment.login();
    const client = await deployment.connect(access_token, { transport: 'socketio' });
    await deployment.stopAuthService();
    await deployment.advance(TOKEN_MS + 30_000);
    await client.waitFor('token_degraded');
    await deployment.startAuthService();
    await deployment.advance(60_000, () => seen(client, 'token_refreshed'));
    const { fields } = await client.waitFor('token_refreshed');
    expect(Date.parse(String(fields.token_expires_at))).toBeGreaterThan(deployment.clock.now());
    await deployment.advance(GRACE_MS);
    expect(seen(client, 'session_terminated')).toBe(false);
  });

  it('B41 B139 is accepted with a token that is still valid', async () => {
    const { access_token } = await deployment.login();
    await deployment.stopAuthService();
    await deployment.advance(30_000);
    const client = await deployment.connect(access_token);
    expect(await client.welcome()).toMatchObject({ authenticated: true });
  });

  it('B63 B243 for ten minutes ends sessions exactly after the grace period, with few calls, and recovers', async () => {
    const logins: Login[] = [];
    for (const plan of ['free', 'pro', 'enterprise', 'developer']) {
      for (let i = 0; i < 3; i++) logins.push(await deployment.login(plan));
    }
    const clients = await Promise.all(
      logins.map(({ access_token }, i) => {
        return deployment.connect(access_token, { node: i % 2, transport: i % 3 === 0 ? 'socketio' : 'ws' });
      }),
    );
    await deployment.advance(50_000);
    const refreshed = await Promise.all(clients.map((client) => client.waitFor('token_refreshed')));
    const ends = refreshed.map(({ fields }) => Date.parse(String(fields.token_expires_at)) + GRACE_MS);

    await deployment.stopAuthService();
    const outageEnds = deployment.clock.now() + 600_000;
    await deployment.advance(Math.min(...ends) - deployment.clock.now() - MARGIN_MS);
    for (const client of clients) {
      client.send('ping');
      await client.waitFor('pong');
      expect(seen(client, 'token_degraded')).toBe(true);
    }
    expect(deployment.authService.breaker).not.toBe('closed');
    await deployment.advance(Math.max(...ends) - deployment.clock.now() + 4_000);
    for (const client of clients) {
      expect((await client.waitFor('session_terminated')).fields).toMatchObject({ reason: 'degraded_timeout' });
      await client.closed;
    }
    await deployment.advance(outageEnds - deployment.clock.now());
    expect(await keysOf(deployment.redis, `${deployment.config.REDIS_KEY_PREFIX}:*token*`)).toEqual([]);

    await deployment.startAuthService();
    const { access_token } = await deployment.login();
    const client = await deployment.connect(access_token);
    await deployment.advance(50_000);
    await client.waitFor('token_refreshed');
    expect(deployment.authService.breaker).toBe('closed');
  }, 60_000);
});

describe('a provider that does not allow the refresh', () => {
  it.each([
    [400, 'invalid_request'],
    [400, 'unsupported_grant_type'],
    [400, 'unauthorized_client'],
    [403, 'access_denied'],
    [403, 'unauthorized_client'],
  ])('leaves the session its whole token: %d %s', async (status, error) => {
    const { access_token } = await deployment.login();
    const client = await deployment.connect(access_token);
    await deployment.stopAuthService();
    const stop = await serveRefusal(new URL(deployment.config.AUTH_SERVICE_URL), status, { error });
    await deployment.advance(expiryOf(access_token) - deployment.clock.now() - 2_000);
    client.send('ping');
    await client.waitFor('pong');
    expect(seen(client, 'token_degraded')).toBe(false);
    await deployment.advance(4_000, () => seen(client, 'token_degraded'));
    await client.waitFor('token_degraded');
    expect(seen(client, 'session_terminated')).toBe(false);
    await stop();
  });
});

/** Serves the metadata of an auth service whose token endpoint refuses every request. */
async function serveRefusal({ port, origin }: URL, status: number, body: object): Promise<() => Promise<void>> {
  const server = createServer((request, response) => {
    const isMetadata = request.method === 'GET';
    const metadata = { issuer: origin, token_endpoint: `${origin}/oauth/token` };
    response.writeHead(isMetadata ? 200 : status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(isMetadata ? metadata : body));
  });
  await new Promise<void>((resolve) => server.listen(Number(port), '127.0.0.1', resolve));
  const stop = () => {
    server.closeAllConnections();
    return new Promise<void>((resolve) => server.close(() => resolve()));
  };
  closeAfter('test', stop);
  return stop;
}

describe('a session that the auth service refuses for good', () => {
  it('ends at its refresh at the latest, on every node, with the reason', async () => {
    const { access_token, refresh_token } = await deployment.login('free');
    const clients = [
      await deployment.connect(access_token),
      await deployment.connect(access_token, { node: 1, transport: 'socketio' }),
    ];
    await deployment.post('/auth/logout', { refresh_token });
    await deployment.advance(50_000);
    for (const client of clients) {
      expect((await client.waitFor('session_terminated')).fields).toMatchObject({ reason: 'revoked' });
      expect((await client.waitFor('error')).fields).toMatchObject({ code: 'TOKEN_REVOKED' });
      await client.closed;
    }
  });
});
