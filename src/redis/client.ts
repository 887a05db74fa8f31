import { Cluster, Redis as RedisServer } from 'ioredis';
import type { Logger } from '../lib/logger.ts';
import { masters, type Redis } from './connection.ts';
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

/** So often is something asked on a connection that may have nothing else to ask, so that silence shows. */
const HEARTBEAT_MS = 2_000;
/** A Redis that hangs does not keep a process from ending. */
const QUIT_TIMEOUT_MS = 1_000;
/** A start that takes longer has failed: Sentinels and clusters are asked again and again, which would hide why. */
const START_TIMEOUT_MS = 10_000;

/**
 * A connection that is ready for use.
 * @param variables where Redis is: the configuration, or a URL that says it all
 * @throws UnusableConfiguration; Error when Redis cannot be reached or is not fit (see `checkServer`)
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
  if (role !== 'blocking') sendHeartbeats(redis, role);
  return redis;
}

async function ready(redis: Redis): Promise<void> {
  // A cluster that was not sound at first gets ready at a later attempt; the promise of the first one stays open.
  await Promise.race([redis.connect(), new Promise((resolve) => redis.once('ready', resolve))]);
  // Of a cluster each master: the first request must not find a connection that is still being made.
  await Promise.all(masters(redis).map((master) => checkServer(master, redis instanceof Cluster)));
}

function server(target: RedisTarget, role: ConnectionRole, report: (error: Error) => void): RedisServer {
  const redis = new RedisServer({ ...redisOptions(target, role), lazyConnect: true });
  // Without a listener an outage would end the process; with it, the commands report it where they were sent.
  redis.on('error', report);
  redis.on('sentinelError', report);
  if (role === 'commands') redis.on('ready', () => prepare(redis, report));
  return redis;
}

function cluster(target: RedisTarget, role: ConnectionRole, report: (error: Error) => void): Cluster {
  const nodes = target.address.nodes.map(({ host, port }) => ({ host, port }));
  const redis = new Cluster(nodes, { ...clusterOptions(target, role), lazyConnect: true });
  redis.on('error', report);
  redis.on('node error', report);
  redis.on('+node', (node: RedisServer) => {
    if (role === 'commands') node.on('ready', () => prepare(node, report));
    // Before that, the cluster's own first questions would meet connections that are still being made.
    if (redis.status === 'ready') connect(node);
  });
  redis.on('ready', () => redis.nodes('all').forEach(connect));
  // Left to itself a node would connect for the first command, and refuse those that come meanwhile.
  const connect = (node: RedisServer) => {
    if (node.status === 'wait') node.connect().catch(report);
  };
  return redis;
}

function prepare(node: RedisServer, report: (error: Error) => void): void {
  loadScripts(node).catch(report);
}

function sendHeartbeats(redis: Redis, role: ConnectionRole): void {
  const timer = setInterval(() => {
    // What is asked meanwhile would only be queued.
    if (redis.status !== 'ready') return;
    const nodes = redis instanceof Cluster ? redis.nodes('all') : [redis];
    // A failure shows on the connection itself.
    for (const node of nodes) if (node.status === 'ready') node.ping().catch(() => undefined);
    if (redis instanceof Cluster && role === 'subscriber') pingShards(redis).catch(() => undefined);
  }, HEARTBEAT_MS).unref();
  redis.once('end', () => clearInterval(timer));
}

/**
 * Whether Redis answers on this connection within `timeoutMs`; never rejects. Of a cluster more than half of the masters:
 * one that is away takes its own users only, and a node that called itself unready would refuse all the others.
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
 * Refuses a server that would lose data or lacks the commands used here: Redis 7.0 (sharded pub/sub, SPUBLISH in
 * scripts) and `noeviction`, since an evicted key would be a lost event, lease or bill; and a node of a cluster that is
 * taken for a Redis of its own, where most keys would be answered with MOVED.
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
    throw new Error('it is a node of a Redis Cluster, which needs a redis+cluster:// URL');
  }
}

/** Ends a connection in order, or at once when Redis is away. */
export async function disconnectRedis(redis: Redis): Promise<void> {
  if (redis.status !== 'ready') return redis.disconnect();
  await withTimeout(QUIT_TIMEOUT_MS, redis.quit()).catch(() => redis.disconnect());
  // QUIT leaves the connections to the Sentinels open.
  if (redis instanceof RedisServer && redis.options.sentinels) redis.disconnect();
}
