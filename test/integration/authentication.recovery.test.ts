import { beforeAll, describe, expect, it } from '@jest/globals';
import { startRedisServer } from '../../scripts/lib/redis-server.ts';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { claimsWith, forgeToken, hs256 } from '../support/forged-tokens.ts';
import { type Leases, NOTHING_LEFT, openLeases } from '../support/leases.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { refused } from '../support/refusals.ts';
import { stack, useStack } from '../support/stack.ts';
import { StackProcesses } from '../support/stack-processes.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { buyTicket, ticketDigest } from '../support/tickets.ts';
import { freshUserId, mintToken, validToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

let leases: Leases;

beforeAll(async () => {
  leases = await openLeases();
});

const now = () => Math.floor(Date.now() / 1000);

async function statusOf(url: string): Promise<{ code: number; body: Record<string, unknown> }> {
  const response = await fetch(url);
  return { code: response.status, body: (await response.json()) as Record<string, unknown> };
}

describe.each(TRANSPORTS)('a handshake over %s', (transport) => {
  it('B99 B129 B156 that failed in any way is followed by a good one at once, which takes nothing over from it', async () => {
    const expired = validToken({ iat: now() - 60, exp: now() - 30 });
    const failures = [
      { options: {}, code: 'NO_TOKEN' },
      { options: { token: 'hello' }, code: 'INVALID_FORMAT' },
      { options: { token: forgeToken({ sign: hs256('attacker') }) }, code: 'VALIDATION_FAILED' },
      { options: { token: expired }, code: 'TOKEN_EXPIRED' },
      { options: { headers: { authorization: 'Basic dXNlcjpwYXNz' } }, code: 'INVALID_FORMAT' },
    ];
    for (const { options, code } of failures) {
      const watch = await Stopwatch.start();
      expect((await refused({ transport, ...options })).error.code).toBe(code);
      const { token, userId } = mintToken();
      const client = await openClient({ transport, token });
      expect((await client.welcome()).user_id).toBe(userId);
      expect(watch.ms).toBeLessThan(watch.allow(5_000));
    }
  });

  it('B99 with a bad credential has no second way in: not by a good one beside it, nor by none', async () => {
    const good = validToken();
    const headers = { authorization: `Bearer ${forgeToken({ sign: hs256('attacker') })}` };
    const beside =
      transport === 'ws' ? { protocols: ['jwt-auth', `jwt.${btoa(good).replace(/=+$/, '')}`] } : { token: good };
    expect((await refused({ transport, headers, ...beside })).error.code).toBe('CONFLICTING_CREDENTIALS');
    const ticket = await buyTicket(good);
    expect((await refused({ transport, headers, query: { ticket } })).error.code).toBe('VALIDATION_FAILED');
  });
});

describe('five connections of one user that authenticate at once', () => {
  it('B123 B157 leave three, and the others receive the reason', async () => {
    const { token, userId } = mintToken();
    const clients = await Promise.all(
      Array.from({ length: 5 }, (_, at) => openClient({ path: '/ws', url: nodeUrl(at % 3) })),
    );
    for (const client of clients) client.send('auth', { token });
    const ended: unknown[] = [];
    for (const client of clients) void client.closed.then((closed) => ended.push(closed));
    await until(() => ended.length >= 2);
    expect(ended).toEqual(Array(2).fill({ code: 4001, reason: 'CONNECTION_LIMIT_EXCEEDED' }));
    expect(await leases.live(userId)).toHaveLength(3);
    for (const client of clients.filter(({ events }) => !events.some(({ type }) => type === 'error'))) {
      client.send('ping');
      await client.waitFor('pong');
    }
  });
});

describe('what Redis holds of a user, damaged', () => {
  it('B124 B127 makes a new connection fail as ours, not as the client’s fault, and is well again when it is gone', async () => {
    const { token, userId } = mintToken();
    const { leases: key } = leases.keys.user(userId);
    await leases.redis.set(key, 'no sorted set', 'EX', 60);
    for (const transport of TRANSPORTS) {
      const { error } = await refused({ transport, token });
      expect(error.retryable).toBe(true);
      expect(error.code).toBe('INTERNAL_ERROR');
      expect(error.message).not.toMatch(/WRONGTYPE|redis|script/i);
    }
    await (await openClient({ token: validToken() })).welcome();
    await leases.redis.del(key);
    expect((await (await openClient({ token })).welcome()).user_id).toBe(userId);
    expect(await leases.live(userId)).toHaveLength(1);
  });

  it('B124 in a ticket spends the ticket, and admits no user', async () => {
    for (const stored of ['{', '{}', 'null', '{"identity":{"userId":"admin"}}', '[]', '"admin"']) {
      const ticket = await buyTicket(validToken());
      const key = leases.keys.ticket(ticketDigest(ticket));
      await leases.redis.set(key, stored, 'EX', 30);
      const { error } = await refused({ query: { ticket } });
      expect([stored, error.code, await leases.redis.exists(key)]).toEqual([stored, 'INTERNAL_ERROR', 0]);
    }
  });

  it('B124 B127 by the loss of its lease leaves no unregistered connection', async () => {
    const { token, userId } = mintToken();
    const client = await openClient({ token });
    const { connection_id } = await client.welcome();
    const { leases: key, connections } = leases.keys.user(userId);
    await leases.redis.del(key, connections);
    // At the next renewal, a third of the lease's three seconds later.
    await until(async () => (await leases.live(userId)).includes(String(connection_id)));
    client.send('ping');
    await client.waitFor('pong');
    await client.close();
    await leases.untilReleased(userId);
    expect(await leases.remains(userId)).toEqual(NOTHING_LEFT);
  });
});

describe('without Redis', () => {
  it('B27 B132 B133 B135 B137 B207 handshakes are retryable, connections stay, and the same token works afterwards', async () => {
    const server = await startRedisServer();
    closeAfter('test', () => server.stop());
    const processes = await StackProcesses.start({ gateways: 1, workers: 0, redisUrl: server.url });
    closeAfter('test', () => processes.close());
    const url = nodeUrl(0, processes.addresses);
    const { token, userId } = mintToken({}, { stack: processes.addresses });
    const living = await openClient({ url, token });
    await living.welcome();
    await server.stop();
    for (const transport of TRANSPORTS) {
      const { error, closed } = await refused({ url, transport, token });
      expect(error).toMatchObject({ code: 'OVERLOADED', retryable: true });
      if (transport === 'ws') expect(closed).toEqual({ code: 1013, reason: 'OVERLOADED' });
      // An invalid token is invalid without Redis too.
      const forged = forgeToken({ payload: claimsWith(), sign: hs256('attacker') });
      expect((await refused({ url, transport, token: forged })).error.code).toBe('VALIDATION_FAILED');
    }
    await until(async () => (await statusOf(`${url}/health/ready`)).code === 503);
    living.send('ping');
    await living.waitFor('pong');
    const again = await startRedisServer({ port: server.port });
    closeAfter('test', () => again.stop());
    await until(async () => (await statusOf(`${url}/health/ready`)).code === 200);
    const client = await openClient({ url, token });
    expect((await client.welcome()).user_id).toBe(userId);
    expect(processes.gateways[0]?.running).toBe(true);
  });
});

describe('the auth service', () => {
  const own = useStack({ workers: 0 });

  it('B110 B148 B251 may be away: issued tokens go on being good, and the node says that it is degraded', async () => {
    const { addresses, auth } = own();
    const url = nodeUrl(0, addresses);
    const health = async () => (await statusOf(`${url}/ws/secure/health`)).body.status;
    await until(async () => (await health()) === 'healthy');
    await auth.kill();
    await until(async () => (await health()) === 'degraded');
    expect((await statusOf(`${url}/health/ready`)).code).toBe(200);
    const { token, userId } = mintToken({}, { stack: addresses });
    for (const transport of TRANSPORTS) {
      const client = await openClient({ url, transport, token });
      expect((await client.welcome()).user_id).toBe(userId);
    }
    await auth.start();
    await until(async () => (await health()) === 'healthy');
  });

  it('B100 tells its health in less than a second', async () => {
    const watch = await Stopwatch.start();
    expect((await statusOf(`${stack().authUrl}/auth/health`)).code).toBe(200);
    expect(watch.ms).toBeLessThan(watch.allow(1_000));
  });
});

it('B104 a connection begins, authenticates and is cleaned up, and leaves what it was at each step to be seen', async () => {
  const sub = freshUserId();
  const client = await openClient({ path: '/ws' });
  const { authenticated, connection_id } = await client.welcome();
  expect([authenticated, await leases.live(sub)]).toEqual([false, []]);
  client.send('auth', { token: validToken({ sub }) });
  expect((await client.waitFor('auth_success')).fields.connection_id).toBe(connection_id);
  expect(await leases.live(sub)).toEqual([connection_id]);
  await client.close();
  await leases.untilReleased(sub);
});
