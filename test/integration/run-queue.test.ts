import { beforeAll, describe, expect, it } from '@jest/globals';
import type { AgentRunJob } from '../../src/jobs.ts';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { newId } from '../../src/lib/ids.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import type { QueuedRun } from '../../src/runs/run-queue.ts';
import { StreamRunQueue } from '../../src/runs/stream-run-queue.ts';
import { TooManyTakeovers } from '../../workers/run-agent.ts';
import { RunConsumer } from '../../workers/run-consumer.ts';
import { silentLogger } from '../support/core.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { closeAfter } from '../support/open-resources.ts';
import { testRedisUrl } from '../support/stack.ts';
import { until } from '../support/until.ts';

let redis: Redis;

beforeAll(async () => {
  redis = await connectRedis(testRedisUrl(), 'commands', silentLogger);
  closeAfter('file', () => disconnectRedis(redis));
});

const EMPTY = { waiting: 0, active: 0 };
const TIMES = { lockMs: 400, takeoverCheckMs: 50 };

function newQueue() {
  const keys = new Keys(`q${newId('job')}`);
  return { key: keys.runQueue, queue: new StreamRunQueue({ redis, keys }) };
}

/** Adds jobs of new runs; returns their run ids. */
async function add(queue: StreamRunQueue, count: number): Promise<string[]> {
  const ids = Array.from({ length: count }, () => newId('run'));
  for (const run_id of ids) await queue.add({ user_id: 'user', run_id });
  return ids;
}

async function startConsumer(
  queue: StreamRunQueue,
  execute: (run: QueuedRun, takeovers: number) => Promise<unknown>,
  { clock = systemClock, ...options }: { concurrency?: number; clock?: Clock } = {},
) {
  const blocking = await connectRedis(testRedisUrl(), 'commands', silentLogger);
  closeAfter('test', () => disconnectRedis(blocking));
  const failed: AgentRunJob[] = [];
  const onFailed = async (job: AgentRunJob) => void failed.push(job);
  const isFinal = (error: unknown) => error instanceof TooManyTakeovers;
  const deps = { queue, blocking, clock, logger: silentLogger, execute, isFinal, onFailed };
  const consumer = new RunConsumer(deps, { concurrency: 5, ...TIMES, ...options });
  await consumer.start();
  closeAfter('test', () => consumer.close());
  return { consumer, failed };
}

const isEmpty = (queue: StreamRunQueue) => async () => {
  const counts = await queue.counts();
  return counts.waiting + counts.active === 0;
};

