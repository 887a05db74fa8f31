import { setTimeout as delay } from 'node:timers/promises';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { systemClock } from '../../src/lib/clock.ts';
import { duePartitions } from '../../src/redis/due-partitions.ts';
import { type PeriodicTask, PeriodicTasks } from '../../workers/periodic-tasks.ts';
import { type Core, silentLogger, startCore } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { until } from '../support/until.ts';

/** Longer than a test: a task is due again only when the test says so. */
const PERIOD_MS = 60_000;
/** Longer than a worker waits before it asks for due tasks again. */
const ASKED_AGAIN_MS = 1_200;

let core: Core;

beforeAll(async () => {
  core = await startCore();
});

/** Starts a worker's tasks; `runs` receives the name of each run. */
function startTasks(runs: string[], names: readonly string[], work: (name: string) => Promise<unknown>): PeriodicTasks {
  const tasks = names.map((name): PeriodicTask => {
    return {
      name,
      everyMs: PERIOD_MS,
      run: () => {
        runs.push(name);
        return work(name);
      },
    };
  });
  const started = new PeriodicTasks({ ...core, clock: systemClock, logger: silentLogger }, tasks);
  closeAfter('test', () => started.close());
  started.start();
  return started;
}

async function makeDue(...names: string[]): Promise<void> {
  await core.redis.hset(core.keys.periodicTasks, Object.fromEntries(names.map((name) => [name, 1])));
}

const atOnce = async () => undefined;

describe('A periodic task', () => {
  it('runs once per period, on one of the workers', async () => {
    const runs: string[] = [];
    const names = ['a', 'b', 'c', 'd'];
    for (let worker = 0; worker < 3; worker++) startTasks(runs, names, atOnce);
    await until(() => runs.length === names.length);
    await delay(ASKED_AGAIN_MS);
    expect(runs.toSorted()).toEqual(names);
    await makeDue('b', 'd');
    await until(() => runs.length === names.length + 2);
    await delay(ASKED_AGAIN_MS);
    expect(runs.slice(names.length).toSorted()).toEqual(['b', 'd']);
  });

  it('that takes longer than its period runs on another worker, and never twice on the same', async () => {
    const [first, second]: [string[], string[]] = [[], []];
    let finish: () => void = () => undefined;
    const slow = new Promise<void>((resolve) => {
      finish = resolve;
    });
    closeAfter('test', () => finish());
    startTasks(first, ['slow'], () => slow);
    await until(() => first.length === 1);
    await makeDue('slow');
    await delay(ASKED_AGAIN_MS);
    expect(first).toEqual(['slow']);
    startTasks(second, ['slow'], atOnce);
    await until(() => second.length === 1);
  });

  it('that failed runs again in its next period', async () => {
    const runs: string[] = [];
    startTasks(runs, ['failing'], () => Promise.reject(new Error('a failure')));
    await until(() => runs.length === 1);
    await makeDue('failing');
    await until(() => runs.length === 2);
  });

  it('runs although the clock of Redis went back by more than its period', async () => {
    const [seconds] = await core.redis.time();
    await core.redis.hset(core.keys.periodicTasks, 'early', Number(seconds) * 1_000 + 2 * PERIOD_MS);
    const runs: string[] = [];
    startTasks(runs, ['early'], atOnce);
    await until(() => runs.length === 1);
  });

  it('ends before its worker closes', async () => {
    const runs: string[] = [];
    let ended = false;
    const tasks = startTasks(runs, ['long'], async () => {
      await delay(300);
      ended = true;
    });
    await until(() => runs.length === 1);
    await tasks.close();
    expect(ended).toBe(true);
    await makeDue('long');
    await delay(ASKED_AGAIN_MS);
    expect(runs).toHaveLength(1);
  });
});

describe('The partitions that are due', () => {
  it('are those with a member at or before the time', async () => {
    const keyOf = (partition: number) => core.keys.activeRuns(partition);
    await core.redis.zadd(keyOf(3), 1_000, 'at');
    await core.redis.zadd(keyOf(17), 999, 'before', 5_000, 'after');
    await core.redis.zadd(keyOf(63), 1_001, 'after');
    expect(await duePartitions(core.redis, keyOf, 1_000)).toEqual([3, 17]);
  });
});
