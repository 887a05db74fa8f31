import type { FormatName, IncomingMessage, ReplyTo } from '../protocol/dialects.ts';
import type { TollgateError } from '../protocol/errors.ts';
import type { Fields, LogEntry, ServerEventType } from '../protocol/messages.ts';

/**
 * A client's socket as everything below `transports/` sees it: nobody here can tell whether it is a raw WebSocket, a
 * Socket.IO session over polling or JSON-RPC. None of the methods throws on a socket that is already closed.
 */
export interface Transport {
  /** The endpoint's path, for the welcome and the metrics. */
  readonly endpoint: string;
  readonly format: FormatName;
  /** Bytes (for Socket.IO: packets, weighed) written but not yet taken by the client. */
  readonly bufferedBytes: number;
  /** A text that changes whenever the client takes some of what is buffered. */
  readonly progress: string;
  send(type: ServerEventType, fields: Fields, replyTo?: ReplyTo): void;
  sendEntry(entry: LogEntry): void;
  /** A frame that is finished; only where another protocol is spoken beside ours. */
  sendFrame?(frame: string): void;
  sendError(error: TollgateError, replyTo?: ReplyTo): void;
  /** Asks for a sign of life; the transport reports it through `TransportEvents.alive`. */
  ping(): void;
  /** Ends the socket. A client that does not answer the close is cut off after a short time. */
  close(code: number, reason: string): void;
}

/** What a transport tells the connection it belongs to. */
export interface TransportEvents {
  /** A message in the order it was received. */
  receive(message: IncomingMessage): void;
  /** A frame that could not be understood. */
  reject(error: TollgateError, replyTo: ReplyTo): void;
  /** Bytes of a frame, before the frame is told of: there is a bound on them until the client has authenticated. */
  countBytes(bytes: number): void;
  /** A sign of life that is no message. */
  markAlive(): void;
  /** The socket is gone, whoever closed it. */
  onClose(): void;
}
