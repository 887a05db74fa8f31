import { beforeAll, describe, expect, it } from '@jest/globals';
import { openClient, TRANSPORTS, type TransportName } from '../support/clients.ts';
import { type Leases, openLeases } from '../support/leases.ts';
import { nodeUrl } from '../support/nodes.ts';
import { openRawSocket } from '../support/raw-socket.ts';
import { startStack } from '../support/stack.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

let leases: Leases;

beforeAll(async () => {
  leases = await openLeases();
});

describe.each(TRANSPORTS)('a connection over %s that its client', (transport) => {
  it('B14 closes is gone from the registry, and the next one works', async () => {
    const { token, userId } = mintToken();
    const client = await openClient({ transport, token });
    const { connection_id } = await client.welcome();
    expect(await leases.live(userId)).toEqual([connection_id]);
    await client.close();
    await leases.untilReleased(userId);
    const next = await openClient({ transport, token });
    expect((await next.welcome()).connection_id).not.toBe(connection_id);
  });

  it('B14 drops without a close frame leaves the registry too', async () => {
    const { token, userId } = mintToken();
    const client = await openClient({ transport, token });
    await client.welcome();
    client.terminate();
    await leases.untilReleased(userId);
  });

  it('B26 opens and closes five times in a row leaves nothing behind, and three more find room', async () => {
    const { token, userId } = mintToken();
    for (let cycle = 0; cycle < 5; cycle++) {
      const client = await openClient({ transport, url: nodeUrl(cycle % 3), token });
      if (cycle % 2) client.terminate();
      else await client.close();
    }
    await leases.untilReleased(userId);
    const clients = await Promise.all([0, 1, 2].map((node) => openClient({ transport, url: nodeUrl(node), token })));
    for (const client of clients) {
      client.send('ping');
      await client.waitFor('pong');
      expect(client.events.map(({ type }) => type)).not.toContain('error');
    }
  });
});

describe('the registry', () => {
  it('B34 holds nothing of users whose clients have gone, however they went', async () => {
    const users = Array.from({ length: 6 }, () => mintToken());
    const transports: TransportName[] = ['ws', 'socketio'];
    await Promise.all(
      users.map(async ({ token }, at) => {
        const clients = await Promise.all(
          [0, 1, 2, 0].map((node) => {
            const transport = transports[(at + node) % 2] as TransportName;
            return openClient({ transport, url: nodeUrl(node), token });
          }),
        );
        // Before, while and after they receive the eviction by the fourth.
        await Promise.all(clients.map((client, i) => ((at + i) % 2 ? client.close() : client.terminate())));
      }),
    );
    for (const { userId } of users) await leases.untilReleased(userId);
  });

  it('B26 holds nothing of sockets that were cut in the middle of their handshake', async () => {
    const { token, userId } = mintToken();
    for (let i = 0; i < 10; i++) {
      const raw = openRawSocket({
        url: nodeUrl(i % 3),
        path: '/ws/secure',
        headers: { Authorization: `Bearer ${token}` },
      });
      // The first ones before the response to their upgrade, the last ones right after it.
      if (i < 5) await new Promise((resolve) => raw.socket.once('connect', resolve));
      else await raw.answer;
      raw.destroy();
    }
    const client = await openClient({ token });
    const { connection_id } = await client.welcome();
    await until(async () => (await leases.live(userId)).length === 1, { label: 'one lease' });
    expect(await leases.live(userId)).toEqual([connection_id]);
    await client.close();
    await leases.untilReleased(userId);
  });

  it('B34 keeps a connection in it as long as it lives, by renewing its lease', async () => {
    const { token, userId } = mintToken();
    const client = await openClient({ token });
    const { connection_id } = await client.welcome();
    const key = leases.keys.user(userId).leases;
    const first = Number(await leases.redis.zscore(key, String(connection_id)));
    await until(async () => Number(await leases.redis.zscore(key, String(connection_id))) > first + 1_500);
    expect(await leases.live(userId)).toEqual([connection_id]);
  });
});

describe('a gateway that is killed', () => {
  it('B34 leaves the registry when its leases expire, and no lease remains', async () => {
    const processes = await startStack({ gateways: 2, workers: 0, env: { CONNECTION_LEASE_SECONDS: '2' } });
    const of = processes.addresses;
    const there = await openLeases(of);
    const { token, userId } = mintToken({}, { stack: of });
    const lost = await Promise.all(
      TRANSPORTS.map((transport) => openClient({ transport, url: nodeUrl(0, of), token })),
    );
    const survivor = await openClient({ url: nodeUrl(1, of), token });
    const { connection_id } = await survivor.welcome();
    for (const client of lost) await client.welcome();
    expect(await there.live(userId)).toHaveLength(3);

    await processes.gateways[0]?.kill('SIGKILL');
    const watch = await Stopwatch.start();
    await until(async () => (await there.live(userId)).length === 1, { label: 'the leases of the dead' });
    expect(watch.ms).toBeLessThan(watch.allow(4_000));
    expect(await there.live(userId)).toEqual([connection_id]);

    const fresh = await Promise.all([1, 1].map((node) => openClient({ url: nodeUrl(node, of), token })));
    for (const client of [survivor, ...fresh]) {
      client.send('ping');
      await client.waitFor('pong');
      expect(client.events.map(({ type }) => type)).not.toContain('error');
    }
    expect(await there.live(userId)).toHaveLength(3);
  });
});
