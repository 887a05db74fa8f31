import { type Clock, sleep } from '../lib/clock.ts';
import { TollgateError } from '../protocol/errors.ts';

/** Error replies of a Redis that is reachable but cannot serve requests now. Any other error reply indicates a bug. */
const CANNOT_SERVE =
  /^(OOM|MISCONF|LOADING|READONLY|CLUSTERDOWN|MASTERDOWN|NOREPLICAS|TRYAGAIN|BUSY|WRONGPASS|NOAUTH)\b/;
/** Error messages of ioredis when it has no connection to Redis. */
const NO_CONNECTION =
  /^(Connection is closed|Command timed out|Stream isn't writeable|Socket timeout)|MaxRetries|ECONN|EPIPE/;
const RETRY_MS = 200;

/**
 * Maps errors of an unavailable Redis to `OVERLOADED`, because an outage is not a bug. Other errors are returned as
 * they are.
 */
export function redisError(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const isOutage = error.name === 'ReplyError' ? CANNOT_SERVE.test(error.message) : isConnectionError(error);
  return isOutage ? new TollgateError('OVERLOADED', { cause: error }) : error;
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
 * @throws TollgateError OVERLOADED while Redis is unavailable; Error for any other error reply
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
      const isOutage = error instanceof TollgateError && error.code === 'OVERLOADED';
      if (!isOutage || clock.now() >= deadlineAt) throw error;
      await sleep(clock, RETRY_MS);
      // The process may have been suspended during the pause. Redis may no longer remember that an earlier attempt
      // arrived, so another attempt could execute the work twice.
      if (clock.now() >= deadlineAt) throw error;
    }
  }
}
