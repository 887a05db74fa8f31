import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { startAuthService } from '../../auth-service/server.ts';
import { ConfigError, loadConfig } from '../../src/config.ts';
import { closeAfter } from '../support/open-resources.ts';
import { oneRedisUrl } from '../support/stack.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { until } from '../support/until.ts';
import { basic, bearer, type Fixture, randomSecret, startFixture } from './auth-service.fixture.ts';

let auth: Fixture;
beforeAll(async () => {
  auth = await startFixture();
});

describe('the metadata', () => {
  it('names what RFC 8414 asks for, and the routes it names exist', async () => {
    const { status, body } = await auth.call('/.well-known/oauth-authorization-server');
    expect(status).toBe(200);
    expect(body).toMatchObject({
      issuer: 'http://auth.test',
      token_endpoint: 'http://auth.test/oauth/token',
      response_types_supported: ['code'],
      scopes_supported: [
        'usage:read',
        'usage:write',
        'events:write',
        'admin:read',
        'admin',
        'token:exchange',
        'openid',
      ],
    });
    expect(body.grant_types_supported).toEqual([
      'client_credentials',
      'refresh_token',
      'urn:ietf:params:oauth:grant-type:token-exchange',
      'password',
      'authorization_code',
    ]);
    for (const name of ['token_endpoint', 'introspection_endpoint', 'revocation_endpoint']) {
      const path = new URL(body[name]).pathname;
      expect((await auth.call(path, { json: {} })).status).not.toBe(404);
    }
    expect((await auth.call(new URL(body.jwks_uri).pathname)).status).toBe(200);
  });

  it('publishes no symmetric key', async () => {
    const { body } = await auth.call('/.well-known/jwks.json');
    const kinds = body.keys.map((key: Record<string, string>) => [key.kty, Object.keys(key).sort().join(' ')]);
    expect(kinds).toEqual([['EC', 'alg crv kid kty use x y']]);
  });

  it('tells the older clients what they need before a login', async () => {
    const { body } = await auth.call('/auth/config');
    expect(body).toMatchObject({ environment: 'test', password_login: true, access_token_seconds: 60 });
    expect(body.demo_accounts).toHaveLength(6);
  });
});

describe('the older routes', () => {
  it('log in and refresh with the answers of the contract', async () => {
    const json = { email: 'free@demo.local', password: auth.secrets.password };
    const login = await auth.call('/auth/login', { json });
    expect(login.status).toBe(200);
    expect(Object.keys(login.body).sort()).toEqual(['access_token', 'expires_in', 'refresh_token', 'token_type']);
    const refreshed = await auth.call('/auth/refresh', { json: { refresh_token: login.body.refresh_token } });
    expect(refreshed.body).toMatchObject({ token_type: 'Bearer', expires_in: 60 });
    expect(refreshed.headers.get('cache-control')).toBe('no-store');
    const again = await auth.call('/auth/refresh', { json: { refresh_token: 'x' } });
    expect([again.status, again.body.error.code]).toEqual([401, 'VALIDATION_FAILED']);
    expect(again.headers.get('www-authenticate')).toBe('Bearer realm="tollgate"');
  });

  it('give a service its token for the service secret only', async () => {
    const json = { service_id: 'backend', service_secret: auth.secrets.service, scope: 'usage:read' };
    const { status, body } = await auth.call('/auth/service-token', { json });
    expect(status).toBe(200);
    expect(body).toMatchObject({ token_type: 'Bearer', expires_in: 3600, scope: 'usage:read' });
    for (const wrong of [{ service_secret: randomSecret() }, { service_id: 'a b' }]) {
      const refused = await auth.call('/auth/service-token', { json: { ...json, ...wrong } });
      expect([refused.status, refused.body.error.code]).toEqual([401, 'VALIDATION_FAILED']);
    }
    const scope = await auth.call('/auth/service-token', { json: { ...json, scope: 'root' } });
    expect([scope.status, scope.body.error.code]).toEqual([400, 'FORMAT_ERROR']);
  });
});

