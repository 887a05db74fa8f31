import type { ClientOptions } from './clients.ts';

/** Every place for a credential in a handshake, for any user. */
export const ENDPOINT_CASES: readonly (readonly [string, ClientOptions])[] = [
  ['/ws', { path: '/ws' }],
  ['/ws/secure', { path: '/ws/secure' }],
  ['/ws/mcp', { path: '/ws/mcp' }],
  ['/socket.io/ by WebSocket', { transport: 'socketio' }],
  ['/socket.io/ by polling', { transport: 'socketio', socketIoTransports: ['polling'] }],
];
