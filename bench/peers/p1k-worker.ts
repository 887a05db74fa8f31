import { createAdapter } from '@socket.io/redis-adapter';
import { Redis } from 'ioredis';
import { Server } from 'socket.io';
import { peerSettings } from './token-check.ts';
import { work } from './turn.ts';

/** The worker of P1k: a node of the Socket.IO cluster without clients. */
const { redisUrl } = peerSettings();
const io = new Server({ adapter: createAdapter(new Redis(redisUrl), new Redis(redisUrl)) });
await work(redisUrl, (userId, type, fields) => io.to(`user:${userId}`).emit(type, fields));
