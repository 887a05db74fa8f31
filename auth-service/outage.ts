import { RedisUnavailable, redisError } from '../src/redis/errors.ts';

/**
 * Returns the reply of Redis to a command; throws RedisUnavailable if there is none, so that an outage is never reported as a
 * wrong credential. `LuaScript` maps the errors of scripts itself.
 */
export async function answered<T>(reply: Promise<T>): Promise<T> {
  try {
    return await reply;
  } catch (error) {
    // EXECABORT: Redis rejected a command of the transaction. The commands are valid, so the cause is the state of
    // the server.
    const aborted = error instanceof Error && error.message.startsWith('EXECABORT');
    throw aborted ? new RedisUnavailable({ cause: error }) : redisError(error);
  }
}
