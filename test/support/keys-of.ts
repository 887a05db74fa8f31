import type { Redis } from '../../src/redis/client.ts';
import { masters } from '../../src/redis/connection.ts';

/** Returns every key of that pattern, on all shards. */
export async function keysOf(redis: Redis, pattern: string): Promise<string[]> {
  const ofEach = await Promise.all(masters(redis).map((master) => master.keys(pattern)));
  return ofEach.flat();
}
