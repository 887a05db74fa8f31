import { randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { startRedisServer } from '../../scripts/lib/redis-server.ts';
import { type ClientOptions, openClient, TRANSPORTS } from '../support/clients.ts';
import { ENDPOINT_CASES } from '../support/endpoint-cases.ts';
import { keysOf } from '../support/keys-of.ts';
import { type Leases, NOTHING_LEFT, openLeases } from '../support/leases.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { refused } from '../support/refusals.ts';
import { startService } from '../support/services.ts';
import { StackProcesses } from '../support/stack-processes.ts';
import { buyTicket, requestTicket, ticketDigest } from '../support/tickets.ts';
import { freshUserId, mintToken, validToken } from '../support/tokens.ts';

/** The origin that the test stacks allow. */
const PAGE = 'http://app.example.test';

let leases: Leases;

beforeAll(async () => {
  leases = await openLeases();
});

const keyOf = (ticket: string) => leases.keys.ticket(ticketDigest(ticket));
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

/** Expects that a ticket is spent, and that its refusal equals that of an unknown one. */
async function expectSpent(ticket: string, options: ClientOptions = {}) {
  expect(await leases.redis.exists(keyOf(ticket))).toBe(0);
  const never = randomBytes(32).toString('base64url');
  const [spent, unknown] = [
    await refused({ ...options, query: { ticket } }),
    await refused({ ...options, query: { ticket: never } }),
  ];
  expect(spent.error.code).toBe('VALIDATION_FAILED');
  expect({ ...spent.error, timestamp: '' }).toEqual({ ...unknown.error, timestamp: '' });
}

describe('POST /v1/tickets', () => {
  it('gives 256 bits for 30 seconds, which Redis knows by their hash alone', async () => {
    const { token } = mintToken();
    const response = await requestTicket({ headers: bearer(token) });
    expect([response.status, response.headers.get('cache-control')]).toEqual([201, 'no-store']);
    const answer = (await response.json()) as { ticket: string };
    expect(answer).toEqual({ ticket: expect.stringMatching(/^[\w-]{43}$/), expires_in: 30 });
    const remainingMs = await leases.redis.pttl(keyOf(answer.ticket));
    expect(remainingMs).toBeGreaterThan(25_000);
    expect(remainingMs).toBeLessThanOrEqual(30_000);
    const stored = String(await leases.redis.get(keyOf(answer.ticket)));
    for (const secret of [answer.ticket, token, token.split('.')[2] ?? token]) expect(stored).not.toContain(secret);
    expect(await keysOf(leases.redis, `*${answer.ticket}*`)).toEqual([]);
  });

  it.each([
    ['without a token', async () => ({}), 401, 'NO_TOKEN'],
    ['with text for a token', async () => bearer('hello'), 401, 'INVALID_FORMAT'],
    ['with an invalid token', async () => bearer('a.b.c'), 401, 'VALIDATION_FAILED'],
    ['as a service', async () => (await startService('ticket-buyer')).headers, 401, 'INVALID_FORMAT'],
    [
      'with a service’s token',
      async () => bearer((await startService('ticket-buyer')).token),
      401,
      'VALIDATION_FAILED',
    ],
    [
      'with its token in the sub-protocol',
      async () => ({ 'sec-websocket-protocol': `jwt.${btoa(validToken())}` }),
      401,
      'NO_TOKEN',
    ],
    [
      'for a page that may not connect',
      async () => ({ ...bearer(validToken()), origin: 'http://evil.test' }),
      403,
      'ORIGIN_NOT_ALLOWED',
    ],
  ] as const)('gives none %s', async (_what, headers, status, code) => {
    const response = await requestTicket({ headers: await headers() });
    expect(response.status).toBe(status);
    expect(((await response.json()) as { error: object }).error).toMatchObject({ code });
  });

  it('gives none for an expired token, nor for a token in the URL', async () => {
    const now = Math.floor(Date.now() / 1000);
    const expired = await requestTicket({ headers: bearer(validToken({ iat: now - 60, exp: now - 30 })) });
    expect(await expired.json()).toMatchObject({ error: { code: 'TOKEN_EXPIRED' } });
    for (const parameter of ['token', 'access_token', 'jwt']) {
      const url = new URL(`/v1/tickets?${parameter}=${validToken()}`, nodeUrl(0));
      expect((await fetch(url, { method: 'POST' })).status).toBe(401);
    }
  });

  it.each([
    ['for another page than the one that asks', { origin: 'http://other.test' }, { origin: PAGE }, 'FORMAT_ERROR'],
    ['for a page that may not connect', { origin: 'http://evil.test' }, {}, 'ORIGIN_NOT_ALLOWED'],
    ['for an origin of a wrong kind', { origin: 5 }, {}, 'FORMAT_ERROR'],
    ['for an origin that is too long', { origin: `http://${'a'.repeat(300)}.test` }, {}, 'FORMAT_ERROR'],
    ['for a body that is no object', ['origin'], {}, 'FORMAT_ERROR'],
  ])('gives none %s', async (_what, body, headers, code) => {
    const response = await requestTicket({ headers: { ...bearer(validToken()), ...headers }, body });
    expect(await response.json()).toMatchObject({ error: { code } });
  });

  it('lets a page of an allowed origin ask, and read the answer', async () => {
    const preflight = await fetch(new URL('/v1/tickets', nodeUrl(0)), {
      method: 'OPTIONS',
      headers: {
        origin: PAGE,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization',
      },
    });
    expect([preflight.status, preflight.headers.get('access-control-allow-origin')]).toEqual([204, PAGE]);
    expect(preflight.headers.get('access-control-allow-headers')).toMatch(/authorization/i);
    const answer = await requestTicket({ headers: { ...bearer(validToken()), origin: PAGE } });
    expect([answer.status, answer.headers.get('access-control-allow-origin')]).toEqual([201, PAGE]);
    const foreign = await requestTicket({ headers: { ...bearer(validToken()), origin: 'http://evil.test' } });
    expect(foreign.headers.get('access-control-allow-origin')).toBeNull();
  });

  it('gives 30 a minute to a user over all nodes, and says when there are more', async () => {
    const { token } = mintToken();
    for (let at = 0; at < 30; at++) await buyTicket(token, { url: nodeUrl(at % 3) });
    const response = await requestTicket({ headers: bearer(token) });
    expect(response.status).toBe(429);
    expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(await response.json()).toMatchObject({
      error: { code: 'RATE_LIMITED', retry_after_ms: expect.any(Number) },
    });
    expect((await requestTicket({ headers: bearer(validToken()) })).status).toBe(201);
  });
});

describe('a ticket', () => {
  it.each(ENDPOINT_CASES)('B256 lets its user in on %s, as the token did that bought it', async (_name, options) => {
    const { token, userId, claims } = mintToken({ plan: 'enterprise' });
    const ticket = await buyTicket(token);
    const client = await openClient({ ...options, url: nodeUrl(1), query: { ticket } });
    expect(await client.welcome()).toMatchObject({
      authenticated: true,
      user_id: userId,
      plan: 'enterprise',
      permissions: expect.arrayContaining(claims.permissions.slice()),
      auth_method: 'ticket',
      token_expires_at: new Date(claims.exp * 1000).toISOString(),
    });
    expect(JSON.stringify(client.events)).not.toContain(ticket);
  });

  it('admits its user on that user’s endpoint; another’s refuses and spends it', async () => {
    const { token, userId } = mintToken();
    const client = await openClient({ path: `/ws/v1/${userId}`, query: { ticket: await buyTicket(token) } });
    expect((await client.welcome()).user_id).toBe(userId);
    const ticket = await buyTicket(token);
    expect((await refused({ path: '/ws/user_1', query: { ticket } })).error.code).toBe('USER_MISMATCH');
    await expectSpent(ticket);
  });

  it('used 50 times at once over three nodes lets exactly one in', async () => {
    const { token, userId } = mintToken();
    const ticket = await buyTicket(token);
    const attempts = Array.from({ length: 50 }, (_, at) => {
      return openClient({ url: nodeUrl(at % 3), transport: TRANSPORTS[at % 2] ?? 'ws', query: { ticket } });
    });
    const outcomes = await Promise.all(
      (await Promise.all(attempts)).map(async (client) => {
        if (client.refusal) return String(client.refusal.data?.code);
        const { type, fields } = await client.waitFor(() => true);
        return type === 'error' ? String(fields.code) : type;
      }),
    );
    expect(outcomes.filter((outcome) => outcome === 'connection_established')).toHaveLength(1);
    expect(outcomes.filter((outcome) => outcome === 'VALIDATION_FAILED')).toHaveLength(49);
    expect(await leases.live(userId)).toHaveLength(1);
  });

  it.each(TRANSPORTS)('that was used over %s, or has run out, is as one that never was', async (transport) => {
    const used = await buyTicket(validToken());
    const client = await openClient({ transport, query: { ticket: used } });
    await client.welcome();
    await expectSpent(used, { transport });
    const old = await buyTicket(validToken());
    // Redis does this after 30 seconds.
    await leases.redis.pexpire(keyOf(old), 0);
    await expectSpent(old, { transport });
  });

  it.each<[string, string | undefined, string | undefined]>([
    ['bought by a page, used by a program', PAGE, undefined],
    ['bought by a program, used by a page', undefined, PAGE],
  ])('%s is refused, and spent', async (_what, buyer, user) => {
    const from = (origin: string | undefined): Record<string, string> => (origin === undefined ? {} : { origin });
    for (const transport of TRANSPORTS) {
      const { token, userId } = mintToken();
      const ticket = await buyTicket(token, { headers: from(buyer) });
      expect((await refused({ transport, headers: from(user), query: { ticket } })).error.code).toBe(
        'VALIDATION_FAILED',
      );
      await expectSpent(ticket, { headers: from(buyer) });
      expect(await leases.remains(userId)).toEqual(NOTHING_LEFT);
    }
  });

  it('is for the page that bought it, or the one that it was bought for', async () => {
    for (const request of [{ headers: { origin: PAGE } }, { body: { origin: PAGE } }]) {
      const ticket = await buyTicket(validToken(), request);
      const client = await openClient({ headers: { origin: PAGE }, query: { ticket } });
      expect((await client.welcome()).auth_method).toBe('ticket');
    }
    const ticket = await buyTicket(validToken(), { body: {} });
    expect((await (await openClient({ query: { ticket } })).welcome()).auth_method).toBe('ticket');
  });

  it('does not outlive the token that it was bought with', async () => {
    const ticket = await buyTicket(validToken());
    const stored = JSON.parse(String(await leases.redis.get(keyOf(ticket))));
    stored.identity.tokenExpiresAt = Date.now() - 6_000;
    await leases.redis.set(keyOf(ticket), JSON.stringify(stored), 'EX', 30);
    expect((await refused({ query: { ticket } })).error.code).toBe('TOKEN_EXPIRED');
    await expectSpent(ticket);
  });

  it.each([
    ['empty', '', 'NO_TOKEN'],
    ['one character short', 'x'.repeat(42), 'INVALID_FORMAT'],
    ['one character long', 'x'.repeat(44), 'INVALID_FORMAT'],
    ['8 KB', 'x'.repeat(8_192), 'INVALID_FORMAT'],
    ['a glob', '*'.repeat(43), 'INVALID_FORMAT'],
    ['a token', 'eyJh.eyJz.c2ln', 'INVALID_FORMAT'],
  ])('B50 that is %s is refused', async (_what, ticket, code) => {
    for (const transport of TRANSPORTS) {
      const { error } = await refused({ transport, query: { ticket } });
      expect(error.code).toBe(code);
      if (ticket !== '') expect(JSON.stringify(error)).not.toContain(ticket);
    }
  });

  it('B52 beside another ticket is refused, over Socket.IO too', async () => {
    const [one, other] = [await buyTicket(validToken()), await buyTicket(validToken())];
    const path = `/ws/secure?ticket=${one}&ticket=${other}`;
    expect((await refused({ path })).error.code).toBe('CONFLICTING_CREDENTIALS');
    const client = await openClient({ path: `/ws/secure?ticket=${one}&ticket=${one}` });
    expect((await client.welcome()).auth_method).toBe('ticket');
  });

  it('is no credential of a message, nor of a header', async () => {
    const ticket = await buyTicket(validToken());
    const client = await openClient({ path: '/ws' });
    client.send('auth', { token: ticket });
    expect((await client.waitFor('error')).fields.code).toBe('INVALID_FORMAT');
    expect((await refused({ token: ticket })).error.code).toBe('INVALID_FORMAT');
    expect((await refused({ transport: 'socketio', auth: { token: ticket } })).error.code).toBe('INVALID_FORMAT');
    expect((await refused({ transport: 'socketio', auth: { ticket } })).error.code).toBe('NO_TOKEN');
  });
});

describe('a ticket beside another credential', () => {
  it.each(TRANSPORTS)(
    'B52 over %s that is another user’s, session’s or a service’s is refused, and spent',
    async (transport) => {
      const { token, userId, claims } = mintToken();
      const others: ClientOptions[] = [
        { token: validToken() },
        { token: validToken({ sub: userId }) },
        { token: validToken({ sub: freshUserId(), sid: claims.sid }) },
        { headers: (await startService('ticket-holder')).headers },
      ];
      for (const other of others) {
        const ticket = await buyTicket(token);
        const { error } = await refused({ transport, ...other, query: { ticket } });
        expect(error.code).toBe('CONFLICTING_CREDENTIALS');
        await expectSpent(ticket);
      }
      expect(await leases.remains(userId)).toEqual(NOTHING_LEFT);
    },
  );

  it.each(TRANSPORTS)('B52 over %s that is invalid is reported, and the ticket is spent', async (transport) => {
    for (const [token, code] of [
      ['hello', 'INVALID_FORMAT'],
      ['a.b.c', 'VALIDATION_FAILED'],
    ] as const) {
      const ticket = await buyTicket(validToken());
      expect((await refused({ transport, token, query: { ticket } })).error.code).toBe(code);
      await expectSpent(ticket);
    }
  });

  it('agrees with a token of the same session, whose end then counts', async () => {
    const { token, userId, claims } = mintToken();
    const { token: newer, claims: newerClaims } = mintToken(
      { sub: userId, sid: claims.sid },
      { expiresInSeconds: 900 },
    );
    const client = await openClient({ token: newer, query: { ticket: await buyTicket(token) } });
    expect(await client.welcome()).toMatchObject({
      user_id: userId,
      auth_method: 'header',
      token_expires_at: new Date(newerClaims.exp * 1000).toISOString(),
    });
  });
});

describe('without Redis', () => {
  it('no ticket is given or taken, which is no refusal: the client is asked to come again', async () => {
    const server = await startRedisServer();
    closeAfter('test', () => server.stop());
    const processes = await StackProcesses.start({ gateways: 1, workers: 0, redisUrl: server.url });
    closeAfter('test', () => processes.close());
    const { addresses } = processes;
    const url = nodeUrl(0, addresses);
    const { token } = mintToken({}, { stack: addresses });
    const ticket = await buyTicket(token, { url });
    await server.stop();
    const { error, closed } = await refused({ url, query: { ticket } });
    expect([error, closed]).toEqual([
      expect.objectContaining({ code: 'OVERLOADED', retryable: true }),
      { code: 1013, reason: 'OVERLOADED' },
    ]);
    const response = await requestTicket({ url, headers: bearer(token) });
    expect([response.status, await response.json()]).toMatchObject([503, { error: { code: 'OVERLOADED' } }]);
  });
});

describe('a token in the URL', () => {
  it.each(['token', 'access_token', 'jwt', 'auth', 'Ticket', 'authorization'])(
    'B52 as ?%s= is not looked at',
    async (parameter) => {
      const query = { [parameter]: validToken() };
      for (const [, options] of ENDPOINT_CASES.slice(1)) {
        expect((await refused({ ...options, query })).error.code).toBe('NO_TOKEN');
      }
      const anonymous = await openClient({ path: '/ws', query });
      expect((await anonymous.welcome()).authenticated).toBe(false);
      // An ignored ticket causes no conflict with a valid credential either.
      const { token, userId } = mintToken();
      const client = await openClient({ token, query });
      expect((await client.welcome()).user_id).toBe(userId);
    },
  );
});
