import { createHash } from 'node:crypto';
import { type Logger, pino } from 'pino';

export type { Logger } from 'pino';

/** What ioredis ties to an error: the command with its arguments, in which passwords and texts of users stand. */
const REDIS_COMMAND = 'err.command';

/** Keys whose values are credentials; they are removed wherever they stand in the first two levels of a log object. */
const SECRET_KEYS = ['token', 'access_token', 'refresh_token', 'authorization', 'cookie', 'password', 'ticket'];

/** A structured logger on standard output. Message texts, tokens and addresses of users are never handed to it. */
export function createLogger(name: string, level: string): Logger {
  return pino({
    name,
    level,
    base: { pid: process.pid, name },
    timestamp: pino.stdTimeFunctions.isoTime,
    redact: { paths: [REDIS_COMMAND, ...SECRET_KEYS.flatMap((key) => [key, `*.${key}`])], remove: true },
  });
}

/** A user in a log line: the same user is recognisable within a deployment, but not named. */
export function userHash(userId: string): string {
  return createHash('sha256').update(userId).digest('hex').slice(0, 12);
}
