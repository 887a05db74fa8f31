import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { Queue, type QueueOptions } from 'bullmq';
import { freePorts, LOOPBACK } from '../../scripts/lib/ports.ts';
import { UserLogWriter } from '../../src/events/user-log-writer.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import type { ConnectionRole } from '../../src/redis/options.ts';
import { QueueWorkers } from '../../workers/queue-workers.ts';
import { LOG_BYTES, silentLogger, thinking } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { RedisProcess } from '../support/redis-process.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';
import { until } from '../support/until.ts';

describe('a master that becomes a replica, behind one address as with a managed Redis', () => {
  let demoted: RedisProcess;
  let promoted: RedisProcess;
  let proxy: TcpProxy;

  beforeAll(async () => {
    const start = async (port: number) => {
      const redis = await RedisProcess.start({
        port,
        settings: [
          ['port', String(port)],
          ['repl-diskless-sync-delay', '0'],
        ],
      });
      closeAfter('file', () => redis.close());
      return redis;
    };
    const [one = 0, other = 0] = await freePorts(2);
    [demoted, promoted] = await Promise.all([start(one), start(other)]);
    proxy = await TcpProxy.start(urlOf(demoted));
  });

  beforeEach(async () => {
    proxy.redirect(urlOf(demoted));
    await demoted.ask((redis) => redis.replicaof('NO', 'ONE'));
    await promoted.ask((redis) => redis.replicaof(LOOPBACK, demoted.port));
    await until(() => promoted.ask(async (redis) => (await redis.info('replication')).includes('link_status:up')), {
      timeoutMs: 20_000,
    });
  });

  async function connect(role: ConnectionRole): Promise<Redis> {
    const redis = await connectRedis(proxy.url, role, silentLogger);
    closeAfter('test', () => disconnectRedis(redis));
    return redis;
  }

  /** Exchanges the roles. Connections to the demoted master stay open, and new ones lead to the promoted one. */
  async function failOver(): Promise<void> {
    await promoted.ask((redis) => redis.replicaof('NO', 'ONE'));
    proxy.redirect(urlOf(promoted));
    await demoted.ask((redis) => redis.replicaof(LOOPBACK, promoted.port));
  }

  it('is left at the first write that it refuses, which returns OVERLOADED', async () => {
    const redis = await connect('commands');
    const log = new UserLogWriter(
      { redis, keys: new Keys('t'), metrics: new Metrics(), tracing: NO_TRACING },
      { length: 10, maxAgeMs: 60_000, maxBytes: LOG_BYTES },
    );
    await log.append({ userId: 'user', events: [thinking('before')] });
    await failOver();
    await expect(log.append({ userId: 'user', events: [thinking('refused')] })).rejects.toMatchObject({
      code: 'OVERLOADED',
    });
    await until(() => log.append({ userId: 'user', events: [thinking('after')] }), { label: 'the promoted server' });
    expect(await redis.info('server')).toContain(`tcp_port:${promoted.port}`);
  });

  it.each(['commands', 'subscriber'] as const)(
    'is left by connections of the role %s that write nothing',
    async (role) => {
      const redis = await connect(role);
      const received: string[] = [];
      redis.on('smessage', (_channel, message) => received.push(message));
      await redis.ssubscribe('{t}');
      await failOver();
      // Replicas do not pass on what is published to them, so only the promoted server reaches this connection.
      await demoted.ask((server) => server.replicaof('NO', 'ONE'));
      await demoted.ask((server) => server.replicaof(LOOPBACK, 1));
      await until(
        async () => {
          await promoted.ask((server) => server.spublish('{t}', 'from the master'));
          return received.length > 0;
        },
        { timeoutMs: 10_000, label: 'a message of the promoted server' },
      );
    },
  );

  it('is left by the BullMQ workers that wait there for a job', async () => {
    const prefix = '{bull}';
    const blocking = await connect('blocking');
    const done: unknown[] = [];
    const workers = new QueueWorkers({ blocking, prefix, clock: systemClock, logger: silentLogger });
    closeAfter('test', () => workers.close());
    await workers.start('jobs', async ({ data }) => done.push(data), {});
    await failOver();
    const queue = new Queue('jobs', { connection: (await connect('commands')) as QueueOptions['connection'], prefix });
    closeAfter('test', () => queue.close());
    await queue.add('job', 'after the failover');
    await until(() => done.length > 0, { timeoutMs: 15_000, label: 'the job on the promoted server' });
    expect(done).toEqual(['after the failover']);
  }, 40_000);

  it('is refused at the start, with the reason', async () => {
    await failOver();
    proxy.redirect(urlOf(demoted));
    await expect(connect('commands')).rejects.toThrow(/the server is a replica/);
  }, 20_000);
});

function urlOf({ port }: RedisProcess): string {
  return `redis://${LOOPBACK}:${port}`;
}
