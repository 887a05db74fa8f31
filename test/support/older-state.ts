import type { Redis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { keysOf } from './keys-of.ts';

/**
 * Remembers everything under a prefix, to go back to it: as Redis is after a fail-over to a replica that lagged, or with an
 * append-only file whose end is missing. What was written since is gone, all of it or none of a script's.
 */
export async function olderState(redis: Redis, prefix: string): Promise<() => Promise<void>> {
  const keysNow = () => keysOf(redis, `${prefix}:*`);
  const dumps = new Map<string, Buffer>();
  for (const key of await keysNow()) {
    const dump = await redis.dumpBuffer(key);
    if (dump) dumps.set(key, dump);
  }
  return async () => {
    // One by one: they are in many slots.
    await Promise.all((await keysNow()).map((key) => redis.del(key)));
    // Without their expiry, which is days away.
    for (const [key, dump] of dumps) await redis.restore(key, 0, dump);
    await redis.hset(new Keys(prefix).ledgerState, 'agreed', 'the Redis before');
  };
}
