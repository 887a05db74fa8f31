import { createHash } from 'node:crypto';
import { type Logger, pino } from 'pino';

export type { Logger } from 'pino';

/** Keys whose values are credentials; they are removed wherever they stand in the first two levels of a log object. */
const SECRET_KEYS = ['token', 'access_token', 'refresh_token', 'authorization', 'cookie', 'password', 'ticket'];
const MAX_MESSAGE_LENGTH = 500;
const MAX_FRAMES = 20;
const MAX_CAUSES = 4;

/**
 * A structured logger on standard output. Message texts, tokens and addresses of users are never handed to it; of an
 * error it keeps what is known to hold none.
 * @param fields what every line has at the time it is written, such as the ids of the trace that is under way; a new
 *   object each time, since pino writes into it
 */
export function createLogger(name: string, level: string, fields?: () => object): Logger {
  return pino({
    name,
    level,
    base: { pid: process.pid, name },
    timestamp: pino.stdTimeFunctions.isoTime,
    redact: { paths: SECRET_KEYS.flatMap((key) => [key, `*.${key}`]), remove: true },
    serializers: { err: describeError },
    ...(fields ? { mixin: fields } : {}),
  });
}

/**
 * Writes the warnings of Node (deprecations, listeners that pile up) as lines of the log, in place of the plain text that
 * Node prints to standard error.
 */
export function logWarnings(logger: Pick<Logger, 'warn'>): void {
  process.removeAllListeners('warning');
  process.on('warning', (warning) => logger.warn({ err: warning }, 'warning of Node'));
}

/** A user in a log line: the same user is recognisable within a deployment, but not named. */
export function userHash(userId: string): string {
  return createHash('sha256').update(userId).digest('hex').slice(0, 12);
}

/**
 * An error as it is logged. Errors carry what they failed on: ioredis's the whole command with a user's message among
 * its arguments, Node's for JSON the text that is none. So only these four are taken, and their texts without quotations.
 */
export function describeError(thrown: unknown, depth = 0): object {
  if (!(thrown instanceof Error)) return { type: typeof thrown };
  const { name, stack = '', cause } = thrown;
  const code = 'code' in thrown && (typeof thrown.code === 'string' || typeof thrown.code === 'number');
  const frames = stack.split('\n').filter((line) => /^ {4}at /.test(line));
  return {
    type: name,
    message: messageOf(thrown),
    ...(code ? { code: thrown.code } : {}),
    stack: frames.slice(0, MAX_FRAMES).join('\n'),
    ...(cause !== undefined && depth < MAX_CAUSES ? { cause: describeError(cause, depth + 1) } : {}),
  };
}

function messageOf({ name, message }: Error): string {
  // Node quotes the text around what it could not parse.
  if (name === 'SyntaxError') return 'not the syntax that was expected';
  // Redis repeats the beginning of a command that it does not know.
  const [text = ''] = message.split(/, with args beginning with/, 1);
  return text.slice(0, MAX_MESSAGE_LENGTH);
}
