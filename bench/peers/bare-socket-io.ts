import { createServer } from 'node:http';
import { createShardedAdapter } from '@socket.io/redis-adapter';
import { Redis } from 'ioredis';
import { Server } from 'socket.io';
import { peerSettings, tokenCheck } from './token-check.ts';

/** Socket.IO as its documentation describes it: a JWT middleware, a room per user, the sharded Redis adapter. */
const settings = peerSettings();
const userOf = tokenCheck(settings);
const server = createServer((_request, response) => response.end('ready'));
const io = new Server(server, {
  transports: ['websocket'],
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
  adapter: createShardedAdapter(new Redis(settings.redisUrl), new Redis(settings.redisUrl)),
});
io.use((socket, next) => {
  try {
    socket.data.userId = userOf(socket.handshake.auth.token);
    next();
  } catch {
    next(new Error('unauthorized'));
  }
});
io.on('connection', async (socket) => {
  await socket.join(`user:${socket.data.userId}`);
  socket.emit('connection_established', { user_id: socket.data.userId });
});
server.listen(settings.port, '127.0.0.1');
