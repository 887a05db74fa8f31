import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';

/** What `ws` and Node leave out of their types. */
interface WebSocketInternals {
  /** Null once the WebSocket is closed. */
  readonly _socket?: (Socket & { readonly _handle?: { readonly writeQueueSize: number } | null }) | null;
}

/**
 * A text that changes whenever the kernel takes bytes of what the process has written to a WebSocket. Written chunks leave
 * Node's buffer in batches of up to several MiB, so that the bytes which libuv still holds of the current batch count too:
 * Node's own socket timeout looks at the same number.
 */
export function writeProgress(webSocket: WebSocket): string {
  const { _socket: socket } = webSocket as WebSocketInternals;
  if (!socket) return '';
  const completed = socket.bytesWritten - socket.writableLength;
  return `${completed} ${socket._handle?.writeQueueSize ?? 0}`;
}
