import type { Redis } from '../../src/redis/client.ts';
import { keysOf } from './keys-of.ts';

/** Returns one text per key of that pattern: its name and everything stored in it. */
export async function contentsOf(redis: Redis, pattern: string): Promise<string[]> {
  const keys = await keysOf(redis, pattern);
  return Promise.all(keys.map(async (key) => `${key} ${JSON.stringify(await storedIn(redis, key))}`));
}

async function storedIn(redis: Redis, key: string): Promise<unknown> {
  switch (await redis.type(key)) {
    case 'string':
      return redis.get(key);
    case 'hash':
      return redis.hgetall(key);
    case 'list':
      return redis.lrange(key, 0, -1);
    case 'set':
      return redis.smembers(key);
    case 'zset':
      return redis.zrange(key, '0', '-1');
    case 'stream':
      return redis.xrange(key, '-', '+');
    default:
      return undefined;
  }
}
