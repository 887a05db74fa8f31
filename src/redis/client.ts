import { Redis, type RedisOptions } from 'ioredis';
import type { Logger } from '../lib/logger.ts';
import { loadScripts } from './scripts.ts';

export type { Redis } from 'ioredis';

/**
 * - `commands`: everything a request waits for. Fails at once while Redis is away, so that a request gets an error
 *   instead of a queue, and never sends a command twice: a repeated XADD would be a second event.
 * - `subscriber`: subscriptions, restored by itself after a reconnect.
 * - `blocking`: BullMQ's workers, which must wait for Redis for ever.
 */
export type ConnectionRole = 'commands' | 'subscriber' | 'blocking';

const CONNECT_TIMEOUT_MS = 5_000;
/** Longer than any script here takes by three orders of magnitude; a Redis that needs more is away. */
const COMMAND_TIMEOUT_MS = 3_000;
const MAX_RECONNECT_DELAY_MS = 1_000;
/** A connection that answers nothing for this long is dropped and made again: the peer may be gone without a word. */
const SILENCE_MS = 5_000;
/** So often is something asked on a connection that may have nothing else to ask, so that silence shows. */
const HEARTBEAT_MS = 2_000;
/** A Redis that hangs does not keep a process from ending. */
const QUIT_PATIENCE_MS = 1_000;

const ROLE_OPTIONS: Record<ConnectionRole, RedisOptions> = {
  commands: {
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    commandTimeout: COMMAND_TIMEOUT_MS,
    socketTimeout: SILENCE_MS,
  },
  subscriber: { maxRetriesPerRequest: null, socketTimeout: SILENCE_MS },
  blocking: { maxRetriesPerRequest: null },
};

/** A connection that is ready for use. @throws Error when Redis cannot be reached or is not fit (see `checkServer`) */
export async function connectRedis(url: string, role: ConnectionRole, logger: Logger): Promise<Redis> {
  const redis = new Redis(url, {
    ...ROLE_OPTIONS[role],
    connectionName: `tollgate-${role}`,
    autoResendUnfulfilledCommands: role === 'blocking',
    connectTimeout: CONNECT_TIMEOUT_MS,
    lazyConnect: true,
    retryStrategy: (attempt) => Math.min(50 * 2 ** Math.min(attempt, 10), MAX_RECONNECT_DELAY_MS),
  });
  // Without a listener an outage would end the process; with it, the commands report it where they were sent.
  redis.on('error', (error) => logger.warn({ role, error: error.message }, 'redis connection error'));
  if (role === 'commands') {
    redis.on('ready', () => {
      loadScripts(redis).catch((error: Error) => logger.warn({ error: error.message }, 'scripts were not loaded'));
    });
  }
  try {
    await redis.connect();
    await checkServer(redis);
  } catch (error) {
    redis.disconnect();
    throw new Error(`Redis is not usable at REDIS_URL: ${error instanceof Error ? error.message : error}`, {
      cause: error,
    });
  }
  if (role !== 'blocking') keepAsking(redis);
  return redis;
}

function keepAsking(redis: Redis): void {
  const timer = setInterval(() => {
    // A failure shows on the connection itself.
    if (redis.status === 'ready') redis.ping().catch(() => undefined);
  }, HEARTBEAT_MS).unref();
  redis.once('end', () => clearInterval(timer));
}

/** Whether Redis answers on this connection within `timeoutMs`; never rejects. */
export async function answers(redis: Redis, timeoutMs: number): Promise<boolean> {
  if (redis.status !== 'ready') return false;
  return within(timeoutMs, redis.ping()).then(
    () => true,
    () => false,
  );
}

function within<T>(timeoutMs: number, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/**
 * Refuses a server that would lose data or lacks the commands used here: Redis 7.0 (sharded pub/sub, SPUBLISH in
 * scripts) and `noeviction`, since an evicted key would be a lost event, lease or bill.
 */
async function checkServer(redis: Redis): Promise<void> {
  const info = await redis.info();
  const version = /^redis_version:(\d+)/m.exec(info)?.[1];
  if (version === undefined || Number(version) < 7) throw new Error(`version 7.0 or newer is needed, found ${version}`);
  const policy = /^maxmemory_policy:(\S+)/m.exec(info)?.[1];
  if (policy !== undefined && policy !== 'noeviction') {
    throw new Error(`maxmemory-policy must be noeviction, found ${policy}`);
  }
}

/** Ends a connection in order, or at once when Redis is away. */
export async function disconnectRedis(redis: Redis): Promise<void> {
  if (redis.status !== 'ready') return redis.disconnect();
  await within(QUIT_PATIENCE_MS, redis.quit()).catch(() => redis.disconnect());
}
