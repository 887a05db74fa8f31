import { beforeAll, describe, expect, it } from '@jest/globals';
import { openClient, type TestClient, TRANSPORTS } from '../support/clients.ts';
import { reportMs } from '../support/figures.ts';
import { type Leases, openLeases } from '../support/leases.ts';
import { nodeUrl } from '../support/nodes.ts';
import { useStack } from '../support/stack.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** `npm run faults` sets fifty. */
const ROUNDS = Math.ceil(Number(process.env.FAULT_ROUNDS ?? 2) / 5);
const LEASE_SECONDS = { short: 3, long: 30 } as const;

async function connectionId(client: TestClient | undefined): Promise<string> {
  return String((await client?.welcome())?.connection_id);
}

function useLeases(stack: ReturnType<typeof useStack>): () => Leases {
  let leases: Leases;
  beforeAll(async () => {
    leases = await openLeases(stack().addresses);
  });
  return () => leases;
}

describe('the places that a killed node held', () => {
  const stack = useStack({
    gateways: 2,
    workers: 0,
    env: { CONNECTION_LEASE_SECONDS: `${LEASE_SECONDS.short}` },
  });
  const leases = useLeases(stack);

  it(
    `B12 B34 are free when its leases end, at the latest (${ROUNDS} rounds)`,
    async () => {
      const freedMs: number[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        const of = stack().addresses;
        const { token, userId } = mintToken({}, { stack: of });
        const evicted = await Promise.all([0, 1, 0].map((at) => openOn(0, TRANSPORTS[at] ?? 'ws', token)));
        for (const client of evicted) await client.welcome();
        const watch = await Stopwatch.start();
        await stack().gateways[0]?.kill('SIGKILL');
        const killedAt = performance.now();
        expect(await leases().live(userId)).toHaveLength(3);
        await until(async () => (await leases().live(userId)).length === 0, { label: 'the places to be free' });
        freedMs.push(performance.now() - killedAt);
        // Beyond the lease: the duration of a check.
        expect(freedMs.at(-1)).toBeLessThan(watch.allow(LEASE_SECONDS.short * 1_000 + 250));
        await stack().gateways[0]?.start();
      }
      reportMs('places of a killed node were free after', freedMs);
    },
    30_000 + ROUNDS * 15_000,
  );

  function openOn(node: number, transport: (typeof TRANSPORTS)[number], token: string): Promise<TestClient> {
    return openClient({ transport, token, url: nodeUrl(node, stack().addresses) });
  }
});

describe('a connection on a node that lives', () => {
  const stack = useStack({
    gateways: 3,
    workers: 0,
    env: { CONNECTION_LEASE_SECONDS: `${LEASE_SECONDS.long}` },
  });
  const leases = useLeases(stack);

  it(
    `B12 keeps the oldest connection when clients of a killed node reconnect before its leases expire (${ROUNDS} rounds)`,
    async () => {
      for (let round = 0; round < ROUNDS; round++) {
        const of = stack().addresses;
        const { token, userId } = mintToken({}, { stack: of });
        const open = (node: number) => openClient({ token, url: nodeUrl(node, of) });
        const oldest = await open(1);
        await oldest.welcome();
        for (const client of [await open(0), await open(0)]) await client.welcome();
        await stack().gateways[0]?.kill('SIGKILL');

        const back = await Promise.all([open(1), open(2)]);
        const expected = await Promise.all([oldest, ...back].map(connectionId));
        expect((await leases().live(userId)).toSorted()).toEqual(expected.toSorted());
        oldest.send('ping');
        await oldest.waitFor('pong');
        // The cap is unchanged: the next connection evicts the oldest.
        await open(2);
        expect(await oldest.closed).toEqual({ code: 4001, reason: 'CONNECTION_LIMIT_EXCEEDED' });
        await stack().gateways[0]?.start();
      }
    },
    30_000 + ROUNDS * 10_000,
  );

  it('B12 loses it, as the oldest, while the node with the others only sleeps', async () => {
    const of = stack().addresses;
    const { token } = mintToken({}, { stack: of });
    const open = (node: number) => openClient({ token, url: nodeUrl(node, of) });
    const oldest = await open(1);
    await oldest.welcome();
    const asleep = [await open(0), await open(0)];
    for (const client of asleep) await client.welcome();
    const pid = stack().gateways[0]?.pid ?? 0;
    process.kill(pid, 'SIGSTOP');
    try {
      await open(2);
      expect(await oldest.closed).toEqual({ code: 4001, reason: 'CONNECTION_LIMIT_EXCEEDED' });
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    for (const client of asleep) {
      client.send('ping');
      await client.waitFor('pong');
    }
  });
});
