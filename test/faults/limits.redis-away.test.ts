import { beforeAll, describe, expect, it } from '@jest/globals';
import { type RedisServer, startRedisServer } from '../../scripts/lib/redis-server.ts';
import { openClient, type TestClient } from '../support/clients.ts';
import { type Leases, openLeases } from '../support/leases.ts';
import { scrape } from '../support/metrics.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const NODES = [0, 1, 2] as const;
const LIMIT = 30;
const SENT = 15;

let server: RedisServer;
let stack: StackProcesses;
let leases: Leases;

beforeAll(async () => {
  server = await startRedisServer();
  closeAfter('file', () => server.stop());
  stack = await startStack({ gateways: NODES.length, workers: 0, env: { REDIS_URL: server.url } });
  leases = await openLeases({ ...stack.addresses, redisUrl: server.url });
});

/**
 * Waits until every node has renewed its lease once more with all of them alive, so that each knows the number of
 * nodes.
 */
async function nodesKnowEachOther(): Promise<void> {
  const announced = async () => {
    const flat = (await leases.redis.zrange(leases.keys.nodes, '-inf', '+inf', 'BYSCORE', 'WITHSCORES')).flat();
    return flat.filter((_, at) => at % 2 === 1).map(Number);
  };
  const first = await until(async () => {
    const ends = await announced();
    return ends.length === NODES.length ? Math.max(...ends) : undefined;
  });
  await until(async () => Math.min(...(await announced())) > first, {
    timeoutMs: 15_000,
    label: 'the next announcements',
  });
}

async function openOn(node: number, token: string): Promise<TestClient> {
  const client = await openClient({ token, url: nodeUrl(node, stack.addresses) });
  await client.welcome();
  return client;
}

/** Sends that many pings, and counts the pongs. */
async function granted(client: TestClient, messages: number): Promise<number> {
  const from = client.mark();
  for (let i = 0; i < messages; i++) client.send('ping');
  const answers = () => client.events.slice(from).filter(({ type }) => type === 'pong' || type === 'error');
  await until(() => answers().length === messages, { timeoutMs: 15_000, label: `${messages} answers` });
  return answers().filter(({ type }) => type === 'pong').length;
}

/** Returns how many messages a node has allowed, by the place of the counter. */
async function allowed(node: number, countedBy: 'node' | 'cluster'): Promise<number> {
  const decisions = await scrape(nodeUrl(node, stack.addresses), 'tollgate_limit_decisions_total');
  return decisions.get(`result="allowed",counted_by="${countedBy}"`) ?? 0;
}

async function countsByCluster(node: number, probe: TestClient | undefined): Promise<void> {
  const before = await allowed(node, 'cluster');
  await until(
    async () => {
      if (probe) await granted(probe, 1);
      return (await allowed(node, 'cluster')) > before;
    },
    { timeoutMs: 20_000, everyMs: 100, label: `node ${node} to ask Redis again` },
  );
}

describe('three nodes whose Redis hangs', () => {
  it('B18 grant a third of the limit each, count it in a metric, and allow no second burst afterwards', async () => {
    await nodesKnowEachOther();
    const users = [
      mintToken({ plan: 'free' }, { stack: stack.addresses }),
      mintToken({ plan: 'developer' }, { stack: stack.addresses }),
    ];
    const [clients = [], probes = []] = await Promise.all(
      users.map(({ token }) => Promise.all(NODES.map((node) => openOn(node, token)))),
    );
    server.process.kill('SIGSTOP');
    try {
      const shares = await Promise.all(clients.map((client) => granted(client, SENT)));
      expect(shares).toEqual(NODES.map(() => LIMIT / NODES.length));
      for (const node of NODES) expect(await allowed(node, 'node')).toBe(LIMIT / NODES.length);
    } finally {
      server.process.kill('SIGCONT');
    }
    const more: number[] = [];
    // Sends while the nodes reconnect, and after.
    await Promise.all(
      NODES.map(async (node) => {
        const back = countsByCluster(node, probes[node]);
        const client = clients[node];
        if (client) more.push(await granted(client, SENT));
        await back;
        if (client) more.push(await granted(client, SENT));
      }),
    );
    expect(more).toEqual([0, 0, 0, 0, 0, 0]);
  }, 90_000);
});
