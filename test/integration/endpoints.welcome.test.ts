import { describe, expect, it } from '@jest/globals';
import { type ClientOptions, openClient } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { openRawSocket } from '../support/raw-socket.ts';
import { stack } from '../support/stack.ts';
import { freshUserId, mintToken, validToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const ISO = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);

const LIMITS = {
  max_connections_per_user: 3,
  max_message_size: 8_192,
  heartbeat_interval: 45,
  connection_timeout: 300,
};

/** Returns the first frame of a connection as sent. */
async function firstFrame(path: string, headers: Record<string, string>): Promise<Record<string, unknown>> {
  const raw = openRawSocket({ url: nodeUrl(0), path, headers });
  expect((await raw.answer).status).toBe(101);
  const frame = await until(() => raw.frames[0]);
  return JSON.parse(frame.payload.toString());
}

describe('the welcome', () => {
  const user = freshUserId();
  it.each<[string, string, string, number, ClientOptions]>([
    ['/ws', 'regular_json', 'header', 8_192, { path: '/ws' }],
    ['/ws/secure', 'envelope', 'header', 8_192, { path: '/ws/secure' }],
    ['/ws/{user_id}', 'envelope', 'header', 8_192, { path: `/ws/${user}` }],
    ['/ws/v1/{user_id}', 'envelope', 'header', 8_192, { path: `/ws/v1/${user}` }],
    ['/ws/mcp', 'jsonrpc', 'header', 65_536, { path: '/ws/mcp' }],
    ['/socket.io/', 'socketio', 'handshake', 8_192, { transport: 'socketio' }],
  ])(
    'B1 B20 B21 B22 of %s tells the connection, its limits and who the user is',
    async (endpoint, format, method, largest, options) => {
      const { token, claims } = mintToken({ sub: user, plan: 'pro' });
      const client = await openClient({ ...options, token });
      expect(await client.welcome()).toEqual({
        connection_id: expect.stringMatching(/^ws_[\w-]{20}$/),
        thread_id: expect.stringMatching(/^thread_[\w-]{20}$/),
        endpoint,
        format,
        authenticated: true,
        server_time: ISO,
        timestamp: ISO,
        server_id: expect.stringMatching(/^node_[\w-]{20}$/),
        limits: { ...LIMITS, max_message_size: largest, max_message_rate: 60 },
        user_id: user,
        plan: 'pro',
        auth_method: method,
        permissions: ['basic', 'analytics', 'data_management', 'monitoring'],
        token_expires_at: new Date(claims.exp * 1000).toISOString(),
        epoch: expect.stringMatching(/^epoch_/),
        seq: 0,
      });
      expect(client.events[0]?.type).toBe('connection_established');
    },
  );

  it('B20 of /ws without a token is unauthenticated', async () => {
    const client = await openClient({ path: '/ws' });
    expect(await client.welcome()).toEqual({
      connection_id: expect.stringMatching(/^ws_/),
      endpoint: '/ws',
      format: 'regular_json',
      authenticated: false,
      server_time: ISO,
      timestamp: ISO,
      server_id: expect.stringMatching(/^node_/),
      limits: { ...LIMITS, max_message_rate: 30 },
    });
  });

  it('B1 is an envelope on /ws/secure: everything but type and timestamp is in its payload', async () => {
    const { token, userId } = mintToken();
    const frame = await firstFrame('/ws/secure', { Authorization: `Bearer ${token}` });
    expect(Object.keys(frame)).toEqual(['type', 'payload', 'timestamp']);
    expect(frame).toMatchObject({
      type: 'connection_established',
      payload: { user_id: userId, auth_method: 'header' },
      timestamp: ISO,
    });
  });

  it('B20 is flat on /ws: everything stands beside its type', async () => {
    const frame = await firstFrame('/ws', {});
    expect(frame).toMatchObject({ type: 'connection_established', endpoint: '/ws', format: 'regular_json' });
    expect(frame).not.toHaveProperty('payload');
  });

  it('B8 is a notification on /ws/mcp', async () => {
    const { token, userId } = mintToken();
    const frame = await firstFrame('/ws/mcp', { Authorization: `Bearer ${token}` });
    expect(Object.keys(frame)).toEqual(['jsonrpc', 'method', 'params']);
    expect(frame).toMatchObject({
      jsonrpc: '2.0',
      method: 'notifications/tollgate/event',
      params: { type: 'connection_established', user_id: userId },
    });
  });

  it('names the node that the client is on', async () => {
    const nodes = await Promise.all(
      [0, 1, 2].map(async (node) => {
        const client = await openClient({ url: nodeUrl(node), token: validToken() });
        return (await client.welcome()).server_id;
      }),
    );
    expect(new Set(nodes).size).toBe(3);
    expect(stack().gateways).toHaveLength(3);
  });

  it('comes over long polling too, and before it the upgrade to WebSocket', async () => {
    for (const transports of [['polling'], ['polling', 'websocket']] as const) {
      const { token, userId } = mintToken();
      const client = await openClient({ transport: 'socketio', token, socketIoTransports: transports });
      expect(await client.welcome()).toMatchObject({ user_id: userId, format: 'socketio' });
      expect(await client.call('ping', { timestamp: 1 })).toMatchObject({ ok: true, original_timestamp: 1 });
    }
  });
});
