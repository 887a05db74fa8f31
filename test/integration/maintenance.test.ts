import { beforeAll, describe, expect, it } from '@jest/globals';
import { Queue } from 'bullmq';
import { systemClock } from '../../src/lib/clock.ts';
import { Closers } from '../../src/lib/closers.ts';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { queuedTasks, startMaintenance } from '../../workers/maintenance.ts';
import { PeriodicTasks } from '../../workers/periodic-tasks.ts';
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

const openQueue = () => new Queue('maintenance', { connection: core.redis, prefix: core.keys.queues });

/** Starts a worker that adds jobs for a task and processes them, until the end of the test. */
async function startWorker(run: () => Promise<unknown>): Promise<Queue> {
  const { redis, keys } = core;
  const deps = { redis, keys, clock: systemClock, logger: silentLogger };
  const blocking = await connectRedis(testRedisUrl(), 'blocking', silentLogger);
  const queue = openQueue();
  const closers = new Closers();
  const queueWorkers = new QueueWorkers({ ...deps, blocking, prefix: keys.queues });
  const tasks = [{ name: 'count', everyMs: PERIOD_MS, run }];
  const periodic = new PeriodicTasks(deps, queuedTasks(queue, tasks));
  closers.add('redis', () => disconnectRedis(blocking));
  closers.add('queue', () => queue.close());
  closers.add('workers', () => Promise.all([queueWorkers.close(), periodic.close()]));
  closeAfter('test', () => closers.close());
  await startMaintenance({ queueWorkers, queue }, tasks);
  periodic.start();
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

  it('goes on after Redis lost its data', async () => {
    let runs = 0;
    const run = async () => {
      runs += 1;
    };
    await startWorker(run);
    await until(() => runs > 0);
    await core.redis.del(...(await core.redis.keys(`${core.keys.queues}:maintenance*`)), core.keys.periodicTasks);
    const before = runs;
    await until(() => runs > before + 1);
  });

  it('follows the clock of Redis when the clock of a worker goes ahead and back', async () => {
    let runs = 0;
    const run = async () => {
      runs += 1;
    };
    await startWorker(run);
    await until(() => runs > 0);
    const { now } = Date;
    Date.now = () => now() + 300_000;
    try {
      const before = runs;
      await until(() => runs > before + 2);
    } finally {
      Date.now = now;
    }
    const before = runs;
    await until(() => runs > before + 2);
  });

  it('is not also scheduled by the job scheduler of an earlier version', async () => {
    const queue = openQueue();
    closeAfter('test', () => queue.close());
    await queue.upsertJobScheduler('count', { every: PERIOD_MS }, { name: 'count' });
    await startWorker(async () => undefined);
    expect(await queue.getJobSchedulers()).toEqual([]);
  });

  it('is added at most 20 times while no worker processes it', async () => {
    const queue = openQueue();
    closeAfter('test', () => queue.close());
    await queue.obliterate({ force: true });
    const [task] = queuedTasks(queue, [{ name: 'count', everyMs: PERIOD_MS, run: async () => undefined }]);
    for (let i = 0; i < 25; i++) await task?.run();
    expect(await queue.getWaitingCount()).toBe(20);
  });
});
