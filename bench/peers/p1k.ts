import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-adapter';
import { Redis } from 'ioredis';
import { Server } from 'socket.io';
import { peerSettings, tokenCheck } from './token-check.ts';
import { JOBS, type PeerJob } from './turn.ts';

/**
 * P1k: Socket.IO with the classic Redis adapter, a JWT verified with a KeyObject, a room per user and a message limit in
 * the process.
 */
const settings = peerSettings();
const userOf = tokenCheck(settings);
const redis = new Redis(settings.redisUrl);
const server = createServer((_request, response) => response.end('ready'));
const io = new Server(server, {
  transports: ['websocket'],
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
  adapter: createAdapter(new Redis(settings.redisUrl), new Redis(settings.redisUrl)),
});
/** High enough for every measurement, so that it only costs. */
const PER_MINUTE = 1_000_000;
const MINUTE_MS = 60_000;

io.use((socket, next) => {
  try {
    socket.data.userId = userOf(socket.handshake.auth.token);
    next();
  } catch {
    next(new Error('unauthorized'));
  }
});
io.on('connection', async (socket) => {
  const userId: string = socket.data.userId;
  let [messages, since] = [0, Date.now()];
  const isAllowed = () => {
    if (Date.now() - since > MINUTE_MS) [messages, since] = [0, Date.now()];
    return ++messages <= PER_MINUTE;
  };
  socket.on('ping', () => {
    if (isAllowed()) socket.emit('pong', { timestamp: new Date().toISOString() });
  });
  socket.on('agent_request', ({ message }: { message: string }) => {
    if (!isAllowed()) return;
    const job: PeerJob = { user_id: userId, run_id: `run_${Math.random().toString(36).slice(2)}`, message };
    void redis.rpush(JOBS, JSON.stringify(job));
    socket.emit('agent_accepted', { run_id: job.run_id });
  });
  await socket.join(`user:${userId}`);
  socket.emit('connection_established', { user_id: userId });
});
server.listen(settings.port, '127.0.0.1');
