import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';
import { socketProgress } from '../lib/socket-progress.ts';

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
