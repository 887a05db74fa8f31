import { beforeAll, describe, expect, it } from '@jest/globals';
import { freePorts, LOOPBACK } from '../../scripts/lib/ports.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { silentLogger } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { RedisProcess } from '../support/redis-process.ts';
import { SentinelProcesses } from '../support/redis-sentinels.ts';
import { until } from '../support/until.ts';

const CONNECTIONS = 12;

describe('connections to the master that Sentinels name', () => {
  let sentinels: SentinelProcesses;

  beforeAll(async () => {
    sentinels = await SentinelProcesses.start();
    closeAfter('file', () => sentinels.close());
  }, 60_000);

  async function connect(url = sentinels.url): Promise<Redis> {
    const redis = await connectRedis(url, 'commands', silentLogger);
    closeAfter('test', () => disconnectRedis(redis));
    return redis;
  }

  /** Waits until each connection writes to the server that the Sentinels name. */
  async function writeTo(connections: readonly Redis[], master: { readonly port: number }): Promise<void> {
    const writes = async (redis: Redis) => {
      await redis.set('written', 'yes');
      const info = redis.isCluster ? '' : await redis.info('server');
      return String(info).includes(`tcp_port:${master.port}`);
    };
    await until(async () => (await Promise.all(connections.map(writes))).every(Boolean), {
      timeoutMs: 30_000,
      label: `${connections.length} connections that write to the new master`,
    });
  }

  it('reach the other Sentinels through one of them, and leave no connection to any when they are closed', async () => {
    const opened = () =>
      Promise.all(
        sentinels.sentinels.map((sentinel) =>
          sentinel.ask(async (redis) => String(await redis.client('LIST')).split('name=tollgate-sentinel ').length - 1),
        ),
      );
    const { port } = await sentinels.master();
    const connection = await connect(sentinels.url.replace(/,[^/]+/, ''));
    await writeTo([connection], { port });
    await until(async () => (await opened()).join() === '1,1,1', { label: 'a connection to each Sentinel' });
    await disconnectRedis(connection);
    await until(async () => (await opened()).join() === '0,0,0', { label: 'no connection to a Sentinel' });
  }, 60_000);

  it('all reach the new master when the old one was killed and a Sentinel hangs', async () => {
    const connections = await Promise.all(Array.from({ length: CONNECTIONS }, () => connect()));
    const [sentinel] = sentinels.sentinels;
    const before = await sentinels.master();
    // The first of the address: ioredis would wait for it most of the time, and miss no chance to end there.
    await sentinel?.kill('SIGSTOP');
    await before.kill('SIGKILL');
    const [, other] = sentinels.sentinels;
    const named = await until(
      async () => {
        const address = await other?.ask((redis) => redis.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', 'tollgate'));
        const port = Number((address as string[])[1]);
        return port === before.port ? undefined : { port };
      },
      { timeoutMs: 30_000, label: 'another master' },
    );
    await writeTo(connections, named);
    await sentinel?.kill('SIGCONT');
    await before.restart();
  }, 90_000);

  it('follow the latest failover, also if the first Sentinel was cut off and names the former master', async () => {
    // The failover of the test before.
    const [formerPort = 0, stalePort = 0] = await freePorts(2);
    const former = await RedisProcess.start({ port: formerPort, settings: [['port', String(formerPort)]] });
    closeAfter('test', () => former.close());
    const stale = await RedisProcess.start({
      port: stalePort,
      sentinel: true,
      settings: [
        ['port', String(stalePort)],
        ['sentinel', 'monitor', 'tollgate', LOOPBACK, String(formerPort), '2'],
      ],
    });
    closeAfter('test', () => stale.close());
    const connection = await connect(sentinels.url.replace('//', `//${LOOPBACK}:${stalePort},`));
    await writeTo([connection], await sentinels.master());
    expect(await former.ask((redis) => redis.exists('written'))).toBe(0);
  }, 60_000);
});
