import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';

/** Member that the types of Node lack. */
type SocketInternals = Socket & { readonly _handle?: { readonly writeQueueSize: number } | null };

/** Member that the types of `ws` lack. */
interface WebSocketInternals {
  /** Null once the WebSocket is closed. */
  readonly _socket?: Socket | null;
}

/** As `socketProgress`, for the bytes that were written to a WebSocket. */
export function writeProgress(webSocket: WebSocket): string {
  return socketProgress((webSocket as WebSocketInternals)._socket);
}

/** Sockets whose writes of this tick are held back. */
let held: Socket[] = [];

/**
 * Holds the writes to a WebSocket back until the end of this tick, so that several frames leave with one system call. A
 * run sends several events at once, and a client may send several messages in one read.
 */
export function writeTogether(webSocket: WebSocket): void {
  const { _socket: socket } = webSocket as WebSocketInternals;
  if (!socket || socket.writableCorked > 0) return;
  if (held.length === 0) process.nextTick(writeHeld);
  held.push(socket);
  socket.cork();
}

function writeHeld(): void {
  const sockets = held;
  held = [];
  for (const socket of sockets) socket.uncork();
}

/**
 * Returns a text that changes whenever the kernel accepts bytes that were written to a socket. Chunks leave Node's buffer
 * in batches of up to several MiB, so the text includes the bytes of the current batch that libuv still holds. Node's own
 * socket timeout uses the same number.
 */
export function socketProgress(socket: Socket | null | undefined): string {
  if (!socket) return '';
  const completed = socket.bytesWritten - socket.writableLength;
  return `${completed} ${(socket as SocketInternals)._handle?.writeQueueSize ?? 0}`;
}
