import { describe, expect, it } from '@jest/globals';
import { openClient, type TestClient, TRANSPORTS } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { useStack } from '../support/stack.ts';
import { mintToken, type PlanName } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const NODES = 3;
/** `npm run faults` sets fifty. */
const ROUNDS = Number(process.env.FAULT_ROUNDS ?? 2);

const LIMITS = { free: 30, pro: 60 } as const satisfies Partial<Record<PlanName, number>>;
const PLANS: readonly (keyof typeof LIMITS)[] = ['free', 'pro', 'free', 'free'];

const stack = useStack({ gateways: NODES, workers: 0 });

/** A user with a socket on every node. */
interface User {
  readonly limit: number;
  readonly clients: readonly TestClient[];
}

async function openUser(plan: keyof typeof LIMITS): Promise<User> {
  const { token } = mintToken({ plan }, { stack: stack().addresses });
  const clients = await Promise.all(
    Array.from({ length: NODES }, (_, node) => {
      const transport = TRANSPORTS[Math.floor(Math.random() * TRANSPORTS.length)] ?? 'ws';
      return openClient({ transport, token, url: nodeUrl(node, stack().addresses) });
    }),
  );
  for (const client of clients) await client.welcome();
  return { limit: LIMITS[plan], clients };
}

function answers(client: TestClient) {
  return client.events.filter(({ type }) => type === 'pong' || type === 'error');
}

/** Sends one and a half times the limit, each message to a random node; resolves when all have been answered. */
async function shout({ limit, clients }: User): Promise<void> {
  const sent = Math.ceil(limit * 1.5);
  for (let i = 0; i < sent; i++) {
    clients[Math.floor(Math.random() * NODES)]?.send('ping', { timestamp: i });
    // Occasional pauses let the nodes answer, so that later messages meet counters that other nodes have changed.
    if (Math.random() < 0.2) await new Promise((resolve) => setImmediate(resolve));
  }
  await until(() => clients.flatMap(answers).length === sent, { label: `${sent} answers` });
}

function expectExact({ limit, clients }: User): void {
  const all = clients.flatMap(answers);
  expect(all.filter(({ type }) => type === 'pong')).toHaveLength(limit);
  for (const { type, fields } of all) if (type === 'error') expect(fields.code).toBe('RATE_LIMITED');
}

async function expectRefusedEverywhere({ clients }: User): Promise<void> {
  for (const client of clients) {
    const from = client.mark();
    client.send('ping');
    const { fields } = await client.waitFor(({ type }) => type === 'error' || type === 'pong', { from });
    expect(fields).toMatchObject({ code: 'RATE_LIMITED', retryable: true });
    expect(fields.retry_after_ms).toBeLessThanOrEqual(60_000);
  }
}

describe('users with a socket on each of three nodes', () => {
  it(
    `B18 get exactly as many messages as their plans have, and the next is refused by every node (${ROUNDS} rounds)`,
    async () => {
      for (let round = 0; round < ROUNDS; round++) {
        const users = await Promise.all(PLANS.map(openUser));
        await Promise.all(users.map(shout));
        for (const user of users) {
          expectExact(user);
          await expectRefusedEverywhere(user);
        }
        await Promise.all(users.flatMap(({ clients }) => clients.map((client) => client.close())));
      }
    },
    30_000 + ROUNDS * 5_000,
  );
});
