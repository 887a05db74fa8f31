import { Cluster, Redis as RedisServer } from 'ioredis';
import type { Logger } from '../lib/logger.ts';
import { masters, type Redis } from './connection.ts';
import { joinWrites } from './joined-writes.ts';
import {
  type ConnectionRole,
  clusterOptions,
  type RedisTarget,
  type RedisVariables,
  redisOptions,
  redisTarget,
} from './options.ts';
import { loadScripts } from './scripts.ts';
import { pingShards } from './subscriptions.ts';

export { masters, type Redis } from './connection.ts';
export type { ConnectionRole } from './options.ts';

/** Interval of the heartbeats, which detect a dead peer, or a master that became a replica, on an idle connection. */
const HEARTBEAT_MS = 2_000;
/** Timeout of `QUIT`, so that an unresponsive Redis does not delay the shutdown. */
const QUIT_TIMEOUT_MS = 1_000;
/** Timeout of the first connection. ioredis retries Sentinels and clusters without end, which would hide the cause. */
const START_TIMEOUT_MS = 10_000;

/**
 * Connects to Redis, checks the server and returns a connection that is ready for use.
 * @param variables the address of Redis: the configuration, or a URL that contains all settings
 * @throws UnusableConfiguration; Error when Redis cannot be reached or is not suitable (see `checkServer`)
 */
export async function connectRedis(
  variables: string | RedisVariables,
  role: ConnectionRole,
  logger: Logger,
): Promise<Redis> {
  const target = redisTarget(variables);
  const faults = { last: undefined as string | undefined };
  const report = (error: Error) => {
    faults.last = error.message;
    logger.warn({ role, error: error.message }, 'redis connection error');
  };
  const redis = target.address.topology === 'cluster' ? cluster(target, role, report) : server(target, role, report);
  try {
    await withTimeout(START_TIMEOUT_MS, ready(redis));
  } catch (error) {
    redis.disconnect();
    const reasons = [error instanceof Error ? error.message : String(error), faults.last];
    throw new Error(`Redis is not usable at REDIS_URL: ${[...new Set(reasons)].filter(Boolean).join('; ')}`, {
      cause: error,
    });
  }
  if (role !== 'blocking') sendHeartbeats(redis, role, report);
  return redis;
}

async function ready(redis: Redis): Promise<void> {
  // If the first attempt at a cluster fails, ioredis becomes ready at a later one, but the first promise stays pending.
  await Promise.race([redis.connect(), new Promise((resolve) => redis.once('ready', resolve))]);
  // Checks each master of a cluster, so that the first request does not wait for a connection to be established.
  await Promise.all(masters(redis).map((master) => checkServer(master, redis instanceof Cluster)));
}

function server(target: RedisTarget, role: ConnectionRole, report: (error: Error) => void): RedisServer {
  const redis = new RedisServer({ ...redisOptions(target, role), lazyConnect: true });
  // An `error` event without a listener would end the process. The failed commands report the outage to their callers.
  redis.on('error', report);
  redis.on('sentinelError', report);
  joinWrites(redis);
  if (role === 'commands') redis.on('ready', () => prepare(redis, report));
  return redis;
}

function cluster(target: RedisTarget, role: ConnectionRole, report: (error: Error) => void): Cluster {
  const nodes = target.address.nodes.map(({ host, port }) => ({ host, port }));
  const redis = new Cluster(nodes, { ...clusterOptions(target, role), lazyConnect: true });
  redis.on('error', report);
  redis.on('node error', report);
  redis.on('+node', (node: RedisServer) => {
    joinWrites(node);
    if (role === 'commands') node.on('ready', () => prepare(node, report));
    // Before `ready`, the cluster's own first requests would be sent on connections that are not established yet.
    if (redis.status === 'ready') connect(node);
  });
  redis.on('ready', () => redis.nodes('all').forEach(connect));
  // By default a node connects at its first command and rejects the commands that arrive before it is connected.
  const connect = (node: RedisServer) => {
    if (node.status === 'wait') node.connect().catch(report);
  };
  return redis;
}

function prepare(node: RedisServer, report: (error: Error) => void): void {
  loadScripts(node).catch(report);
}

function sendHeartbeats(redis: Redis, role: ConnectionRole, report: (error: Error) => void): void {
  const timer = setInterval(() => {
    // While the connection is not ready, a ping would only be queued.
    if (redis.status !== 'ready') return;
    // A failed heartbeat is ignored: the socket timeout closes the connection.
    if (!(redis instanceof Cluster)) leaveReplica(redis, report).catch(() => undefined);
    else for (const node of redis.nodes('all')) if (node.status === 'ready') node.ping().catch(() => undefined);
    if (redis instanceof Cluster && role === 'subscriber') pingShards(redis).catch(() => undefined);
  }, HEARTBEAT_MS).unref();
  redis.once('end', () => clearInterval(timer));
}

/**
 * Reconnects if the server has become a replica, which leads to the new master. The first refused write does so too,
 * but a connection for subscriptions sends none. In a cluster, a replica refers every command to the master of its
 * slot.
 */
async function leaveReplica(redis: RedisServer, report: (error: Error) => void): Promise<void> {
  const info = await redis.info('replication');
  if (!/^role:slave/m.test(info) || redis.status !== 'ready') return;
  report(new Error('the server has become a replica'));
  redis.disconnect(true);
}

/**
 * Returns whether Redis answers on this connection within `timeoutMs`; never rejects. In a cluster, more than half of
 * the masters must answer: an unavailable master affects only the users on its shard, and an unready node would reject
 * all others too.
 */
export async function isResponsive(redis: Redis, timeoutMs: number): Promise<boolean> {
  if (redis.status !== 'ready') return false;
  const pings = masters(redis).map((master) => withTimeout(timeoutMs, master.ping()));
  const answered = (await Promise.allSettled(pings)).filter(({ status }) => status === 'fulfilled');
  return answered.length > pings.length / 2;
}

function withTimeout<T>(timeoutMs: number, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/**
 * Rejects unsuitable servers.
 *
 * - Older than Redis 7.0: sharded pub/sub and `SPUBLISH` in scripts are missing.
 * - A policy other than `noeviction`: an evicted key would be a lost event, lease or usage record.
 * - A cluster node that is addressed as a single server: it would answer most keys with MOVED.
 */
async function checkServer(node: RedisServer, inCluster: boolean): Promise<void> {
  const info = await node.info();
  const version = /^redis_version:(\d+)/m.exec(info)?.[1];
  if (version === undefined || Number(version) < 7) throw new Error(`version 7.0 or newer is needed, found ${version}`);
  const policy = /^maxmemory_policy:(\S+)/m.exec(info)?.[1];
  if (policy !== undefined && policy !== 'noeviction') {
    throw new Error(`maxmemory-policy must be noeviction, found ${policy}`);
  }
  if (!inCluster && /^cluster_enabled:1/m.test(info)) {
    throw new Error('the server is a node of a Redis Cluster, which requires a redis+cluster:// URL');
  }
}

/** Closes a connection with `QUIT`, or immediately when Redis is unavailable. */
export async function disconnectRedis(redis: Redis): Promise<void> {
  if (redis.status !== 'ready') return redis.disconnect();
  await withTimeout(QUIT_TIMEOUT_MS, redis.quit()).catch(() => redis.disconnect());
  // `QUIT` leaves the connections to the Sentinels open.
  if (redis instanceof RedisServer) redis.disconnect();
}
