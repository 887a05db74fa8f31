import { randomBytes } from 'node:crypto';
import { Revocations } from '../../src/accounts/revocations.ts';
import { TokenSeal } from '../../src/auth/token-refresh/token-seal.ts';
import { TokenSessions } from '../../src/auth/token-refresh/token-sessions.ts';
import { Catalogues } from '../../src/catalogue/catalogues.ts';
import type { Plans } from '../../src/catalogue/plans.ts';
import type { TokenEvent } from '../../src/connections/token-lifecycle.ts';
import { EventLog } from '../../src/events/event-log.ts';
import { LiveTail } from '../../src/events/live-tail.ts';
import { UserLogWriter } from '../../src/events/user-log-writer.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { Listeners } from '../../src/lib/listeners.ts';
import { createLogger } from '../../src/lib/logger.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING, type Tracing } from '../../src/lib/tracing.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import type { RunQueue } from '../../src/runs/run-queue.ts';
import { closeAfter } from './open-resources.ts';
import { testRedisUrl } from './stack.ts';

/** The default of `EVENT_LOG_BYTES`. */
export const LOG_BYTES = 8 * 1024 * 1024;
export const silentLogger = createLogger('test', 'silent');
/** For runs whose jobs no worker executes. */
export const NO_QUEUE: RunQueue = { add: async () => undefined };

/** Components that need only Redis, on the test Redis under a private key prefix. */
export interface Core {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly metrics: Metrics;
  readonly tracing: Tracing;
  readonly plans: Plans;
  readonly eventLog: EventLog;
  readonly log: UserLogWriter;
}

export async function startCore(
  options: { readonly logLength?: number; readonly maxAgeMs?: number; readonly logBytes?: number } = {},
): Promise<Core> {
  const redis = await connectRedis(testRedisUrl(), 'commands', silentLogger);
  closeAfter('file', () => disconnectRedis(redis));
  const keys = new Keys(`c${randomBytes(6).toString('hex')}`);
  const metrics = new Metrics();
  const limits = {
    length: options.logLength ?? 1_000,
    maxAgeMs: options.maxAgeMs ?? 3_600_000,
    maxBytes: options.logBytes ?? LOG_BYTES,
  };
  const tracing = NO_TRACING;
  const eventLog = new EventLog({ redis, keys, metrics });
  const log = new UserLogWriter({ redis, keys, metrics, tracing }, limits);
  return { redis, keys, metrics, tracing, plans: new Catalogues().plans, eventLog, log };
}

/** Returns what an attachment needs for its token, for tests without refreshes. */
export function tokenDeps({ redis, keys }: Core) {
  const seal = new TokenSeal('the secret of nobody, in tests only');
  const times = { leadMs: 15_000, graceMs: 180_000 };
  return {
    revocations: new Revocations({ redis, keys }),
    limits: { degradedMs: times.graceMs },
    tracing: NO_TRACING,
    authenticator: { renewal: () => Promise.reject(new Error('nothing to renew')) },
    tokenSessions: new TokenSessions({ redis, keys, clock: systemClock, seal }, times),
    tokenEvents: new Listeners<TokenEvent>((error) => {
      throw error;
    }),
  };
}

/** Starts a live tail with its own connection, as each node has one. */
export async function startTail(core: Core): Promise<{ tail: LiveTail; subscriber: Redis }> {
  const subscriber = await connectRedis(testRedisUrl(), 'subscriber', silentLogger);
  closeAfter('file', () => disconnectRedis(subscriber));
  return {
    tail: new LiveTail({ redis: subscriber, keys: core.keys, clock: systemClock, logger: silentLogger }),
    subscriber,
  };
}

/** Returns the list to which each message on a sharded channel is added from now on. */
export async function messagesOn(channel: string): Promise<readonly string[]> {
  const subscriber = await connectRedis(testRedisUrl(), 'subscriber', silentLogger);
  closeAfter('test', () => disconnectRedis(subscriber));
  const messages: string[] = [];
  subscriber.on('smessage', (_channel: unknown, message: unknown) => messages.push(String(message)));
  await subscriber.ssubscribe(channel);
  return messages;
}

/** Returns an event for a log, identifiable by its text. */
export function thinking(text: string) {
  const timestamp = new Date().toISOString();
  return { type: 'agent_thinking', fields: { thought: text, timestamp } } as const;
}
