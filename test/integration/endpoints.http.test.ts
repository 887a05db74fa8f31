import { describe, expect, it } from '@jest/globals';
import { ERRORS } from '../../src/protocol/error-table.ts';
import { nodeUrl } from '../support/nodes.ts';
import { openRawSocket } from '../support/raw-socket.ts';
import { stack, startStack } from '../support/stack.ts';
import { until } from '../support/until.ts';

// biome-ignore lint/suspicious/noExplicitAny: tests look into JSON whose form they are about to assert
type Json = any;

async function get(path: string, node = 0): Promise<{ status: number; text: string; body: Json }> {
  const response = await fetch(new URL(path, nodeUrl(node)));
  const text = await response.text();
  return { status: response.status, text, body: JSON.parse(text) };
}

describe('GET /ws/config', () => {
  it('B31 B195 tells where and how to connect, as older clients read it', async () => {
    const { status, body } = await get('/ws/config');
    expect([status, body.status]).toEqual([200, 'healthy']);
    expect(body.websocket_config).toMatchObject({
      available_endpoints: ['/ws', '/ws/{user_id}', '/ws/v1/{user_id}', '/ws/secure'],
      authentication_required: true,
      supported_protocols: ['jwt-auth'],
      cors_enabled: true,
      environment: 'test',
      max_connections_per_user: 3,
      heartbeat_interval: 45,
    });
    expect(body.socketio).toEqual({ path: '/socket.io/' });
    expect(body.mcp).toMatchObject({ websocket: '/ws/mcp' });
  });

  it('publishes the error table, and which codes close with which number', async () => {
    const { body } = await get('/ws/config');
    expect(body.errors.map(({ code }: Json) => code)).toEqual(Object.keys(ERRORS));
    expect(body.errors).toContainEqual({
      code: 'RATE_LIMITED',
      message: ERRORS.RATE_LIMITED.text,
      close_code: null,
      http_status: 429,
      jsonrpc_code: -33029,
      retryable: true,
    });
    expect(body.close_codes['4001']).toEqual(['CONNECTION_LIMIT_EXCEEDED']);
    expect(body.close_codes['4002']).toEqual(['SLOW_CONSUMER']);
    expect(body.close_codes['1012']).toEqual(['SERVER_DRAINING']);
    expect(body.close_codes['1008']).toEqual(expect.arrayContaining(['NO_TOKEN', 'TOKEN_EXPIRED', 'AUTH_TIMEOUT']));
    expect(body.close_codes['1013']).toEqual(expect.arrayContaining(['OVERLOADED', 'AUTH_SERVICE_UNAVAILABLE']));
  });

  it('publishes the events', async () => {
    const { body } = await get('/ws/config');
    expect(body.events.durable).toEqual(expect.arrayContaining(['agent_started', 'agent_completed', 'agent_failed']));
    expect(body.events.transient).toEqual(expect.arrayContaining(['connection_established', 'pong', 'error']));
  });
});

describe('GET /ws/secure/config', () => {
  it('B32 tells the version, the features and the limits', async () => {
    const { status, body } = await get('/ws/secure/config');
    expect([status, body.status]).toEqual([200, 'success']);
    const { features, auth, limits, server_time, ...rest } = body.websocket_config;
    expect(rest).toEqual({ version: '2.0', security_level: 'enterprise' });
    expect(features).toMatchObject({
      secure_auth: true,
      header_based_jwt: true,
      subprotocol_auth: true,
      cors_validation: true,
    });
    expect(auth.methods).toEqual(['header', 'subprotocol', 'handshake', 'message', 'service', 'ticket']);
    expect(limits).toEqual({
      max_connections_per_user: 3,
      max_message_rate: 30,
      max_message_size: 8_192,
      connection_timeout: 300,
      heartbeat_interval: 45,
    });
    expect(Math.abs(Date.parse(server_time) - Date.now())).toBeLessThan(5_000);
  });
});

describe('the health of a node', () => {
  it('B33 B194 is healthy at /ws/secure/health', async () => {
    // A node caches for two seconds that the auth service, which starts beside it, was unavailable.
    const { status, body } = await until(async () => {
      const answer = await get('/ws/secure/health');
      return answer.body.status === 'healthy' ? answer : undefined;
    });
    expect(status).toBe(200);
    expect(body).toEqual({
      status: 'healthy',
      service: 'secure_websocket',
      version: '2.0',
      security_level: 'enterprise',
      timestamp: expect.any(String),
    });
    expect(Math.abs(Date.parse(body.timestamp) - Date.now())).toBeLessThan(5_000);
  });

  const KEYS = { identity_keys: true, providers_without_keys: [] };

  it('B194 is live and ready on every node', async () => {
    for (const node of stack().gateways.keys()) {
      expect(await get('/health/live', node)).toMatchObject({ status: 200, body: { status: 'live' } });
      const { status, body } = await until(async () => {
        const answer = await get('/health/ready', node);
        return answer.body.checks.auth_service ? answer : undefined;
      });
      expect(status).toBe(200);
      expect(body).toEqual({ status: 'ready', checks: { redis: true, auth_service: true, ...KEYS, draining: false } });
    }
  });
});

