import { type Clock, sleep } from '../lib/clock.ts';
import { type ErrorDetails, TollgateError } from '../protocol/errors.ts';

/** Error replies of a Redis that is reachable but cannot serve requests now. Any other error reply indicates a bug. */
const CANNOT_SERVE =
  /^(OOM|MISCONF|LOADING|READONLY|CLUSTERDOWN|MASTERDOWN|NOREPLICAS|TRYAGAIN|BUSY|WRONGPASS|NOAUTH)\b/;
/**
 * Error messages of ioredis when it has no connection to Redis, and when the nodes of a cluster refer it to each other,
 * because a slot is between two shards.
 */
const NO_CONNECTION =
  /^(Connection is closed|Command timed out|Stream isn't writeable|Socket timeout|Too many Cluster redirections|Cluster isn't ready)|MaxRetries|ECONN|EPIPE/;
const RETRY_MS = 200;

/**
 * Redis is unavailable: it does not answer, or it rejects requests for now. Clients receive `OVERLOADED`, as from a
 * full node or queue. The class distinguishes the two: only an outage of Redis ends by itself, so only it is retried.
 */
export class RedisUnavailable extends TollgateError {
  constructor(details: ErrorDetails = {}) {
    super('OVERLOADED', details);
    this.name = 'RedisUnavailable';
  }

  override with(fields: Readonly<Record<string, unknown>>): RedisUnavailable {
    return new RedisUnavailable({ cause: this.cause, fields: { ...this.fields, ...fields } });
  }
}

/**
 * Maps errors of an unavailable Redis to `RedisUnavailable`, because an outage is not a bug. Other errors are returned
 * as they are.
 */
export function redisError(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const isOutage = error.name === 'ReplyError' ? CANNOT_SERVE.test(error.message) : isConnectionError(error);
  return isOutage ? new RedisUnavailable({ cause: error }) : error;
}

/**
 * Returns why a reachable Redis rejects writes: out of memory (`oom`) or a failing disk (`misconf`). Undefined for any
 * other error.
 */
export function writeRefusal(error: unknown): 'oom' | 'misconf' | undefined {
  const cause = error instanceof TollgateError ? error.cause : error;
  if (!(cause instanceof Error)) return undefined;
  if (/^OOM\b|\bOOM command not allowed/.test(cause.message)) return 'oom';
  return /\bMISCONF\b/.test(cause.message) ? 'misconf' : undefined;
}

function isConnectionError(error: Error): boolean {
  return NO_CONNECTION.test(error.message) || error.name === 'MaxRetriesPerRequestError' || error.name === 'AbortError';
}

/**
 * Awaits a Redis command and maps its errors.
 * @throws RedisUnavailable; Error for any other error reply
 */
export async function mapRedisErrors<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw redisError(error);
  }
}

/**
 * Repeats `work` while Redis is unavailable, for at most `timeoutMs`. `work` must be idempotent.
 * @throws the error of the last attempt
 */
export async function retryDuringOutage<T>(clock: Clock, timeoutMs: number, work: () => Promise<T>): Promise<T> {
  const deadlineAt = clock.now() + timeoutMs;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof RedisUnavailable) || clock.now() >= deadlineAt) throw error;
      await sleep(clock, RETRY_MS);
      // The process may have been suspended during the pause. Redis may no longer remember that an earlier attempt
      // arrived, so another attempt could execute the work twice.
      if (clock.now() >= deadlineAt) throw error;
    }
  }
}
