import { expect, it } from '@jest/globals';
import { startRedisServer } from '../../scripts/lib/redis-server.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { newId } from '../../src/lib/ids.ts';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { RetriedRunQueue } from '../../src/runs/retried-run-queue.ts';
import { Runs } from '../../src/runs/runs.ts';
import { StreamRunQueue } from '../../src/runs/stream-run-queue.ts';
import { silentLogger, startCore } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { RUN_AGENTS, startRun, tryRun } from '../support/run-nodes.ts';
import { testRedisUrl } from '../support/stack.ts';
import { freshUserId } from '../support/tokens.ts';
import { until } from '../support/until.ts';

async function gateway(redisUrl = testRedisUrl()) {
  const redis = await connectRedis(redisUrl, 'commands', silentLogger);
  closeAfter('test', () => disconnectRedis(redis));
  const core = await startCore();
  const keys = new Keys(newId('job'));
  const deps = { ...core, redis, keys, clock: systemClock };
  const queue = new RetriedRunQueue({ ...deps, queue: new StreamRunQueue(deps) });
  queue.start();
  closeAfter('test', () => queue.stop());
  return { redis, keys, runs: new Runs({ ...deps, queue, agents: RUN_AGENTS }, { timeoutMs: 45_000 }) };
}

async function jobsOf({ redis, keys }: Awaited<ReturnType<typeof gateway>>): Promise<string[]> {
  const entries = await redis.xrange(keys.runQueue, '-', '+');
  return entries.map(([, fields]) => fields[3] ?? '');
}

it('a run that Redis stored without its job gets the job, and one that it refused gets none', async () => {
  const node = await gateway();
  const { redis, keys, runs } = node;
  const run = { userId: freshUserId(), plan: 'pro', threadId: 'thread_1' };
  await redis.set(keys.runQueue, 'no stream');
  expect(await tryRun(runs, { ...run, runId: 'run_1' })).toMatchObject({ code: 'OVERLOADED' });
  const agent = { ...run, userId: freshUserId(), runId: 'run_2' };
  await redis.set(keys.user(agent.userId).request('req_2'), 'run_0 thread_1');
  expect(await tryRun(runs, { ...agent, requestId: 'req_2' })).toMatchObject({ code: 'OVERLOADED' });
  await redis.del(keys.runQueue);
  await until(async () => (await jobsOf(node)).length > 0);
  expect(await jobsOf(node)).toEqual(['run_1']);
});

it('a request that a paused Redis receives starts one run, which counts at once and is found by a repetition', async () => {
  const server = await startRedisServer();
  closeAfter('test', () => server.stop());
  const node = await gateway(server.url);
  const { redis, keys, runs } = node;
  const { runsInFlight } = keys.user('user');
  const run = { userId: 'user', plan: 'pro', threadId: 'thread_1', requestId: 'req_1', runId: 'run_1' };
  server.process.kill('SIGSTOP');
  expect(await tryRun(runs, run)).toMatchObject({ code: 'OVERLOADED', retryable: true });
  server.process.kill('SIGCONT');
  await until(async () => redis.status === 'ready' && (await jobsOf(node)).length > 0);
  expect(await redis.zrange(runsInFlight, '0', '-1')).toEqual(['run_1']);
  expect(await startRun(runs, run)).toEqual({ run_id: 'run_1', thread_id: 'thread_1', isRepeated: true });
  expect(await redis.zcard(runsInFlight)).toBe(1);
});
