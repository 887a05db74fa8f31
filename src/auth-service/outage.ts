import { TollgateError } from '../protocol/errors.ts';

/** Replies by which a server says that it is not in a state to serve; any other error reply is a fault of ours. */
const NOT_SERVING = /^(LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|OOM|MISCONF|NOREPLICAS|BUSY|EXECABORT)\b/;

/**
 * What Redis answers, or OVERLOADED when it does not: an outage must look like one, never like a wrong credential, and
 * ioredis has no common class for its connection errors.
 */
export async function answered<T>(reply: Promise<T>): Promise<T> {
  try {
    return await reply;
  } catch (cause) {
    const fault = cause instanceof Error && cause.name === 'ReplyError' && !NOT_SERVING.test(cause.message);
    throw fault ? cause : new TollgateError('OVERLOADED', { cause });
  }
}
