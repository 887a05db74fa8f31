import { createServer } from 'node:http';
import { Redis, type Result } from 'ioredis';
import { type WebSocket, WebSocketServer } from 'ws';
import { peerSettings, tokenCheck } from './token-check.ts';
import { JOBS, type PeerJob } from './turn.ts';

/** P4r: bare `ws`, one Lua call per connection for cap and registry, and one per message for a token bucket. */
const settings = peerSettings();
const userOf = tokenCheck(settings);
const redis = new Redis(settings.redisUrl);
const subscriber = new Redis(settings.redisUrl);
const socketsByChannel = new Map<string, Set<WebSocket>>();
const server = createServer((_request, response) => response.end('ready'));
const sockets = new WebSocketServer({ noServer: true, clientTracking: false, perMessageDeflate: false });
const CAP = 3;
const LEASE_MS = 60_000;
const BUCKET = 1_000_000;

declare module 'ioredis' {
  interface RedisCommander<Context> {
    admit(key: string, id: string, cap: number, leaseMs: number): Result<string[], Context>;
    take(key: string, size: number, windowMs: number): Result<number, Context>;
  }
}

redis.defineCommand('admit', {
  numberOfKeys: 1,
  lua: `
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
    redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    local above = redis.call('ZCARD', KEYS[1]) - ARGV[2]
    if above <= 0 then return {} end
    local oldest = redis.call('ZRANGE', KEYS[1], 0, above - 1)
    redis.call('ZREM', KEYS[1], unpack(oldest))
    return oldest`,
});
redis.defineCommand('take', {
  numberOfKeys: 1,
  lua: `
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local bucket = redis.call('HMGET', KEYS[1], 'tokens', 'at')
    local size, window = tonumber(ARGV[1]), tonumber(ARGV[2])
    local tokens = math.min(size, (tonumber(bucket[1]) or size) + (now - (tonumber(bucket[2]) or now)) * size / window)
    if tokens < 1 then return 0 end
    redis.call('HSET', KEYS[1], 'tokens', tokens - 1, 'at', now)
    redis.call('PEXPIRE', KEYS[1], window)
    return 1`,
});

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
  const id = Math.random().toString(36).slice(2);
  const registry = `${channel}:connections`;
  const channelSockets = socketsByChannel.get(channel) ?? new Set();
  socketsByChannel.set(channel, channelSockets.add(socket));
  socket.on('error', () => socket.terminate());
  socket.on('message', (data) => void answer(socket, userId, String(data)));
  socket.on('close', () => {
    redis.zrem(registry, id).catch(() => undefined);
    channelSockets.delete(socket);
    if (channelSockets.size > 0) return;
    socketsByChannel.delete(channel);
    subscriber.sunsubscribe(channel).catch(() => undefined);
  });
  await Promise.all([
    redis.admit(registry, id, CAP, LEASE_MS),
    channelSockets.size === 1 ? subscriber.ssubscribe(channel) : undefined,
  ]);
  socket.send(JSON.stringify({ type: 'connection_established', user_id: userId }));
}

async function answer(socket: WebSocket, userId: string, text: string): Promise<void> {
  const { type, message } = JSON.parse(text) as { type: string; message: string };
  if ((await redis.take(`bare:{${userId}}:rate`, BUCKET, 60_000)) === 0) return;
  if (type === 'ping') socket.send(JSON.stringify({ type: 'pong', timestamp: new Date().toISOString() }));
  if (type !== 'agent_request') return;
  const job: PeerJob = { user_id: userId, run_id: `run_${Math.random().toString(36).slice(2)}`, message };
  void redis.rpush(JOBS, JSON.stringify(job));
  socket.send(JSON.stringify({ type: 'agent_accepted', run_id: job.run_id }));
}

subscriber.on('smessage', (channel: string, message: string) => {
  for (const socket of socketsByChannel.get(channel) ?? []) socket.send(message);
});
server.listen(settings.port, '127.0.0.1');
