import { beforeAll, describe, expect, it } from '@jest/globals';
import { Queue } from 'bullmq';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { Closers } from '../../src/lib/closers.ts';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { startMaintenance } from '../../workers/maintenance.ts';
import { QueueWorkers } from '../../workers/queue-workers.ts';
import { type Core, silentLogger, startCore } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { testRedisUrl } from '../support/stack.ts';
import { until } from '../support/until.ts';

const PERIOD_MS = 300;

let core: Core;

beforeAll(async () => {
  core = await startCore();
});

/** Starts the maintenance jobs of one worker. Schedules are written again every `againMs`. */
async function startWorker(run: () => Promise<unknown>, againMs = 60_000): Promise<Queue> {
  const { redis, keys } = core;
  const clock: Clock = { ...systemClock, every: (_ms, action) => systemClock.every(againMs, action) };
  const blocking = await connectRedis(testRedisUrl(), 'blocking', silentLogger);
  const queue = new Queue('maintenance', { connection: redis, prefix: keys.queues });
  const closers = new Closers();
  const queueWorkers = new QueueWorkers({ blocking, prefix: keys.queues, clock: systemClock, logger: silentLogger });
  closers.add('redis', () => disconnectRedis(blocking));
  closers.add('queue', () => queue.close());
  closers.add('workers', () => queueWorkers.close());
  closeAfter('test', () => closers.close());
  const deps = { queueWorkers, openQueue: () => queue, redis, clock, logger: silentLogger, closers };
  await startMaintenance(deps, [{ name: 'count', everyMs: PERIOD_MS, run }]);
  return queue;
}

describe('A maintenance job', () => {
  it('runs on one of the workers per period, and goes on after a failure', async () => {
    const startedAt: number[] = [];
    const run = async () => {
      startedAt.push(performance.now());
      if (startedAt.length === 2) throw new Error('fails once');
    };
    const [queue] = await Promise.all([startWorker(run), startWorker(run), startWorker(run)]);
    await until(() => startedAt.length >= 6);
    const elapsed = (startedAt.at(-1) ?? 0) - (startedAt[0] ?? 0);
    // Three workers with a job each would run 16 times in this time.
    expect(elapsed).toBeGreaterThan(4 * PERIOD_MS);
    expect((await queue?.getFailed())?.map(({ failedReason }) => failedReason)).toEqual(['fails once']);
  });

  it('is scheduled again after Redis lost its data', async () => {
    let runs = 0;
    const run = async () => {
      runs += 1;
    };
    await startWorker(run, 200);
    await until(() => runs > 0);
    const all = await core.redis.keys(`${core.keys.queues}:maintenance*`);
    await core.redis.del(...all);
    const before = runs;
    await until(() => runs > before + 1);
  });
});
