import { beforeAll, describe, expect, it } from '@jest/globals';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { type Leases, NOTHING_LEFT, openLeases } from '../support/leases.ts';
import { nodeUrl } from '../support/nodes.ts';
import { login, mintToken, validToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

let leases: Leases;

beforeAll(async () => {
  leases = await openLeases();
});

/** An unauthenticated connection to `/ws`. */
async function openAnonymous(node = 0) {
  const client = await openClient({ path: '/ws', url: nodeUrl(node) });
  const { connection_id } = await client.welcome();
  return { client, connection_id };
}

describe('authentication in band on /ws', () => {
  it.each(['auth', 'authenticate'])('B208 by %s is answered with who the user is, and opens the rest', async (type) => {
    const { client, connection_id } = await openAnonymous();
    const { token, userId, claims } = mintToken({ plan: 'pro' });
    client.send('threads_list');
    await client.waitFor('info');
    client.send(type, { token });
    const { fields } = await client.waitFor('auth_success');
    expect(fields).toMatchObject({
      user_id: userId,
      plan: 'pro',
      permissions: ['basic', 'analytics', 'data_management', 'monitoring'],
      connection_id,
      thread_id: expect.stringMatching(/^thread_[\w-]{20}$/),
      limits: expect.objectContaining({ max_message_rate: 60, max_message_size: 8_192 }),
      token_expires_at: new Date(claims.exp * 1000).toISOString(),
      auth_method: 'message',
      epoch: expect.any(String),
      seq: 0,
    });
    client.send('threads_list');
    expect((await client.waitFor('threads_list')).fields.threads).toEqual([]);
    expect(await leases.live(userId)).toEqual([connection_id]);
  });

  it('takes the token also in an envelope, and with its scheme', async () => {
    const { client } = await openAnonymous();
    const { token, userId } = mintToken();
    client.sendRaw(JSON.stringify({ type: 'auth', payload: { token: `Bearer ${token}` } }));
    expect((await client.waitFor('auth_success')).fields.user_id).toBe(userId);
  });

  it('takes the token of a login at the auth service', async () => {
    const { access_token } = await login('pro');
    const { client } = await openAnonymous();
    client.send('auth', { token: access_token });
    expect((await client.waitFor('auth_success')).fields).toMatchObject({ plan: 'pro' });
  });

  it.each([
    ['none', undefined, 'NO_TOKEN'],
    ['an empty one', '', 'NO_TOKEN'],
    ['one of a wrong form', 'hello', 'INVALID_FORMAT'],
    ['an invalid one', 'a.b.c', 'VALIDATION_FAILED'],
  ])(
    'B209 B261 with a token that is %s ends the connection, readably, and takes no place',
    async (_what, token, code) => {
      const { client } = await openAnonymous();
      client.send('auth', token === undefined ? {} : { token });
      const { fields } = await client.waitFor('error');
      expect(fields).toMatchObject({ code, retryable: false });
      expect(fields.message).toMatch(/authentication/i);
      expect(await client.closed).toEqual({ code: 1008, reason: code });
    },
  );

  it('B51 with an expired token ends the connection with TOKEN_EXPIRED, worth trying again', async () => {
    const now = Math.floor(Date.now() / 1000);
    const { token, userId } = mintToken({ iat: now - 60, exp: now - 30 });
    const { client } = await openAnonymous();
    client.send('auth', { token });
    expect((await client.waitFor('error')).fields).toMatchObject({ code: 'TOKEN_EXPIRED', retryable: true });
    expect(await client.closed).toEqual({ code: 1008, reason: 'TOKEN_EXPIRED' });
    expect(await leases.remains(userId)).toEqual(NOTHING_LEFT);
  });

  it('with a token of a wrong kind is FORMAT_ERROR, and the client may try again', async () => {
    const { client } = await openAnonymous();
    client.send('auth', { token: 5 });
    expect((await client.waitFor('error')).fields).toMatchObject({ code: 'FORMAT_ERROR', field: 'token' });
    client.send('auth', { token: validToken() });
    await client.waitFor('auth_success');
  });

  it('reads what was sent behind it as the user it names', async () => {
    const { client } = await openAnonymous();
    const { token } = mintToken();
    client.send('auth', { token });
    client.send('threads_list');
    client.send('ping');
    await client.waitFor('pong');
    expect(client.events.map(({ type }) => type)).toEqual([
      'connection_established',
      'auth_success',
      'threads_list',
      'pong',
    ]);
  });
});

describe.each([
  ['/ws', {}],
  ['/ws/secure', {}],
  ['/socket.io/', { transport: 'socketio' }],
] as const)('a connection on %s that has authenticated', (path, options) => {
  const connect = (token: string) => openClient({ ...options, ...('transport' in options ? {} : { path }), token });

  it('B53 B103 is answered again when it authenticates as the same user', async () => {
    const { token, userId } = mintToken();
    const client = await connect(token);
    const { connection_id } = await client.welcome();
    client.send('auth', { token: validToken({ sub: userId }) });
    expect((await client.waitFor('auth_success')).fields).toMatchObject({ user_id: userId, connection_id });
    expect(await leases.live(userId)).toEqual([connection_id]);
    client.send('ping');
    await client.waitFor('pong');
  });

  it('B53 B259 is closed with USER_MISMATCH when it authenticates as another', async () => {
    const [one, other] = [mintToken(), mintToken()];
    const client = await connect(one.token);
    await client.welcome();
    client.send('auth', { token: other.token });
    const { fields } = await client.waitFor('error');
    expect(fields).toMatchObject({ code: 'USER_MISMATCH', retryable: false });
    expect(fields.message).toMatch(/unauthorized.*mismatch/i);
    const closed = await client.closed;
    if (path === '/socket.io/') expect(closed.reason).toBe('io server disconnect');
    else expect(closed).toEqual({ code: 1008, reason: 'USER_MISMATCH' });
    await until(async () => (await leases.live(one.userId)).length === 0);
    expect(await leases.remains(other.userId)).toEqual(NOTHING_LEFT);
  });
});

describe.each(TRANSPORTS)('a socket over %s that goes while it authenticates', (transport) => {
  it('B53 B125 B130 leaves no lease and no subscription', async () => {
    const { token, userId } = mintToken();
    for (let round = 0; round < 12; round++) {
      const url = nodeUrl(round % 3);
      if (transport === 'socketio') {
        const client = await openClient({ transport, url, token });
        client.terminate();
        continue;
      }
      const client = await openClient({ path: '/ws', url });
      client.send('auth', { token });
      if (round % 2) client.terminate();
      else await client.close();
    }
    // A later accepted connection on each node shows that earlier ones have been processed there.
    for (const node of [0, 1, 2]) {
      const client = await openClient({ transport, url: nodeUrl(node), token });
      await client.welcome();
      await client.close();
    }
    await leases.untilReleased(userId);
  });
});
