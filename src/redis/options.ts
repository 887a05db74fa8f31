import { readFileSync } from 'node:fs';
import type { ConnectionOptions } from 'node:tls';
import type { ClusterOptions, RedisOptions } from 'ioredis';
import { type Config, UnusableConfiguration } from '../config.ts';
import { parseRedisUrl, type RedisAddress } from '../lib/redis-url.ts';

/**
 * - `commands`: everything a request waits for. Fails at once while Redis is away, so that a request gets an error
 *   instead of a queue, and never sends a command twice: a repeated XADD would be a second event.
 * - `subscriber`: subscriptions, restored after a reconnect.
 * - `blocking`: BullMQ's workers, which must wait for Redis for ever. Their commands can be sent twice; their jobs too.
 */
export type ConnectionRole = 'commands' | 'subscriber' | 'blocking';

/** Where Redis is, and how it is reached. A URL alone will do. */
export type RedisVariables = Pick<Config, 'REDIS_URL'> & Partial<Pick<Config, RedisVariableName>>;
type RedisVariableName = Extract<keyof Config, `REDIS_SENTINEL_${string}` | `REDIS_TLS_${string}`>;

const CONNECT_TIMEOUT_MS = 5_000;
/** Longer than any script here takes by three orders of magnitude; a Redis that needs more is away. */
const COMMAND_TIMEOUT_MS = 3_000;
const MAX_RECONNECT_DELAY_MS = 1_000;
/** A connection that answers nothing for this long is dropped and made again: the peer may be gone without a word. */
const SILENCE_MS = 5_000;
/** A Sentinel that hangs is passed over for the next one. */
const SENTINEL_TIMEOUT_MS = 1_000;
/** How often a Sentinel that was lost is tried again, to hear of a failover from it. */
const SENTINEL_RECONNECT_MS = 5_000;
/**
 * How often the map of slots is read again without a cause: a failover that breaks no connection shows in no error. The
 * client compares 16,384 slots as text each time, which costs milliseconds: not more often.
 */
const SLOTS_REFRESH_MS = 5_000;
const SLOTS_TIMEOUT_MS = 2_000;

const ROLE_OPTIONS: Record<ConnectionRole, RedisOptions> = {
  commands: { maxRetriesPerRequest: 0, commandTimeout: COMMAND_TIMEOUT_MS, socketTimeout: SILENCE_MS },
  subscriber: { maxRetriesPerRequest: null, socketTimeout: SILENCE_MS },
  blocking: { maxRetriesPerRequest: null },
};

/** What a set of variables means, and what the files in it hold. */
export interface RedisTarget {
  readonly address: RedisAddress;
  readonly tls: ConnectionOptions | undefined;
  readonly sentinelUsername: string | undefined;
  readonly sentinelPassword: string | undefined;
}

/** @throws UnusableConfiguration for a URL that is none, or a file that cannot be read */
export function redisTarget(variables: string | RedisVariables): RedisTarget {
  const settings: RedisVariables = typeof variables === 'string' ? { REDIS_URL: variables } : variables;
  const address = parseRedisUrl(settings.REDIS_URL);
  if (typeof address === 'string') throw new UnusableConfiguration(`REDIS_URL ${address}\n`);
  return {
    address,
    tls: address.tls ? tlsOptions(settings) : undefined,
    sentinelUsername: settings.REDIS_SENTINEL_USERNAME,
    sentinelPassword: settings.REDIS_SENTINEL_PASSWORD,
  };
}

function tlsOptions(variables: RedisVariables): ConnectionOptions {
  const file = (name: 'REDIS_TLS_CA_FILE' | 'REDIS_TLS_CERT_FILE' | 'REDIS_TLS_KEY_FILE') => {
    const path = variables[name];
    return path === undefined ? undefined : readTlsFile(name, path);
  };
  const servername = variables.REDIS_TLS_SERVER_NAME;
  return {
    ca: file('REDIS_TLS_CA_FILE'),
    cert: file('REDIS_TLS_CERT_FILE'),
    key: file('REDIS_TLS_KEY_FILE'),
    ...(servername === undefined ? {} : { servername }),
  };
}

function readTlsFile(name: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code ?? 'unreadable';
    throw new UnusableConfiguration(`The configuration is not usable:\n  INVALID_VALUE  ${name}: ${reason}\n`);
  }
}

/** For one Redis, and for the master that Sentinels name. */
export function redisOptions(target: RedisTarget, role: ConnectionRole): RedisOptions {
  const { address, tls } = target;
  const [{ host, port }] = address.nodes;
  return {
    ...connectionOptions(target, role),
    db: address.db,
    enableOfflineQueue: role !== 'commands',
    autoResendUnfulfilledCommands: role === 'blocking',
    retryStrategy: reconnectDelay,
    // The master of before, as a replica, or a managed Redis whose name stands for another server by now: the next
    // connection goes to the new master. The command that was refused is not sent again.
    reconnectOnError: ({ message }) => /\bREADONLY\b/.test(message),
    ...(address.topology === 'sentinel' ? sentinelOptions(target) : { host, port }),
    ...(tls ? { tls } : {}),
  };
}

function sentinelOptions({ address, tls, ...target }: RedisTarget): RedisOptions {
  const { sentinelUsername, sentinelPassword } = target;
  return {
    sentinels: address.nodes.map(({ host, port }) => ({ host, port })),
    name: address.masterName ?? '',
    ...(sentinelUsername === undefined ? {} : { sentinelUsername }),
    ...(sentinelPassword === undefined ? {} : { sentinelPassword }),
    ...(tls ? { sentinelTLS: tls, enableTLSForSentinelMode: true } : {}),
    sentinelCommandTimeout: SENTINEL_TIMEOUT_MS,
    sentinelRetryStrategy: reconnectDelay,
    sentinelReconnectStrategy: () => SENTINEL_RECONNECT_MS,
    // Leaves the master that the Sentinels have given up, even one that still answers us: what is written there is lost
    // as soon as it becomes a replica.
    failoverDetector: true,
  };
}

export function clusterOptions(target: RedisTarget, role: ConnectionRole): ClusterOptions {
  // MOVED and ASK are answers of a node that has not executed the command: it is sent on. TRYAGAIN, while a slot moves,
  // too. What was sent on a connection that was lost may have been executed.
  const again = role === 'blocking' ? {} : { retryDelayOnFailover: 0, retryDelayOnClusterDown: 0 };
  return {
    ...again,
    enableOfflineQueue: role !== 'commands',
    slotsRefreshInterval: SLOTS_REFRESH_MS,
    slotsRefreshTimeout: SLOTS_TIMEOUT_MS,
    shardedSubscribers: role === 'subscriber',
    // Only once no node is left: the names are looked up again then, since all addresses may be new ones.
    clusterRetryStrategy: reconnectDelay,
    // Names stay names, for the check of a certificate.
    dnsLookup: (host, callback) => callback(null, host),
    redisOptions: { ...connectionOptions(target, role), ...(target.tls ? { tls: target.tls } : {}) },
  };
}

function connectionOptions({ address }: RedisTarget, role: ConnectionRole): RedisOptions {
  const { username, password } = address;
  return {
    ...ROLE_OPTIONS[role],
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    connectionName: `tollgate-${role}`,
    connectTimeout: CONNECT_TIMEOUT_MS,
  };
}

function reconnectDelay(attempt: number): number {
  return Math.min(50 * 2 ** Math.min(attempt, 10), MAX_RECONNECT_DELAY_MS);
}
