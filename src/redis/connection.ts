import { Cluster, type Redis as RedisServer } from 'ioredis';

/** A connection to one server, or to the master that Sentinels name; or one to each master of a Redis Cluster. */
export type Redis = RedisServer | Cluster;

/** The servers that take writes. */
export function masters(redis: Redis): RedisServer[] {
  return redis instanceof Cluster ? redis.nodes('master') : [redis];
}
