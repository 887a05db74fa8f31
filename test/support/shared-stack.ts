import { ensureRedisServer, startRedisServer } from '../../scripts/lib/redis-server.ts';
import { RedisClusterProcesses } from './redis-cluster.ts';
import { StackProcesses } from './stack-processes.ts';

/** The stack that all tests but unit tests share. Jest's main process starts it in its global setup and stops it in its global teardown. */
let shared: { redis: SharedRedis; stack: StackProcesses } | undefined;

const GATEWAYS = 3;

interface SharedRedis {
  readonly url: string;
  stop(): Promise<void>;
}

/** Starts one Redis server, or a Redis Cluster if `TEST_REDIS=cluster` (`npm run test:redis-cluster`). */
async function startSharedRedis(): Promise<SharedRedis> {
  if (process.env.TEST_REDIS !== 'cluster') return startRedisServer();
  const cluster = await RedisClusterProcesses.start();
  return { url: cluster.url, stop: () => cluster.close() };
}

/** Passes the addresses through the environment, because the tests run in other processes. */
export async function startSharedStack(): Promise<void> {
  await ensureRedisServer((text) => process.stderr.write(`${text}\n`));
  const redis = await startSharedRedis();
  try {
    const stack = await StackProcesses.start({ gateways: GATEWAYS, workers: 1, redisUrl: redis.url });
    shared = { redis, stack };
    process.env.TEST_REDIS_URL = redis.url;
    process.env.TOLLGATE_TEST_STACK = JSON.stringify(stack.addresses);
  } catch (error) {
    await redis.stop();
    throw error;
  }
}

export async function stopSharedStack(): Promise<void> {
  if (!shared) return;
  const { redis, stack } = shared;
  shared = undefined;
  try {
    await stack.close();
  } finally {
    await redis.stop();
  }
}
