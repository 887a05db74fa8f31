import { masters, type Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import { integer } from '../redis/replies.ts';
import { LuaScript } from '../redis/scripts.ts';
import { isLogState, logStatePattern } from '../redis/user-keys.ts';

const renewEpoch = LuaScript.load('renewEpoch-1', integer);

/** Keys per SCAN, and scripts in flight. */
const BATCH = 500;

/**
 * Gives every event log of a deployment a new log epoch, so that no client resumes from a position that a restored copy
 * does not contain. It can be repeated and interrupted: clients with a position of an earlier epoch get `resume_failed`.
 * @returns the number of logs
 * @throws RedisUnavailable
 */
export async function renewEpochs({ redis, keys }: { redis: Redis; keys: Keys }): Promise<number> {
  let renewed = 0;
  for (const master of masters(redis)) {
    for await (const found of master.scanStream({ match: logStatePattern(keys.prefix), count: BATCH })) {
      const logs = (found as string[]).filter((key) => isLogState(key));
      const replies = await Promise.all(logs.map((key) => renewEpoch.run(redis, [key], [])));
      renewed += replies.reduce((sum, reply) => sum + reply, 0);
    }
  }
  return renewed;
}
