import { readFileSync } from 'node:fs';
import type { ConnectionOptions } from 'node:tls';
import type { ClusterOptions, RedisOptions } from 'ioredis';
import { type Config, UnusableConfiguration } from '../config.ts';
import { parseRedisUrl, type RedisAddress } from '../lib/redis-url.ts';
import { sentinelConnector, serverConnector } from './connectors.ts';

/**
 * The role of a connection.
 *
 * - `commands`: all commands of requests. They fail immediately while Redis is unavailable, so that a request gets an
 *   error instead of waiting in a queue. A command is never sent twice, because a repeated XADD would append a second
 *   event.
 * - `subscriber`: subscriptions, restored after a reconnect.
 * - `blocking`: BullMQ workers, which wait for Redis to come back without a limit. Their commands can be sent twice, and
 *   so can their jobs.
 */
export type ConnectionRole = 'commands' | 'subscriber' | 'blocking';

/** The variables that configure the connection to Redis. Only `REDIS_URL` is required. */
export type RedisVariables = Pick<Config, 'REDIS_URL'> & Partial<Pick<Config, RedisVariableName>>;
type RedisVariableName = Extract<keyof Config, `REDIS_SENTINEL_${string}` | `REDIS_TLS_${string}`>;

const CONNECT_TIMEOUT_MS = 5_000;
/** Three orders of magnitude longer than any script here takes. A Redis that needs more counts as unavailable. */
const COMMAND_TIMEOUT_MS = 3_000;
const MAX_RECONNECT_DELAY_MS = 1_000;
/** A connection that receives nothing for this long is closed and reopened: the peer may have disappeared silently. */
const SILENCE_MS = 5_000;
/** The same for a connection on which BullMQ waits for jobs, for at most 10 s per command. */
const BLOCKING_SILENCE_MS = 15_000;
/**
 * Interval of the periodic slot map refresh. A failover that breaks no connection causes no error, so only a refresh
 * detects it. Each refresh compares 16,384 slots as text, which takes milliseconds; a shorter interval would cost too
 * much.
 */
const SLOTS_REFRESH_MS = 5_000;
const SLOTS_TIMEOUT_MS = 2_000;

const ROLE_OPTIONS: Record<ConnectionRole, RedisOptions> = {
  commands: { maxRetriesPerRequest: 0, commandTimeout: COMMAND_TIMEOUT_MS, socketTimeout: SILENCE_MS },
  subscriber: { maxRetriesPerRequest: null, socketTimeout: SILENCE_MS },
  blocking: { maxRetriesPerRequest: null, socketTimeout: BLOCKING_SILENCE_MS },
};

/** The parsed connection variables, with the contents of the files that they name. */
export interface RedisTarget {
  readonly address: RedisAddress;
  readonly tls: ConnectionOptions | undefined;
  readonly sentinelUsername: string | undefined;
  readonly sentinelPassword: string | undefined;
}

/** @throws UnusableConfiguration for an invalid URL, or a file that cannot be read */
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

/** Returns the options for a single server, or for the master that the Sentinels report. */
export function redisOptions(target: RedisTarget, role: ConnectionRole): RedisOptions {
  const { address, tls } = target;
  const [node] = address.nodes;
  return {
    ...connectionOptions(target, role),
    db: address.db,
    enableOfflineQueue: role !== 'commands',
    autoResendUnfulfilledCommands: role === 'blocking',
    retryStrategy: reconnectDelay,
    // READONLY comes from a former master that is now a replica, or from a managed Redis whose host name now points to
    // another server; UNBLOCKED is its reply to commands that wait there, as those of BullMQ workers do. The client
    // reconnects, which leads to the new master, and does not send the rejected command again.
    reconnectOnError: ({ message }) => /\b(READONLY|UNBLOCKED)\b/.test(message),
    ...node,
    Connector: address.topology === 'sentinel' ? sentinelsOf(target) : serverConnector(node, tls),
    ...(tls ? { tls } : {}),
  };
}

function sentinelsOf({ address, tls, sentinelUsername, sentinelPassword }: RedisTarget): RedisOptions['Connector'] {
  const connection: RedisOptions = {
    ...(sentinelUsername === undefined ? {} : { username: sentinelUsername }),
    ...(sentinelPassword === undefined ? {} : { password: sentinelPassword }),
    ...(tls ? { tls } : {}),
  };
  return sentinelConnector(
    { masterName: address.masterName ?? '', nodes: address.nodes, connection, reconnectDelay },
    tls,
  );
}

export function clusterOptions(target: RedisTarget, role: ConnectionRole): ClusterOptions {
  // A node that answers MOVED, ASK, or TRYAGAIN during a slot migration has not executed the command, so the client
  // sends it again. A command on a lost connection may have been executed, so the client does not send it again.
  const again = role === 'blocking' ? {} : { retryDelayOnFailover: 0, retryDelayOnClusterDown: 0 };
  return {
    ...again,
    enableOfflineQueue: role !== 'commands',
    slotsRefreshInterval: SLOTS_REFRESH_MS,
    slotsRefreshTimeout: SLOTS_TIMEOUT_MS,
    shardedSubscribers: role === 'subscriber',
    // Called only when no node is reachable. Host names are resolved again then, because all addresses may have
    // changed.
    clusterRetryStrategy: reconnectDelay,
    // Keeps host names unresolved, because TLS verifies the certificate against the name.
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