describe('every route', () => {
  const POSTS = [
    '/oauth/token',
    '/oauth/introspect',
    '/oauth/revoke',
    '/auth/login',
    '/auth/refresh',
    '/auth/logout',
    '/auth/validate',
    '/auth/service-token',
    '/auth/users/user_free/block',
  ];
  const CREDENTIALS = { email: 'free@demo.local', username: 'free@demo.local', password: 'Guess-7f3a', client_id: 'a' };
  const GUESSES = {
    ...CREDENTIALS,
    client_secret: 'Guess-7f3a',
    service_id: 'a',
    service_secret: 'Guess-7f3a',
    refresh_token: 'Guess-7f3a',
    token: 'Guess-7f3a',
    subject_token: 'Guess-7f3a',
    subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
  };

  it('gives no token without a credential, and never echoes what was presented as one', async () => {
    const grants = [
      'client_credentials',
      'refresh_token',
      'password',
      'urn:ietf:params:oauth:grant-type:token-exchange',
    ];
    const headerSets = [{}, basic('a', 'Guess-7f3a'), bearer('Guess-7f3a'), bearer('')] as Record<string, string>[];
    for (const path of POSTS) {
      for (const grant_type of path === '/oauth/token' ? grants : ['']) {
        for (const headers of headerSets) {
          for (const json of [{ grant_type }, { grant_type, ...GUESSES, password: ['Guess-7f3a'] }]) {
            const { text } = await auth.call(path, { json, headers });
            expect(text).not.toMatch(/eyJ|access_token"|Guess-7f3a|\bat .*\.ts/);
          }
        }
      }
    }
  });

  it('that does not exist is a 404 of the common form', async () => {
    const { status, body } = await auth.call('/auth/nothing');
    expect([status, body.error.code]).toEqual([404, 'ENDPOINT_NOT_FOUND']);
    expect((await auth.call('/oauth/token?grant_type=client_credentials')).status).toBe(404);
  });
});

describe('a browser', () => {
  const preflight = (origin: string, path = '/oauth/token') =>
    auth.call(path, { method: 'OPTIONS', headers: { origin, 'access-control-request-method': 'POST' } });

  it('on a listed origin may call and read, without cookies', async () => {
    const allowed = await preflight('http://localhost:8000');
    expect(allowed.status).toBe(204);
    expect(allowed.headers.get('access-control-allow-origin')).toBe('http://localhost:8000');
    expect(allowed.headers.get('access-control-allow-headers')).toBe(
      'Authorization, Content-Type, MCP-Protocol-Version',
    );
    expect(allowed.headers.get('access-control-allow-credentials')).toBeNull();
    const error = await auth.call('/auth/refresh', { json: {}, headers: { origin: 'http://localhost:8000' } });
    expect(error.headers.get('access-control-allow-origin')).toBe('http://localhost:8000');
    expect(error.headers.get('vary')).toBe('Origin');
  });

  it('on any other origin may not', async () => {
    for (const origin of [
      'http://localhost:8001',
      'http://localhost:8000.evil.test',
      'null',
      'https://localhost:8000',
    ]) {
      const { headers } = await preflight(origin);
      expect(headers.get('access-control-allow-origin')).toBeNull();
    }
  });
});

describe('without Redis', () => {
  /** Redis behind a connection that a test can cut and restore. */
  async function startLine() {
    const target = new URL(await oneRedisUrl());
    const sockets = new Set<Socket>();
    const server = createServer((client) => {
      const upstream = connect(Number(target.port), target.hostname);
      for (const socket of [client, upstream]) {
        sockets.add(socket);
        socket.on('error', () => socket.destroy());
      }
      client.pipe(upstream).pipe(client);
    });
    const listen = async (port: number) => {
      server.listen(port, '127.0.0.1');
      await once(server, 'listening');
      return (server.address() as AddressInfo).port;
    };
    const cut = () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    };
    closeAfter('file', cut);
    const port = await listen(0);
    return { url: `redis://127.0.0.1:${port}`, cut, mend: () => listen(port) };
  }

  it('answers 503 at once, in the form of each route and at /auth/health, and is back when Redis is', async () => {
    const line = await startLine();
    const broken = await startFixture({ REDIS_URL: line.url });
    const session = (await broken.login()).body;
    expect((await broken.call('/auth/health')).body).toMatchObject({ status: 'healthy', redis: true });
    line.cut();

    const health = await broken.call('/auth/health');
    expect([health.status, health.body.status]).toEqual([503, 'unhealthy']);
    const watch = await Stopwatch.start();
    const login = await broken.login();
    expect([login.status, login.body.error]).toEqual([503, 'temporarily_unavailable']);
    const refresh = await broken.call('/auth/refresh', { json: { refresh_token: session.refresh_token } });
    expect([refresh.status, refresh.body.error.code]).toEqual([503, 'OVERLOADED']);
    const validate = await broken.call('/auth/validate', { json: { token: session.access_token } });
    expect(validate.status).toBe(503);
    expect(watch.ms).toBeLessThan(watch.allow(2_000));
    expect(login.text + refresh.text).not.toMatch(/redis|127\.0\.0\.1|Stream/i);

    await line.mend();
    await until(async () => (await broken.call('/auth/health')).status === 200);
    const after = await broken.call('/auth/refresh', { json: { refresh_token: session.refresh_token } });
    expect(after.status).toBe(200);
  });
});

describe('without JWT_SECRET_KEY', () => {
  it('does not start, although gateways would with a JWKS_URL', async () => {
    const config = loadConfig({
      AUTH_SERVICE_URL: 'http://auth.test',
      REDIS_URL: auth.redisUrl,
      SERVICE_SECRET: randomSecret(),
      JWKS_URL: 'http://auth.test/jwks',
    });
    await expect(startAuthService(config)).rejects.toThrow(ConfigError);
  });
});
