import { beforeAll, describe, expect, it } from '@jest/globals';
import { startRedisServer } from '../../scripts/lib/redis-server.ts';
import { derivedId } from '../../src/lib/ids.ts';
import { type ClientOptions, openClient } from '../support/clients.ts';
import { type Leases, openLeases } from '../support/leases.ts';
import { total } from '../support/metrics.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { startStack, useStack } from '../support/stack.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const TRIALS = 20;
/** As in config/plans.json. */
const FREE_RUNS_IN_FLIGHT = 5;

/** Without workers, so that a run stays as the messages left it. */
const stack = useStack({ gateways: 1, workers: 0 });
let leases: Leases;

beforeAll(async () => {
  leases = await openLeases(stack().addresses);
});

interface Way extends ClientOptions {
  readonly name: string;
  /** Whether messages may be sent before the welcome, while the handshake is in flight. */
  readonly early?: true;
  /** Whether the client authenticates by message. */
  readonly inBand?: true;
}

const WAYS: readonly Way[] = [
  { name: 'a raw WebSocket', transport: 'ws' },
  { name: 'a raw WebSocket during the handshake', transport: 'ws', early: true },
  { name: 'a raw WebSocket during a replay', transport: 'ws', early: true, query: { after: '0', epoch: 'earlier' } },
  { name: 'a raw WebSocket that authenticates by message', transport: 'ws', path: '/ws', early: true, inBand: true },
  { name: 'Socket.IO over WebSocket', transport: 'socketio', socketIoTransports: ['websocket'] },
  { name: 'Socket.IO over long polling', transport: 'socketio', socketIoTransports: ['polling'] },
];

/** Opens a client of a new user, which is ready to send. */
async function connect({ name: _, early, inBand, ...options }: Way, claims: { plan?: 'free' } = {}) {
  const { token, userId } = mintToken(claims, { stack: stack().addresses });
  const url = nodeUrl(0, stack().addresses);
  const client = await openClient({ ...options, url, ...(inBand ? {} : { token }) });
  if (!early) await client.welcome();
  if (inBand) client.send('auth', { token });
  return { client, userId };
}

/** Sends a request and its cancellation, closes the connection at once, and returns the user. */
async function startAndCancel(way: Way): Promise<string> {
  const { client, userId } = await connect(way);
  client.send('agent_request', { message: 'hello', request_id: 'req_1' });
  client.send('agent_cancel', { run_id: derivedId('run', userId, 'req_1') });
  await client.close();
  return userId;
}

function runKey(userId: string, requestId: string, { keys } = leases): string {
  return keys.user(userId).run(derivedId('run', userId, requestId));
}

async function isCancelled(userId: string, of = leases): Promise<boolean> {
  return (await of.redis.hget(runKey(userId, 'req_1', of), 'cancel')) === '1';
}

describe('messages that arrive before the client closes the connection', () => {
  it.each(WAYS)('take effect in order, in 20 of 20 trials, over $name', async (way) => {
    for (let trial = 0; trial < TRIALS; trial++) {
      const userId = await startAndCancel(way);
      await until(() => isCancelled(userId), { label: `the cancellation of trial ${trial}` });
    }
  });

  it.each(WAYS)('leave no lease behind over $name', async (way) => {
    await leases.untilReleased(await startAndCancel(way));
  });

  it('take effect within the limits of the user', async () => {
    const url = nodeUrl(0, stack().addresses);
    const before = await total(url, 'tollgate_messages_total');
    const { client, userId } = await connect({ name: 'a raw WebSocket', transport: 'ws' }, { plan: 'free' });
    const ids = Array.from({ length: 2 * FREE_RUNS_IN_FLIGHT }, (_, at) => `req_${at}`);
    for (const request_id of ids) client.send('agent_request', { message: 'hello', request_id });
    await client.close();
    const handled = async () => (await total(url, 'tollgate_messages_total')) - before === ids.length;
    await until(handled, { label: 'the last request' });
    const stored = await Promise.all(ids.map((id) => leases.redis.exists(runKey(userId, id))));
    expect(stored.reduce((sum, one) => sum + one, 0)).toBe(FREE_RUNS_IN_FLIGHT);
  });
});

describe('while messages of a closed connection wait', () => {
  it('its lease is released at once, so that the next connection evicts no other', async () => {
    const server = await startRedisServer();
    closeAfter('file', () => server.stop());
    const proxy = await TcpProxy.start(server.url);
    const processes = await startStack({ gateways: 1, workers: 0, env: { REDIS_URL: proxy.url } });
    const direct = await openLeases({ ...processes.addresses, redisUrl: server.url });
    const { token, userId } = mintToken({}, { stack: processes.addresses });
    const client = await openClient({ url: nodeUrl(0, processes.addresses), token });
    await client.welcome();
    // The replies of Redis do not arrive, so that the second message waits for the first.
    proxy.hold();
    client.send('agent_request', { message: 'hello', request_id: 'req_1' });
    client.send('agent_cancel', { run_id: derivedId('run', userId, 'req_1') });
    await until(async () => (await direct.redis.exists(runKey(userId, 'req_1', direct))) === 1, { label: 'the run' });
    await client.close();
    await until(async () => (await direct.live(userId)).length === 0, { timeoutMs: 2_000, label: 'the release' });
    expect(await isCancelled(userId, direct)).toBe(false);
    proxy.release();
    await until(() => isCancelled(userId, direct), { label: 'the cancellation' });
  });
});
