import { expect, it } from '@jest/globals';
import { startRedisServer } from '../../scripts/lib/redis-server.ts';
import { CLOSE_TIMEOUT_MS } from '../../workers/queue-workers.ts';
import { closeAfter } from '../support/open-resources.ts';
import { StackProcesses } from '../support/stack-processes.ts';
import { Stopwatch } from '../support/stopwatch.ts';

it('a worker that stops after Redis has gone exits with 0, and waits once for all its queues', async () => {
  const redis = await startRedisServer();
  closeAfter('test', () => redis.stop());
  const stack = await StackProcesses.start({ gateways: 0, workers: 1, redisUrl: redis.url });
  closeAfter('test', () => stack.close());
  const [worker] = stack.workers;
  redis.process.kill('SIGKILL');
  await redis.process.exited;
  const watch = await Stopwatch.start();
  expect(await worker?.kill('SIGTERM')).toEqual({ code: 0, signal: null });
  // The connections to Redis and the health server close after the queues.
  expect(watch.ms).toBeLessThan(watch.allow(CLOSE_TIMEOUT_MS + 5_000));
}, 180_000);
