import { expect, it } from '@jest/globals';
import { Queue } from 'bullmq';
import { startRedisServer } from '../../scripts/lib/redis-server.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { TcpLink } from '../../torture/lib/links.ts';
import { QueueWorkers } from '../../workers/queue-workers.ts';
import { silentLogger } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { until } from '../support/until.ts';

const itInLongForm = process.env.FAULT_ROUNDS === undefined ? it.skip : it;

itInLongForm(
  'a worker continues its maintenance jobs after all of its connections to Redis have become half-open',
  async () => {
    const server = await startRedisServer();
    closeAfter('test', () => server.stop());
    const link = await TcpLink.start(server.port);
    closeAfter('test', () => link.close());
    const blocking = await connectRedis(`redis://127.0.0.1:${link.port}`, 'blocking', silentLogger);
    closeAfter('test', () => disconnectRedis(blocking));
    const commands = await connectRedis(server.url, 'commands', silentLogger);
    closeAfter('test', () => disconnectRedis(commands));
    const workers = new QueueWorkers({ blocking, prefix: 'p', clock: systemClock, logger: silentLogger });
    closeAfter('test', () => workers.close());
    let jobs = 0;
    await workers.start('maintenance', async () => ++jobs, {});
    const queue = new Queue('maintenance', { connection: commands, prefix: 'p' });
    closeAfter('test', () => queue.close());
    await queue.upsertJobScheduler('sweep', { every: 500 }, { name: 'sweep' });
    await until(() => jobs > 2);
    link.abandon();
    const before = jobs;
    await until(() => jobs > before + 2, { timeoutMs: 40_000 });
    expect(blocking.status).toBe('ready');
  },
  60_000,
);
