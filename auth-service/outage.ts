import { TollgateError } from '../src/protocol/errors.ts';
import { redisError } from '../src/redis/errors.ts';

/**
 * What Redis answers to a command, or OVERLOADED when it does not: an outage must look like one, never like a wrong
 * credential. Scripts say so themselves.
 */
export async function answered<T>(reply: Promise<T>): Promise<T> {
  try {
    return await reply;
  } catch (error) {
    // A transaction is refused as a whole for a reason given to one of its commands; ours have none but the server's.
    const aborted = error instanceof Error && error.message.startsWith('EXECABORT');
    throw aborted ? new TollgateError('OVERLOADED', { cause: error }) : redisError(error);
  }
}
