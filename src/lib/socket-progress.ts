import type { Socket } from 'node:net';

/** Member that the types of Node lack. */
type SocketInternals = Socket & { readonly _handle?: { readonly writeQueueSize: number } | null };

/**
 * Returns a text that changes whenever the kernel accepts bytes that were written to a socket. Chunks leave Node's
 * buffer in batches of up to several MiB, so the text includes the bytes of the current batch that libuv still holds.
 * Node's own socket timeout uses the same number.
 */
export function socketProgress(socket: Socket | null | undefined): string {
  if (!socket) return '';
  const completed = socket.bytesWritten - socket.writableLength;
  return `${completed} ${(socket as SocketInternals)._handle?.writeQueueSize ?? 0}`;
}
