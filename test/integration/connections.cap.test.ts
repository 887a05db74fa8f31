import { beforeAll, describe, expect, it } from '@jest/globals';
import { openClient, type TestClient, TRANSPORTS, type TransportName } from '../support/clients.ts';
import { type Leases, openLeases } from '../support/leases.ts';
import { nodeUrl } from '../support/nodes.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

let leases: Leases;

beforeAll(async () => {
  leases = await openLeases();
});

async function connectionId(client: TestClient): Promise<string> {
  return String((await client.welcome()).connection_id);
}

/** Opens connections of one user one after the other, each on the node of that number. */
async function openOn(nodes: readonly number[], token: string, transport: TransportName): Promise<TestClient[]> {
  const clients: TestClient[] = [];
  for (const node of nodes) {
    const client = await openClient({ transport, url: nodeUrl(node), token });
    await client.welcome();
    clients.push(client);
  }
  return clients;
}

/** Expects that a client received the error with the reason, and was then closed. */
async function expectEvicted(client: TestClient | undefined, transport: TransportName): Promise<void> {
  const error = await client?.waitFor('error');
  expect(error?.fields).toMatchObject({ code: 'CONNECTION_LIMIT_EXCEEDED', retryable: false });
  const closed = await client?.closed;
  if (transport === 'ws') expect(closed).toEqual({ code: 4001, reason: 'CONNECTION_LIMIT_EXCEEDED' });
  // With this reason a Socket.IO client does not reconnect by itself.
  else expect(closed?.reason).toBe('io server disconnect');
}

async function expectAlive(clients: readonly TestClient[]): Promise<void> {
  for (const client of clients) {
    client.send('ping');
    await client.waitFor('pong');
  }
}

describe.each(TRANSPORTS)('the fourth connection of a user over %s', (transport) => {
  it.each([
    ['one node', [0, 0, 0, 0]],
    ['three nodes', [0, 1, 2, 1]],
  ])('B12 closes the oldest and leaves three, on %s', async (_where, nodes) => {
    const { token, userId } = mintToken();
    const [oldest, ...others] = await openOn(nodes, token, transport);
    await expectEvicted(oldest, transport);
    await expectAlive(others);
    const expected = await Promise.all(others.map(connectionId));
    expect((await leases.live(userId)).toSorted()).toEqual(expected.toSorted());
  });

  it('B12 closes the one that was admitted first, whatever order they are used in', async () => {
    const { token } = mintToken();
    const [first, second, third] = await openOn([0, 1, 2], token, transport);
    await expectAlive([first, third, second, first].filter((client) => client !== undefined));
    const [fourth, fifth] = await openOn([0, 1], token, transport);
    await expectEvicted(first, transport);
    await expectEvicted(second, transport);
    await expectAlive([third, fourth, fifth].filter((client) => client !== undefined));
  });
});

describe('the cap', () => {
  it('B12 counts all transports and endpoints of a user together', async () => {
    const { token, userId } = mintToken();
    const oldest = await openClient({ path: '/ws', token });
    await oldest.welcome();
    const others = [
      await openClient({ transport: 'socketio', url: nodeUrl(1), token }),
      await openClient({ path: `/ws/v1/${userId}`, url: nodeUrl(2), token }),
      await openClient({ path: '/ws', url: nodeUrl(1), token }),
    ];
    await expectEvicted(oldest, 'ws');
    await expectAlive(others);
    expect(await leases.live(userId)).toHaveLength(3);
  });

  it('B12 holds for a connection that authenticates in band', async () => {
    const { token } = mintToken();
    const [oldest, ...others] = await openOn([0, 1, 2], token, 'ws');
    const late = await openClient({ path: '/ws', url: nodeUrl(1) });
    await late.welcome();
    await expectAlive([late]);
    late.send('auth', { token });
    await late.waitFor('auth_success');
    await expectEvicted(oldest, 'ws');
    await expectAlive(others);
  });

  it('B12 is exact when twelve connections come at once to three nodes', async () => {
    const { token, userId } = mintToken();
    const clients = await Promise.all(
      Array.from({ length: 12 }, (_, i) => {
        return openClient({ transport: TRANSPORTS[i % 2] as TransportName, url: nodeUrl(i % 3), token });
      }),
    );
    // Over Socket.IO, a client that was evicted before its welcome never was connected.
    const evicted = ({ events, refusal }: TestClient) => {
      const codes = [refusal?.data?.code, ...events.map(({ fields }) => fields.code)];
      return codes.includes('CONNECTION_LIMIT_EXCEEDED');
    };
    await until(() => clients.filter(evicted).length === 9, { label: 'nine evictions' });
    const open = clients.filter((client) => !evicted(client));
    await expectAlive(open);
    const ids = await Promise.all(open.map(connectionId));
    expect(ids.toSorted()).toEqual((await leases.live(userId)).toSorted());
  });

  it('B12 leaves the connections of other users alone', async () => {
    const [one, other] = [mintToken(), mintToken()];
    const kept = await openOn([0, 0, 0], other.token, 'ws');
    await openOn([0, 0, 0, 0], one.token, 'ws');
    await expectAlive(kept);
  });

  it('B24 lets three connections of a user in that come at once, and welcomes each', async () => {
    const { token, userId } = mintToken();
    const clients = await Promise.all([0, 1, 2].map((node) => openClient({ url: nodeUrl(node), token })));
    const welcomes = await Promise.all(clients.map((client) => client.welcome()));
    for (const welcome of welcomes) expect(welcome).toMatchObject({ user_id: userId, authenticated: true });
    expect(new Set(welcomes.map(({ connection_id }) => connection_id)).size).toBe(3);
    await expectAlive(clients);
  });
});
