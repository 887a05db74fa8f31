import { type Clock, sleep } from '../lib/clock.ts';
import { TollgateError } from '../protocol/errors.ts';

/** Answers of a Redis that is there but cannot serve now; anything else it answers is a fault of ours. */
const CANNOT_SERVE =
  /^(OOM|MISCONF|LOADING|READONLY|CLUSTERDOWN|MASTERDOWN|NOREPLICAS|TRYAGAIN|BUSY|WRONGPASS|NOAUTH)\b/;
/** What ioredis says when there is no Redis to answer. */
const NO_CONNECTION =
  /^(Connection is closed|Command timed out|Stream isn't writeable|Socket timeout)|MaxRetries|ECONN|EPIPE/;
const RETRY_MS = 200;

/** Redis being away is an outage, not a bug: it has its own row in the error table. */
export function redisError(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const isOutage = error.name === 'ReplyError' ? CANNOT_SERVE.test(error.message) : isConnectionError(error);
  return isOutage ? new TollgateError('OVERLOADED', { cause: error }) : error;
}

/** Why Redis refuses to write although it answers: its memory is full, or its disk. Undefined for any other error. */
export function writeRefusal(error: unknown): 'oom' | 'misconf' | undefined {
  const cause = error instanceof TollgateError ? error.cause : error;
  if (!(cause instanceof Error)) return undefined;
  if (/^OOM\b|\bOOM command not allowed/.test(cause.message)) return 'oom';
  return /\bMISCONF\b/.test(cause.message) ? 'misconf' : undefined;
}

function isConnectionError(error: Error): boolean {
  return NO_CONNECTION.test(error.message) || error.name === 'MaxRetriesPerRequestError' || error.name === 'AbortError';
}

/** What Redis answers. @throws TollgateError OVERLOADED while it is away; Error for what it answers to a wrong question */
export async function mapRedisErrors<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw redisError(error);
  }
}

/**
 * Does `work` again while Redis is away, for at most `patienceMs`. Only for what may be done twice.
 * @throws what the last attempt threw
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
      // Stopped meanwhile: that the attempt before did arrive may be forgotten by now, and the work done twice.
      if (clock.now() >= deadlineAt) throw error;
    }
  }
}
