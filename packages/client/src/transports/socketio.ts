import type { io as Io } from 'socket.io-client';
import { CloseTracker, isFields, type OpenTransport } from './transport.ts';

export interface SocketIoOptions {
  /** Transports of Engine.IO, in order. Long polling behind a load balancer needs sticky sessions. */
  readonly transports?: readonly ('websocket' | 'polling')[];
}

/** Connects over Socket.IO. Its own reconnection is off, because the client resumes from its position itself. */
export function socketIoTransport(io: typeof Io, options: SocketIoOptions = {}): OpenTransport {
  return ({ url, token, position }, handlers) => {
    const tracker = new CloseTracker(handlers);
    const socket = io(url, {
      auth: { token, ...position },
      transports: [...(options.transports ?? ['websocket', 'polling'])],
      // Keeps the load balancer's cookie outside of browsers too.
      withCredentials: true,
      reconnection: false,
      forceNew: true,
    });
    socket.onAny((type: string, fields: unknown) => tracker.message(type, isFields(fields) ? fields : {}));
    socket.on('connect_error', (error) => {
      const data: unknown = 'data' in error ? error.data : undefined;
      if (isFields(data)) tracker.message('error', data);
      tracker.close(`Socket.IO: ${error.message}`);
      socket.disconnect();
    });
    // The gateway disconnects a client that must not come back, and closes the transport of any other.
    socket.on('disconnect', (reason) => {
      tracker.close(`Socket.IO: ${reason}`, { final: reason === 'io server disconnect' });
    });
    return {
      send: (type, fields) => void socket.emit(type, fields),
      close: () => {
        tracker.mute();
        socket.disconnect();
      },
    };
  };
}
