import { Cluster, type Redis as RedisServer } from 'ioredis';

/** A connection to one server, to the master that the Sentinels report, or to every master of a Redis Cluster. */
export type Redis = RedisServer | Cluster;

/** Returns the servers that accept writes. */
export function masters(redis: Redis): RedisServer[] {
  return redis instanceof Cluster ? redis.nodes('master') : [redis];
}
