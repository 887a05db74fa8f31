import type { Config } from '../config.ts';
import { EventLog } from '../events/event-log.ts';
import { UserLogWriter } from '../events/user-log-writer.ts';
import type { Clock } from '../lib/clock.ts';
import type { Closers } from '../lib/closers.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Tracing } from '../lib/tracing.ts';
import { connectRedis, disconnectRedis, type Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import type { RedisVariables } from '../redis/options.ts';
import { ReplicatedWrites } from '../redis/replicated-writes.ts';
import { AcknowledgedRecords } from '../usage/recovery/acknowledged-records.ts';
import { LedgerServer } from '../usage/recovery/ledger-server.ts';

export interface EventLogServices {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly tracing: Tracing;
  readonly closers: Closers;
}

type LogConfig = RedisVariables &
  Pick<
    Config,
    | 'REDIS_WAIT_REPLICAS'
    | 'REDIS_WAIT_TIMEOUT_MS'
    | 'USAGE_JOURNAL_SECONDS'
    | 'EVENT_LOG_LENGTH'
    | 'EVENT_LOG_HOURS'
    | 'EVENT_LOG_BYTES'
  >;

export interface ComposedEventLog {
  readonly eventLog: EventLog;
  readonly log: UserLogWriter;
  readonly acknowledgedRecords: AcknowledgedRecords;
}

/** Composes the event log and the protection of its usage records against loss, for gateways and workers. */
export async function composeEventLog(services: EventLogServices, config: LogConfig): Promise<ComposedEventLog> {
  const { redis, keys, metrics, tracing, closers } = services;
  const server = new LedgerServer({ redis, keys });
  const acknowledgedRecords = new AcknowledgedRecords(
    { ...services, server },
    { keptMs: config.USAGE_JOURNAL_SECONDS * 1000 },
  );
  closers.add('acknowledged records', () => acknowledgedRecords.stop());
  acknowledgedRecords.start();
  const replicated = config.REDIS_WAIT_REPLICAS > 0 ? await openReplicated(services, config) : undefined;
  const log = new UserLogWriter(
    { redis, keys, metrics, tracing, replicated, recordObserver: acknowledgedRecords },
    {
      length: config.EVENT_LOG_LENGTH,
      maxAgeMs: config.EVENT_LOG_HOURS * 3_600_000,
      maxBytes: config.EVENT_LOG_BYTES,
    },
  );
  return { eventLog: new EventLog({ redis, keys, metrics }), log, acknowledgedRecords };
}

async function openReplicated(
  { logger, metrics, closers }: EventLogServices,
  config: LogConfig,
): Promise<ReplicatedWrites> {
  const connection = await connectRedis(config, 'commands', logger);
  closers.add('replicated redis', () => disconnectRedis(connection));
  const watch = { unreplicated: metrics.unreplicatedWrites, logger };
  return new ReplicatedWrites(connection, watch, {
    replicas: config.REDIS_WAIT_REPLICAS,
    timeoutMs: config.REDIS_WAIT_TIMEOUT_MS,
  });
}
