import { expect, it } from '@jest/globals';
import { freePorts, LOOPBACK } from '../../scripts/lib/ports.ts';
import { UserLogWriter } from '../../src/events/user-log-writer.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { connectRedis, disconnectRedis, masters } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { LOG_BYTES, silentLogger, thinking } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { RedisProcess } from '../support/redis-process.ts';
import { until } from '../support/until.ts';

it('leaves a demoted master at the first write that it refuses, which returns OVERLOADED', async () => {
  const ports = await freePorts(2);
  const [demoted, other] = await Promise.all(
    ports.map(async (port) => {
      const redis = await RedisProcess.start({ port, settings: [['port', String(port)]] });
      closeAfter('test', () => redis.close());
      return redis;
    }),
  );
  const redis = await connectRedis(`redis://${LOOPBACK}:${demoted?.port}`, 'commands', silentLogger);
  closeAfter('test', () => disconnectRedis(redis));
  const log = new UserLogWriter(
    { redis, keys: new Keys('t'), metrics: new Metrics(), tracing: NO_TRACING },
    { length: 10, maxAgeMs: 60_000, maxBytes: LOG_BYTES },
  );
  await log.append({ userId: 'user', events: [thinking('before')] });
  const [connection] = masters(redis);
  const before = await connection?.client('ID');

  await demoted?.ask((server) => server.replicaof(LOOPBACK, other?.port ?? 0));
  await expect(log.append({ userId: 'user', events: [thinking('refused')] })).rejects.toMatchObject({
    code: 'OVERLOADED',
  });
  // The client opens a new connection, which with a managed Redis leads to the new master.
  const isAnother = async () => (await connection?.client('ID')) !== before;
  await until(isAnother, { label: 'another connection' });
  await demoted?.ask((server) => server.replicaof('NO', 'ONE'));
  await until(() => log.append({ userId: 'user', events: [thinking('after')] }), { label: 'a master again' });
});
