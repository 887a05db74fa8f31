import { Redis } from 'ioredis';
import { peerSettings } from './token-check.ts';
import { work } from './turn.ts';

/** The worker of P4r: it publishes each event on the channel of its user. */
const { redisUrl } = peerSettings();
const redis = new Redis(redisUrl);
await work(redisUrl, (userId, type, fields) => redis.spublish(`bare:{${userId}}`, JSON.stringify({ type, ...fields })));
