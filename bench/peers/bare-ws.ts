import { createServer } from 'node:http';
import { Redis } from 'ioredis';
import { type WebSocket, WebSocketServer } from 'ws';
import { peerSettings, tokenCheck } from './token-check.ts';

/** `ws` alone: a JWT at the upgrade, one sharded channel per user, published messages go to the user's sockets. */
const settings = peerSettings();
const userOf = tokenCheck(settings);
const subscriber = new Redis(settings.redisUrl);
const socketsByChannel = new Map<string, Set<WebSocket>>();
const server = createServer((_request, response) => response.end('ready'));
const sockets = new WebSocketServer({ noServer: true, clientTracking: false, perMessageDeflate: false });

server.on('upgrade', (request, stream, head) => {
  try {
    const userId = userOf(request.headers.authorization?.slice('Bearer '.length) ?? '');
    sockets.handleUpgrade(request, stream, head, (socket) => void connected(socket, userId));
  } catch {
    stream.end('HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n');
  }
});

async function connected(socket: WebSocket, userId: string): Promise<void> {
  const channel = `bare:{${userId}}`;
  const channelSockets = socketsByChannel.get(channel) ?? new Set();
  socketsByChannel.set(channel, channelSockets.add(socket));
  socket.on('error', () => socket.terminate());
  socket.on('close', () => {
    channelSockets.delete(socket);
    if (channelSockets.size > 0) return;
    socketsByChannel.delete(channel);
    subscriber.sunsubscribe(channel).catch(() => undefined);
  });
  if (channelSockets.size === 1) await subscriber.ssubscribe(channel);
  socket.send(JSON.stringify({ type: 'connection_established', user_id: userId }));
}

subscriber.on('smessage', (channel: string, message: string) => {
  for (const socket of socketsByChannel.get(channel) ?? []) socket.send(message);
});
server.listen(settings.port, '127.0.0.1');
