import type { Config } from '../config.ts';
import type { FormatName } from '../protocol/dialects.ts';

/** The bounds of one connection, in milliseconds, bytes and messages. */
export interface ConnectionLimits {
  /** From the open until authentication, whatever is sent meanwhile. */
  readonly authDeadlineMs: number;
  readonly heartbeatMs: number;
  /** Without a frame or a pong. */
  readonly idleTimeoutMs: number;
  /** From the open, give or take a tenth, until the client is asked to come back, on whichever node; 0 for never. */
  readonly maxAgeMs: number;
  /** After a token's end, while it cannot be renewed. */
  readonly degradedMs: number;
  readonly maxMessageBytes: number;
  readonly maxConnectionsPerUser: number;
}

export function connectionLimits(config: Config): ConnectionLimits {
  return {
    authDeadlineMs: config.AUTH_DEADLINE_SECONDS * 1000,
    heartbeatMs: config.HEARTBEAT_INTERVAL_SECONDS * 1000,
    idleTimeoutMs: config.CONNECTION_TIMEOUT_SECONDS * 1000,
    maxAgeMs: config.MAX_CONNECTION_AGE_SECONDS * 1000,
    degradedMs: config.TOKEN_DEGRADED_TIMEOUT_SECONDS * 1000,
    maxMessageBytes: config.MAX_MESSAGE_BYTES,
    maxConnectionsPerUser: config.MAX_CONNECTIONS_PER_USER,
  };
}

/** Where MCP is spoken: its messages are as large as a frame may be, above which the socket is closed with 1009. */
const RPC_MESSAGE_BYTES = 64 * 1024;

/** The largest message that a connection of this format may send: what is refused above, and what its welcome says. */
export function maxMessageBytes(limits: Pick<ConnectionLimits, 'maxMessageBytes'>, format: FormatName): number {
  return format === 'jsonrpc' ? RPC_MESSAGE_BYTES : limits.maxMessageBytes;
}

/** Frames in a row that could not be understood, after which the client is no client of ours. */
export const BAD_FRAMES_LIMIT = 20;
/** Messages before authentication: enough for pings and a few attempts. */
export const UNAUTHENTICATED_MESSAGES = 50;
/** And all of them together: a token is 8 KiB at most. */
export const UNAUTHENTICATED_BYTES = 64 * 1024;
/** Messages that wait for the one before them. */
export const MESSAGE_QUEUE_LIMIT = 64;
/** Output that waits for the client. */
export const OUTPUT_LIMIT_BYTES = 4 * 1024 * 1024;
/** Replay goes on below this. */
export const OUTPUT_LOW_BYTES = 256 * 1024;
/** How long a client may take to read what was replayed to it, and how long to take nothing of what is buffered. */
export const OUTPUT_TIMEOUT_MS = 10_000;
/**
 * How long a fresh connection's live events wait for a `resume` that would have to come before them. The first other
 * message ends the wait, so that only somebody who just listens can notice it.
 */
export const RESUME_GRACE_MS = 250;

/** Messages of a connection that are answered later, such as tool calls; above it the client is asked to wait. */
export const OUT_OF_ORDER_LIMIT = 8;
