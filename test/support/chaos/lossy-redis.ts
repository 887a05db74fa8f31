import { mkdtemp, readdir, rm, stat, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type RedisServer, startRedisServer } from '../../../scripts/lib/redis-server.ts';
import { closeAfter } from '../open-resources.ts';
import { replicatedRedis } from '../replicated-redis.ts';

/**
 * - `emptied`: SIGKILL, and a restart without any data
 * - `killed`: SIGKILL, and a restart from the append-only file
 * - `power cut`: the same without the last second of the file, which `everysec` may not have forced to disk: a
 *   simulation of the worst case of this setting
 * - `fail-over`: SIGKILL, and a promotion of the replica, which had all replicated writes
 * - `lagging fail-over`: the same, after the replication had been paused for half a second
 */
export type Failure = 'emptied' | 'killed' | 'power cut' | 'fail-over' | 'lagging fail-over';

export interface LossyRedis {
  readonly url: string;
  /**
   * Resolves when a Redis is available at the address again.
   * @param onKilled called when there is none any more
   * @param worked resolves when something was written since it was called: what a lagging replica lacks
   */
  readonly fail: (onKilled: () => void, worked: () => Promise<unknown>) => Promise<void>;
}

const LAG_MS = 500;
const NOT_FORCED_MS = 1_000;
const LOOK_EVERY_MS = 50;

export async function lossyRedis(failure: Failure, appendfsync: 'always' | 'everysec'): Promise<LossyRedis> {
  if (!failure.includes('fail-over')) return restarted(failure, appendfsync);
  const { url, lag, failOver } = await replicatedRedis();
  const fail: LossyRedis['fail'] = async (onKilled, worked) => {
    if (failure === 'lagging fail-over') {
      lag();
      await Promise.all([delay(LAG_MS), worked()]);
    }
    await failOver(onKilled);
  };
  return { url, fail };
}

async function restarted(failure: Failure, appendfsync: 'always' | 'everysec'): Promise<LossyRedis> {
  const dir = await mkdtemp(join(tmpdir(), 'tollgate-redis-'));
  const options = { dir, persistent: true, appendfsync } as const;
  let server: RedisServer = await startRedisServer(options);
  const { port, url } = server;
  const sizes: { readonly at: number; readonly size: number }[] = [];
  const watch = setInterval(() => {
    void appendOnlyFile(dir).then(({ size }) => sizes.push({ at: performance.now(), size }));
  }, LOOK_EVERY_MS);
  closeAfter('test', async () => {
    clearInterval(watch);
    await server.stop();
    await rm(dir, { recursive: true, force: true });
  });
  const fail: LossyRedis['fail'] = async (onKilled) => {
    const at = performance.now();
    server.process.kill('SIGKILL');
    await server.process.exited;
    onKilled();
    clearInterval(watch);
    if (failure === 'power cut') {
      const forced = sizes.findLast((known) => known.at <= at - NOT_FORCED_MS)?.size ?? 0;
      await truncate((await appendOnlyFile(dir)).path, forced);
    }
    if (failure === 'emptied') await rm(join(dir, 'appendonlydir'), { recursive: true });
    server = await startRedisServer({ ...options, port });
  };
  return { url, fail };
}

/** The incremental file of the append-only log. */
async function appendOnlyFile(dir: string): Promise<{ path: string; size: number }> {
  const folder = join(dir, 'appendonlydir');
  const name = (await readdir(folder)).find((file) => file.endsWith('.incr.aof'));
  if (!name) throw new Error('there is no append-only file');
  const path = join(folder, name);
  return { path, size: (await stat(path)).size };
}
