import type { FormatName, ReplyTo } from '../protocol/dialects.ts';
import type { TollgateError } from '../protocol/errors.ts';
import type { Fields, LogEntry, ServerEventType } from '../protocol/messages.ts';

/**
 * The socket of a client, independent of its kind: raw WebSocket, Socket.IO over any of its transports, JSON-RPC, or
 * the response of an HTTP request. No method throws on a closed socket.
 */
export interface Transport {
  /** Path of the endpoint, for the welcome and the metrics. */
  readonly endpoint: string;
  readonly format: FormatName;
  /** Name of the stream that the connection carries. It replaces an earlier connection of the user with this stream. */
  readonly stream?: string;
  /** Bytes written but not yet read by the client; for Socket.IO, an estimate from its packets. */
  readonly bufferedBytes: number;
  /** Changes whenever the client reads some of the buffered output. */
  readonly progress: string;
  send(type: ServerEventType, fields: Fields, replyTo?: ReplyTo): void;
  sendEntry(entry: LogEntry): void;
  /** Sends an already encoded frame; only on connections that carry messages of another protocol. */
  sendFrame?(frame: string): void;
  sendError(error: TollgateError, replyTo?: ReplyTo): void;
  /** Sends a ping; the transport reports the pong through `Connection.markAlive`. */
  ping(): void;
  /** Closes the socket. If the client does not answer the close frame, the socket is terminated after a short time. */
  close(code: number, reason: string): void;
}