describe('a request', () => {
  it('may name the whole URL, as proxies do', async () => {
    const base = nodeUrl(0);
    for (const path of ['/socket.io/?EIO=4&transport=polling', '/health/live']) {
      const asked = openRawSocket({ url: base, path: `${base}${path}`, headers: { Upgrade: undefined } });
      expect([path, (await asked.answer).status]).toEqual([path, 200]);
    }
    expect((await openRawSocket({ url: base, path: `${base}/ws` }).answer).status).toBe(101);
  });

  it('without a required credential returns the scheme', async () => {
    const paths = ['/v1/usage/records', '/v1/nodes', '/v1/tickets'];
    for (const path of paths) {
      const method = path === '/v1/tickets' ? 'POST' : 'GET';
      const { status, headers } = await fetch(new URL(path, nodeUrl(0)), { method });
      expect([path, status, headers.get('www-authenticate')]).toEqual([path, 401, 'Bearer realm="tollgate"']);
    }
  });
});

describe('a page', () => {
  const allowedOn = async (url: string, origin: string) => {
    return (await fetch(url, { headers: { origin } })).headers.get('access-control-allow-origin');
  };

  it.each(['/ws/config', '/ws/secure/config', '/ws/secure/health', '/socket.io/?EIO=4&transport=polling'])(
    'reads %s where it may connect',
    async (path) => {
      const url = `${nodeUrl(0)}${path}`;
      expect(await allowedOn(url, 'http://app.example.test')).toBe('http://app.example.test');
      expect(await allowedOn(url, 'http://evil.example.test')).toBeNull();
    },
  );

  it('of any origin does where all may, over long polling too', async () => {
    const any = await startStack({ gateways: 1, workers: 0, env: { CORS_ORIGINS: '*' } });
    const url = `${any.addresses.gateways[0]?.url}/socket.io/?EIO=4&transport=polling`;
    expect(await allowedOn(url, 'http://any.example.test')).toBe('http://any.example.test');
    await any.close();
  });
});

describe('a public HTTP route', () => {
  it.each(['/ws/config', '/ws/secure/config', '/ws/secure/health', '/health/ready'])(
    '%s names no origin, no address and no secret',
    async (path) => {
      const { text } = await get(path);
      const { authUrl, redisUrl, keyPrefix, secrets } = stack();
      for (const value of [
        'app.example.test',
        '127.0.0.1',
        authUrl,
        redisUrl,
        keyPrefix,
        secrets.jwt,
        secrets.service,
      ]) {
        expect(text).not.toContain(value);
      }
    },
  );

  it.each(['/nowhere', '/ws/a/b', '/v1/nowhere'])('that is none, GET %s, is 404 with an error object', async (path) => {
    const { status, body } = await get(path);
    expect([status, body.error.code]).toEqual([404, 'ENDPOINT_NOT_FOUND']);
  });

  it('that is longer than 1,024 characters is 404, and the longest of a user is not', async () => {
    for (const path of [`/v1/users/${'%61'.repeat(400)}/connections`, `/health/live${'%2f'.repeat(400)}`]) {
      const { status, body } = await get(path);
      expect([status, body.error.code]).toEqual([404, 'ENDPOINT_NOT_FOUND']);
    }
    expect((await get(`/v1/users/${'%61'.repeat(128)}/connections`)).status).toBe(401);
    expect((await get(`/health/live?${'%61'.repeat(1_000)}`)).status).toBe(200);
  });

  it.each(['/%ff', '/%00%', '/v1/users/%e0%80/plan'])(
    'B30 returns an error in the common form when %s cannot be read',
    async (path) => {
      const response = await fetch(`${nodeUrl(0)}${path}`);
      expect([response.status, await response.json()]).toEqual([
        400,
        { error: { code: 'FORMAT_ERROR', message: expect.stringContaining('wrong form'), retryable: false } },
      ]);
    },
  );

  it.each(['/health/live', '/ws/config'])(
    'answers a client that offers HTTP/2, which asks for an upgrade, as any other: %s',
    async (path) => {
      const offer = {
        Connection: 'Upgrade, HTTP2-Settings',
        Upgrade: 'h2c',
        'HTTP2-Settings': 'AAMAAABkAAQAoAAAAAIAAAAA',
      };
      const raw = openRawSocket({ url: nodeUrl(0), path, headers: offer });
      expect((await raw.answer).status).toBe(200);
    },
  );
});
