import { describe, expect, it } from '@jest/globals';
import { runToEnd } from '../support/agent-runs.ts';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { base64url } from '../support/forged-tokens.ts';
import { nodeUrl } from '../support/nodes.ts';
import { refused } from '../support/refusals.ts';
import { startService } from '../support/services.ts';
import { useStack } from '../support/stack.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { login, mintToken } from '../support/tokens.ts';

/** Like the former backend's staging: all secrets are set, and no development option. */
const staging = useStack({ env: { ENVIRONMENT: 'staging' } });
const url = () => nodeUrl(0, staging().addresses);
const minted = (claims = {}) => mintToken(claims, { stack: staging().addresses });
const AGENT_EVENTS = ['agent_started', 'agent_thinking', 'tool_executing', 'tool_completed', 'agent_completed'];

async function get(base: string, path: string): Promise<number> {
  const response = await fetch(new URL(path, base));
  await response.arrayBuffer();
  return response.status;
}

describe('in staging', () => {
  it('B188 an upgrade without a token is refused readably, and one of an unknown path with 404', async () => {
    expect(await refused({ url: url() })).toMatchObject({ error: { code: 'NO_TOKEN' }, closed: { code: 1008 } });
    expect((await openClient({ url: url(), path: '/websocket' })).refusal).toMatchObject({ status: 404 });
    expect(await get(url(), '/ws/secure')).toBe(426);
  });

  it.each([
    ['text', 'staging-test-token', 'INVALID_FORMAT'],
    ['the form of a token', 'a.b.c', 'VALIDATION_FAILED'],
    ['the token of another installation', mintToken().token, 'VALIDATION_FAILED'],
    ['two parts of a token', mintToken().token.split('.').slice(0, 2).join('.'), 'INVALID_FORMAT'],
  ])(
    'B189 B190 B212 a bad token, %s, ends with 1008 and its reason on every try, never with 1006',
    async (_what, token, code) => {
      for (const path of ['/ws/secure', '/ws/secure', '/ws', '/ws/user_1', '/ws/mcp']) {
        const { error, closed } = await refused({ url: url(), path, token });
        expect([path, error.code, closed]).toEqual([path, code, { code: 1008, reason: code }]);
      }
      const overSocketIo = await refused({ url: url(), transport: 'socketio', token });
      expect(overSocketIo.error.code).toBe(code);
    },
  );

  it.each([
    ['by its header', (token: string) => ({ token })],
    ['by the sub-protocol', (token: string) => ({ protocols: ['jwt-auth', `jwt.${base64url(token)}`] })],
    ['over Socket.IO', (token: string) => ({ token, transport: 'socketio' as const })],
  ])('B216 a good token lets its user in %s', async (_how, options) => {
    const { token, userId } = minted();
    const client = await openClient({ url: url(), ...options(token) });
    expect(await client.welcome()).toMatchObject({ authenticated: true, user_id: userId });
  });

  it('B213 a service connects with its token', async () => {
    const service = await startService('netra-backend', { stack: staging().addresses });
    const client = await openClient({ url: url(), headers: service.headers });
    expect((await client.welcome()).user_id).toBe('service:netra-backend');
  });

  it('B191 B217 a chat that authenticates in band gets past it, and all five events', async () => {
    const { token, userId } = minted();
    const client = await openClient({ url: url(), path: '/ws' });
    client.send('authenticate', { token });
    expect((await client.waitFor('auth_success')).fields.user_id).toBe(userId);
    const { events } = await runToEnd(client, {}, 'chat_message');
    expect(events.map(({ type }) => type)).toEqual(expect.arrayContaining(AGENT_EVENTS));
    expect(events.every(({ fields }) => fields.user_id === userId)).toBe(true);
  });

  it('B192 B194 is healthy over HTTP only as it is over WebSocket', async () => {
    expect(await get(url(), '/health/ready')).toBe(200);
    expect(await get(url(), '/ws/secure/health')).toBe(200);
    expect(await get(staging().addresses.authUrl, '/auth/health')).toBe(200);
    for (const transport of TRANSPORTS) {
      const client = await openClient({ url: url(), transport, token: minted().token });
      expect((await client.welcome()).authenticated).toBe(true);
    }
  });

  it('B49 no demo account can log in', async () => {
    await expect(login('pro', staging().addresses)).rejects.toThrow('the auth service answered 400');
  });
});

describe('a chat from its login on', () => {
  it.each(TRANSPORTS)(
    'B102 B108 B214 B228 over %s: login, connect, request, five events in 30 s',
    async (transport) => {
      const watch = await Stopwatch.start();
      const { access_token: token } = await login('pro');
      const client = await openClient({ transport, token });
      const { user_id } = await client.welcome();
      const { accepted, events } = await runToEnd(client, { message: 'Where could I save money?' });
      expect(accepted.type).toBe('agent_accepted');
      const types = events.map(({ type }) => type);
      expect(types).toEqual(expect.arrayContaining(AGENT_EVENTS));
      expect([types[0], types.at(-1)]).toEqual(['agent_started', 'agent_completed']);
      expect(new Set(events.map(({ fields }) => fields.user_id))).toEqual(new Set([user_id]));
      expect(watch.ms).toBeLessThan(watch.allow(30_000));
    },
  );

  it('B215 gets as far three times in a row, each time in less than five seconds', async () => {
    for (let attempt = 0; attempt < 3; attempt++) {
      const watch = await Stopwatch.start();
      const { access_token: token } = await login('enterprise');
      const client = await openClient({ url: nodeUrl(attempt), token });
      const { events } = await runToEnd(client);
      expect(events.at(-1)?.type).toBe('agent_completed');
      expect(watch.ms).toBeLessThan(watch.allow(5_000));
      await client.close();
    }
  });
});
