import { setTimeout as delay } from 'node:timers/promises';
import { createLogger } from '../../src/lib/logger.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { closeAfter } from './open-resources.ts';
import { type StackAddresses, stack } from './stack.ts';
import { Stopwatch } from './stopwatch.ts';

const LOOK_EVERY_MS = 20;

/** Reads a user's connections directly from Redis, independently of the registry's code. */
export class Leases {
  readonly redis: Redis;
  readonly keys: Keys;

  constructor(redis: Redis, keys: Keys) {
    this.redis = redis;
    this.keys = keys;
  }

  /** Returns the connections with unexpired leases, by the clock of Redis. */
  async live(userId: string): Promise<string[]> {
    const [seconds, microseconds] = await this.redis.time();
    const now = Number(seconds) * 1000 + Number(microseconds) / 1000;
    return this.redis.zrange(this.keys.user(userId).leases, `(${now}`, '+inf', 'BYSCORE');
  }

  /** Returns everything that remains of a user's connections: leases, details, and subscribed nodes. */
  async remains(userId: string): Promise<{ leases: number; connections: string[]; listeners: number }> {
    const { leases, connections, channel } = this.keys.user(userId);
    const [held, fields, listening] = await Promise.all([
      this.redis.zcard(leases),
      this.redis.hkeys(connections),
      this.redis.call('PUBSUB', 'SHARDNUMSUB', channel),
    ]);
    // `#` is the last admission order, which expires with the whole hash.
    const others = fields.filter((field) => field !== '#');
    // RESP3 returns a map, RESP2 a list.
    const counts = Array.isArray(listening) ? listening : Object.values(listening as Record<string, number>);
    return { leases: held, connections: others, listeners: Number(counts.at(-1)) };
  }

  /** Waits until nothing remains; an unreleased lease would outlast `timeoutMs`. */
  async untilReleased(userId: string, timeoutMs = 2_000): Promise<void> {
    const released = async () => JSON.stringify(await this.remains(userId)) === JSON.stringify(NOTHING_LEFT);
    const watch = await Stopwatch.start();
    while (!(await released())) {
      if (watch.ms > watch.allow(timeoutMs)) {
        throw new Error(`${userId} has left ${JSON.stringify(await this.remains(userId))} behind`);
      }
      await delay(LOOK_EVERY_MS);
    }
  }
}

export const NOTHING_LEFT = { leases: 0, connections: [], listeners: 0 };

/** Opens access to the leases of a stack's users, until the file ends. */
export async function openLeases(of: StackAddresses = stack()): Promise<Leases> {
  const redis = await connectRedis(of.redisUrl, 'commands', createLogger('test', 'silent'));
  closeAfter('file', () => disconnectRedis(redis));
  return new Leases(redis, new Keys(of.keyPrefix));
}
