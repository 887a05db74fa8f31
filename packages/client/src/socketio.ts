export { type SocketIoOptions, socketIoTransport } from './transports/socketio.ts';
