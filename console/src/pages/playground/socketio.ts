import type { OpenTransport } from '@tollgate/client';
import { socketIoTransport } from '@tollgate/client/socketio';
import { io } from 'socket.io-client';

export function socketIo(): OpenTransport {
  return socketIoTransport(io, { transports: ['websocket'] });
}
