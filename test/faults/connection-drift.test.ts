import { describe, expect, it } from '@jest/globals';
import { connectBy, TRANSPORT_KINDS } from '../support/capped-clients.ts';
import { INSPECTED, inspectorUrl, liveHeapBytes } from '../support/heap.ts';
import { type Leases, openLeases } from '../support/leases.ts';
import { scrape, total } from '../support/metrics.ts';
import { closeTestResources } from '../support/open-resources.ts';
import { type StackProcesses, useStack } from '../support/stack.ts';
import { buyTicket } from '../support/tickets.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const NODES = 3;
/** `npm run faults` asks for ten thousand. */
const CONNECTS = Number(process.env.FAULT_CONNECTS ?? 500);
/** Before the first measurement: code is compiled, pools and caches have their size. */
const WARM_UP = Math.max(250, CONNECTS / 5);
const AT_ONCE = 25;
/** Between two of them the clients of this test are let go. */
const BATCH = 500;
/** Of a batch: as many as that some are evicted, and that a ticket is to be had for everybody, thirty a minute. */
const USERS = 40;
/** What a connect may leave on a node's heap. A lease's worth of objects, kept by mistake, is some kilobytes. */
const HEAP_BYTES_PER_CONNECT = 256;
/** What a node's heap differs by from measurement to measurement, whatever it did. */
const HEAP_NOISE_BYTES = 2 * 1024 * 1024;

const stack = useStack({ gateways: NODES, workers: 0, env: INSPECTED });

/** Connects by one of the roads, and ends it: in order, without a word, or before it is known what became of it. */
async function comeAndGo(number: number, token: string): Promise<void> {
  const transport = TRANSPORT_KINDS[number % TRANSPORT_KINDS.length] ?? 'header';
  const url = stack().gateways[Math.floor(Math.random() * NODES)]?.url ?? '';
  const ticket = transport === 'ticket' ? await buyTicket(token, { url }) : undefined;
  const { client } = await connectBy(transport, url, token, ticket);
  const end = number % 5;
  // Also an eviction is an end of the wait: there are more clients than places.
  if (end < 3) await Promise.race([client.waitFor('connection_established').catch(() => undefined), client.closed]);
  if (end % 2 === 0) await client.close();
  // A client of Socket.IO comes back from this, until its batch is over.
  else client.terminate();
  await client.closed;
}

/** Connects of users that nobody has heard of before. @returns the users */
async function comeAndGoBatch(count: number): Promise<string[]> {
  const users = Array.from({ length: USERS }, () => mintToken({}, { stack: stack().addresses }));
  let next = 0;
  const one = async () => {
    while (next < count) {
      const number = next++;
      await comeAndGo(number, users[Math.floor(Math.random() * USERS)]?.token ?? '');
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
  await closeTestResources();
  return users.map(({ userId }) => userId);
}

async function comeAndGoAll(count: number): Promise<string[]> {
  const userIds: string[] = [];
  for (let left = count; left > 0; left -= BATCH) userIds.push(...(await comeAndGoBatch(Math.min(left, BATCH))));
  return userIds;
}

/** Channels of users, nodes' own left out, that anybody of this stack still listens to. */
async function userChannels({ redis, keys }: Leases): Promise<string[]> {
  const open = (await redis.call('PUBSUB', 'SHARDCHANNELS', `${keys.prefix}:*`)) as string[];
  return open.filter((name) => name.endsWith(':live'));
}

async function expectNothingLeft(leases: Leases, userIds: readonly string[], url: string): Promise<void> {
  for (const userId of userIds) await leases.untilReleased(userId);
  await until(async () => (await userChannels(leases)).length === 0, { label: 'no channel of a user' });
  for (const gauge of ['tollgate_connections', 'tollgate_pending_connections']) {
    const zero = async () => [...(await scrape(url, gauge)).values()].every((value) => value === 0);
    await until(zero, { label: `${gauge} at zero` });
  }
}

async function rssOf({ gateways }: StackProcesses): Promise<string> {
  const all = await Promise.all(gateways.map(({ url }) => total(url, 'tollgate_process_resident_memory_bytes')));
  return all.map((bytes) => `${(bytes / 1_048_576).toFixed(0)}`).join(', ');
}

describe('connects and disconnects over three nodes', () => {
  it(
    `B14 B26 B34 leave nothing: no lease, no subscription, no count, no memory (${CONNECTS} of them)`,
    async () => {
      const { gateways, addresses } = stack();
      const inspectors = gateways.map(inspectorUrl);
      const leases = await openLeases(addresses);
      await comeAndGoAll(WARM_UP);
      const before = await Promise.all(inspectors.map(liveHeapBytes));
      const rssBefore = await rssOf(stack());

      const startedAt = performance.now();
      const userIds = await comeAndGoAll(CONNECTS);
      const seconds = (performance.now() - startedAt) / 1_000;
      for (const { url } of gateways) await expectNothingLeft(leases, userIds, url);

      const after = await Promise.all(inspectors.map(liveHeapBytes));
      const grown = after.map((bytes, node) => bytes - (before[node] ?? 0));
      process.stdout.write(
        `${CONNECTS} connects and disconnects: ${(CONNECTS / seconds).toFixed(0)}/s; heap grown by ` +
          `${grown.map((bytes) => (bytes / 1_024).toFixed(0)).join(', ')} KiB; RSS ${rssBefore} → ${await rssOf(stack())} MiB\n`,
      );
      const bound = HEAP_NOISE_BYTES + (HEAP_BYTES_PER_CONNECT * CONNECTS) / NODES;
      for (const bytes of grown) expect(bytes).toBeLessThan(bound);
    },
    60_000 + CONNECTS * 50,
  );
});
