import type { ClientOptions } from './clients.ts';

/** Every place where a handshake can bring a credential, whoever it is of. */
export const ENDPOINT_CASES: readonly (readonly [string, ClientOptions])[] = [
  ['/ws', { path: '/ws' }],
  ['/ws/secure', { path: '/ws/secure' }],
  ['/ws/mcp', { path: '/ws/mcp' }],
  ['/socket.io/ by WebSocket', { transport: 'socketio' }],
  ['/socket.io/ by polling', { transport: 'socketio', socketIoTransports: ['polling'] }],
];
