import type { Redis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { keysOf } from './keys-of.ts';

/**
 * Stores everything under a prefix in order to restore it later, like a Redis after a failover to a lagging replica or
 * with a truncated append-only file. Later writes disappear, those of a script all or none.
 */
export async function olderState(redis: Redis, prefix: string): Promise<() => Promise<void>> {
  const keysNow = () => keysOf(redis, `${prefix}:*`);
  const dumps = new Map<string, Buffer>();
  for (const key of await keysNow()) {
    const dump = await redis.dumpBuffer(key);
    if (dump) dumps.set(key, dump);
  }
  return async () => {
    // One by one, because they are in many slots.
    await Promise.all((await keysNow()).map((key) => redis.del(key)));
    // Without their expiry, which is days away.
    for (const [key, dump] of dumps) await redis.restore(key, 0, dump);
    await redis.hset(new Keys(prefix).ledgerState, 'agreed', 'the Redis before');
  };
}
