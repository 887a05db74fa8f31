import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type RedisServer, startRedisServer } from '../../scripts/lib/redis-server.ts';
import { closeAfter } from './open-resources.ts';

export interface KillableRedis {
  readonly url: string;
  /** Kills Redis with SIGKILL, and restarts it at the same address from its append-only file. */
  kill(): Promise<void>;
}

/**
 * A Redis with an append-only file, until the end of the test. The kernel has every write before its reply (see
 * `appendfsync`), so a kill of the process loses no acknowledged write. A power cut could.
 */
export async function killableRedis(): Promise<KillableRedis> {
  const dir = await mkdtemp(join(tmpdir(), 'tollgate-redis-'));
  const options = { dir, persistent: true, appendfsync: 'no' } as const;
  let server: RedisServer = await startRedisServer(options);
  const { port, url } = server;
  closeAfter('test', async () => {
    await server.stop();
    await rm(dir, { recursive: true, force: true });
  });
  const kill = async () => {
    server.process.kill('SIGKILL');
    await server.process.exited;
    server = await startRedisServer({ ...options, port });
  };
  return { url, kill };
}
