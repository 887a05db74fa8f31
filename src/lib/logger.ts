import { createHash } from 'node:crypto';
import { type Logger, pino } from 'pino';

export type { Logger } from 'pino';

/** Keys of credentials. They are removed from the first two levels of a log object. */
const SECRET_KEYS = ['token', 'access_token', 'refresh_token', 'authorization', 'cookie', 'password', 'ticket'];
const MAX_MESSAGE_LENGTH = 500;
const MAX_FRAMES = 20;
const MAX_CAUSES = 4;

/**
 * Creates a structured logger on standard output. Callers never pass message texts, tokens or addresses of users to it.
 * Errors are reduced to the parts that cannot contain any (`describeError`).
 * @param fields returns fields for the current line, such as the ids of the active trace; must return a new object each
 *   time, because pino modifies it
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
 * Writes Node's warnings (deprecations, possible listener leaks) to the log, instead of the plain text that Node
 * prints to standard error.
 */
export function logWarnings(logger: Pick<Logger, 'warn'>): void {
  process.removeAllListeners('warning');
  process.on('warning', (warning) => logger.warn({ err: warning }, 'Node.js warning'));
}

/** Hashes a user id for logs: lines of one user can be correlated without naming the user. */
export function userHash(userId: string): string {
  return createHash('sha256').update(userId).digest('hex').slice(0, 12);
}

/**
 * Returns the loggable part of an error: type, message, code and stack, and the same of its causes. Errors can
 * contain user data: those of ioredis have the whole command with a user's message among its arguments, and JSON
 * errors of Node quote the invalid text. Other properties are therefore dropped, and quotations are removed from the
 * message.
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
  // Node quotes the text around the position of the syntax error.
  if (name === 'SyntaxError') return 'invalid syntax';
  // Redis quotes the beginning of an unknown command.
  const [text = ''] = message.split(/, with args beginning with/, 1);
  return text.slice(0, MAX_MESSAGE_LENGTH);
}