describe('the run queue', () => {
  it('delivers each run to one of several workers, and keeps none that ended', async () => {
    const { queue, key } = newQueue();
    const added = await add(queue, 40);
    expect(await queue.counts()).toEqual({ waiting: 40, active: 0 });
    const received: string[] = [];
    const execute = async ({ job }: QueuedRun) => void received.push(job.run_id);
    await Promise.all([startConsumer(queue, execute), startConsumer(queue, execute)]);
    await until(isEmpty(queue));
    expect(received.toSorted()).toEqual(added.toSorted());
    expect(await redis.xlen(key)).toBe(0);
  });

  it('removes the runs that end within a short time with one request', async () => {
    const { key, queue: adding } = newQueue();
    await add(adding, 20);
    await adding.prepare();
    const removed: number[] = [];
    const xdel = (stream: string, ...ids: string[]) => {
      removed.push(ids.length);
      return redis.xdel(stream, ...ids);
    };
    const counting: Redis = Object.assign(Object.create(redis), { xdel });
    const queue = new StreamRunQueue({ redis: counting, keys: new Keys(key.slice(0, key.indexOf(':'))) });
    const taken = await queue.take(redis, 20, 100);
    const ends: Promise<void>[] = [];
    for (const { id } of taken) {
      ends.push(queue.end(id));
      for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
    }
    await Promise.all(ends);
    expect(await queue.counts()).toEqual(EMPTY);
    expect(removed.reduce((sum, one) => sum + one, 0)).toBe(20);
    expect(removed.length).toBeLessThan(5);
  });

  it('executes no more runs at a time than its worker has slots', async () => {
    const { queue } = newQueue();
    await add(queue, 12);
    let executing = 0;
    let most = 0;
    const execute = async () => {
      executing += 1;
      most = Math.max(most, executing);
      await new Promise((resolve) => setTimeout(resolve, 20));
      executing -= 1;
    };
    await startConsumer(queue, execute, { concurrency: 3 });
    await until(isEmpty(queue));
    expect(most).toBe(3);
  });

  it('gives a run whose worker died to another one, and marks it as taken over', async () => {
    const { queue } = newQueue();
    const [runId] = await add(queue, 1);
    await queue.prepare();
    // The dead worker: it received the run, and neither renews nor ends it.
    expect((await queue.take(redis, 5, 100)).map(({ isTakenOver }) => isTakenOver)).toEqual([false]);
    expect(await queue.counts()).toEqual({ waiting: 0, active: 1 });
    const received: QueuedRun[] = [];
    await startConsumer(queue, async (run) => void received.push(run));
    await until(isEmpty(queue));
    expect(received.map(({ job, isTakenOver }) => [job.run_id, isTakenOver])).toEqual([[runId, true]]);
  });

  it.each(['ends', 'fails'] as const)(
    'keeps a run that was taken over until its new worker ends it: the old one %s',
    async (how) => {
      const { queue } = newQueue();
      await add(queue, 1);
      const [suspended, working] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
      // Its clock stands still, so it renews nothing.
      const clock = new ManualClock();
      const old = await startConsumer(queue, () => suspended.promise, { clock });
      await until(async () => (await queue.counts()).active === 1);
      let isTakenOver = false;
      await startConsumer(queue, (run) => {
        isTakenOver = run.isTakenOver;
        return working.promise;
      });
      closeAfter('test', () => working.resolve());
      await until(() => isTakenOver);
      clock.advance(TIMES.lockMs);
      if (how === 'ends') suspended.resolve();
      else suspended.reject(new TooManyTakeovers('run'));
      await old.consumer.close();
      expect(old.failed).toEqual([]);
      expect(await queue.counts()).toEqual({ waiting: 0, active: 1 });
      working.resolve();
      await until(isEmpty(queue));
    },
  );

  it('leaves a long run to the worker that renews it', async () => {
    const { queue } = newQueue();
    await add(queue, 1);
    let executions = 0;
    let end = () => undefined as unknown;
    const long = new Promise((resolve) => {
      end = () => resolve(undefined);
    });
    const execute = () => {
      executions += 1;
      return long;
    };
    await Promise.all([startConsumer(queue, execute), startConsumer(queue, execute)]);
    await until(() => executions === 1);
    await new Promise((resolve) => setTimeout(resolve, 3 * TIMES.lockMs));
    expect(executions).toBe(1);
    end();
    await until(isEmpty(queue));
  });

  it('tries a run three times without occupying a slot between, then reports it and drops it', async () => {
    const { queue } = newQueue();
    const [broken, sound] = await add(queue, 2);
    const attempts: string[] = [];
    const execute = async ({ job }: QueuedRun) => {
      attempts.push(job.run_id);
      if (job.run_id === broken) throw new Error('broken');
    };
    const { failed } = await startConsumer(queue, execute, { concurrency: 1 });
    await until(isEmpty(queue));
    expect(attempts).toEqual([broken, sound, broken, broken]);
    expect(failed.map(({ run_id }) => run_id)).toEqual([broken]);
  });

  it('reports a run that outlived too many workers, and tries it no more', async () => {
    const { queue } = newQueue();
    const [runId = ''] = await add(queue, 1);
    await queue.prepare();
    await queue.take(redis, 5, 100);
    expect(await queue.takeOver(5, 0)).toHaveLength(1);
    const seen: number[] = [];
    const { failed } = await startConsumer(queue, async (_run, takeovers) => {
      seen.push(takeovers);
      throw new TooManyTakeovers(runId);
    });
    await until(() => failed.length === 1);
    await until(isEmpty(queue));
    expect([failed[0]?.run_id, seen]).toEqual([runId, [2]]);
  });

  it('goes on after Redis lost the queue', async () => {
    const { queue, key } = newQueue();
    const received: string[] = [];
    await startConsumer(queue, async ({ job }) => void received.push(job.run_id));
    await redis.del(key);
    const [runId] = await add(queue, 1);
    await until(() => received.length > 0);
    await until(isEmpty(queue));
    expect(received).toEqual([runId]);
  });

  it('waits for its runs when it closes, and takes no more', async () => {
    const { queue } = newQueue();
    await add(queue, 1);
    let ended = false;
    let executions = 0;
    const execute = async () => {
      executions += 1;
      await new Promise((resolve) => setTimeout(resolve, 200));
      ended = true;
    };
    const { consumer } = await startConsumer(queue, execute, { concurrency: 1 });
    await until(() => executions === 1);
    const closing = consumer.close();
    await add(queue, 1);
    await closing;
    expect([ended, executions]).toEqual([true, 1]);
    expect(await queue.counts()).toEqual({ waiting: 1, active: 0 });
  });

  it('removes the runs of an erased user, whatever the length of the queue, and no others', async () => {
    const { queue } = newQueue();
    const added = await add(queue, 30);
    await queue.remove(new Set(added.slice(10, 20)));
    expect(await queue.counts()).toEqual({ ...EMPTY, waiting: 20 });
  });
});
