import type { Config } from '../config.ts';
import type { FormatName } from '../protocol/dialects.ts';

/** Bounds of one connection, in milliseconds, bytes and messages. */
export interface ConnectionLimits {
  /** From the socket's open until authentication; messages do not extend it. */
  readonly authDeadlineMs: number;
  readonly heartbeatMs: number;
  /** Longest time without a frame or a pong. */
  readonly idleTimeoutMs: number;
  /** From the socket's open, ± 10 %, until the node asks the client to reconnect to any node; 0 for never. */
  readonly maxAgeMs: number;
  /** Grace period after the expiry of a token that cannot be refreshed. */
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

/** Largest MCP message: the largest frame, above which the socket is closed with 1009. */
const RPC_MESSAGE_BYTES = 64 * 1024;

/**
 * Largest frame of a chat: clients send the whole conversation with each message. Its last message has the usual limit.
 */
export const UI_CHAT_FRAME_BYTES = 1024 * 1024;

/** Returns the largest message that a connection of this format may send; its welcome contains the same number. */
export function maxMessageBytes(limits: Pick<ConnectionLimits, 'maxMessageBytes'>, format: FormatName): number {
  if (format === 'ui_chat') return UI_CHAT_FRAME_BYTES;
  return format === 'jsonrpc' ? RPC_MESSAGE_BYTES : limits.maxMessageBytes;
}

/** Consecutive unreadable frames after which the connection is closed. */
export const BAD_FRAMES_LIMIT = 20;
/** Messages before authentication: enough for pings and a few authentication attempts. */
export const UNAUTHENTICATED_MESSAGES = 50;
/** Total bytes before authentication: several tokens, which have 8 KiB at most. */
export const UNAUTHENTICATED_BYTES = 64 * 1024;
/** Messages per connection that wait in the dispatcher's queue. */
export const MESSAGE_QUEUE_LIMIT = 64;
/**
 * Time after the close of a socket in which the messages that arrived before it are handled. Their usual time is one
 * round trip to Redis; the bound applies while Redis or the auth service is slow.
 */
export const CLOSE_HANDLING_MS = 5_000;
/** Largest unread output per connection. */
export const OUTPUT_LIMIT_BYTES = 4 * 1024 * 1024;
/** Replay continues when at most this much output is unread. */
export const OUTPUT_LOW_BYTES = 256 * 1024;
/** How long a client may take to read a batch of replayed events, and how long it may read no buffered output. */
export const OUTPUT_TIMEOUT_MS = 10_000;
/**
 * How long the live events of a new connection wait for a possible `resume`, whose replay must precede them. The first
 * other message ends the wait, so only a client that sends nothing can observe the delay.
 */
export const RESUME_GRACE_MS = 250;

/** Messages per connection that are answered out of order, such as tool calls; further ones get `RATE_LIMITED`. */
export const OUT_OF_ORDER_LIMIT = 8;
