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
/** `npm run faults` sets ten thousand. */
const CONNECTS = Number(process.env.FAULT_CONNECTS ?? 500);
/** Before the first measurement code is compiled and pools and caches reach their size. */
const WARM_UP = Math.max(250, CONNECTS / 5);
const AT_ONCE = 25;
/** After each batch the test's own clients are released. */
const BATCH = 500;
/**
 * Users per batch: few enough for evictions, and enough for one ticket per connect, of which a user gets thirty per
 * minute.
 */
const USERS = 40;
/** Bytes that a connect may leave on a node's heap. A leaked lease object takes several kilobytes. */
const HEAP_BYTES_PER_CONNECT = 256;
/** Variation of a node's heap between two measurements. */
const HEAP_NOISE_BYTES = 2 * 1024 * 1024;

const stack = useStack({ gateways: NODES, workers: 0, env: INSPECTED });

/**
 * Connects over one of the transports and ends the connection: with a close handshake, without one, or before the
 * outcome is known.
 */
async function comeAndGo(number: number, token: string): Promise<void> {
  const transport = TRANSPORT_KINDS[number % TRANSPORT_KINDS.length] ?? 'header';
  const url = stack().gateways[Math.floor(Math.random() * NODES)]?.url ?? '';
  const ticket = transport === 'ticket' ? await buyTicket(token, { url }) : undefined;
  const { client } = await connectBy(transport, url, token, ticket);
  const end = number % 5;
  // An eviction also ends the wait, because there are more clients than the cap allows.
  if (end < 3) await Promise.race([client.waitFor('connection_established').catch(() => undefined), client.closed]);
  if (end % 2 === 0) await client.close();
  // A Socket.IO client reconnects after this, until its batch ends.
  else client.terminate();
  await client.closed;
}

/** Connects new users. @returns the users */
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

/** Returns the user channels that any process of this stack subscribes to, without those of nodes. */
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
