import { setTimeout as delay } from 'node:timers/promises';
import { createShardedAdapter } from '@socket.io/redis-adapter';
import { Redis } from 'ioredis';
import { Server } from 'socket.io';
import { io } from 'socket.io-client';
import { WebSocket } from 'ws';
import { UserLogWriter } from '../../src/events/user-log-writer.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { Keys } from '../../src/redis/keys.ts';
import { KEY_PREFIX } from './deployment.ts';
import type { ConnectOrder, Delivered, DeliverOrder, Order, TransportName } from './load-client.ts';
import { atRate, thinkingFields } from './user-events.ts';

/** Connections opened concurrently. */
const AT_ONCE = 16;
const EVENT = 'agent_thinking';
const SAMPLED = 10;
/** Timeout of the last events. */
const TIMEOUT_MS = 10_000;

const redisUrl = process.argv[2] ?? '';
const redis = new Redis(redisUrl);
const keys = new Keys(KEY_PREFIX);
const log = new UserLogWriter(
  { redis, keys, metrics: new Metrics(), tracing: NO_TRACING },
  { length: 1_000, maxAgeMs: 24 * 3_600_000, maxBytes: 8_388_608 },
);
/** A second node of the bare Socket.IO cluster, without clients. */
const peer = new Server({ adapter: createShardedAdapter(redis, new Redis(redisUrl)) });

let userIds: readonly string[] = [];
const closers: (() => void)[] = [];
let received = 0;
let latencyMs: number[] = [];

function gotEvent(sentAt: () => number): void {
  received += 1;
  if (received % SAMPLED === 0) latencyMs.push(Date.now() - sentAt());
}

function openWs(url: string, token: string): Promise<() => void> {
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${token}` };
    const socket = new WebSocket(`${url.replace('http', 'ws')}/ws`, { headers, perMessageDeflate: false });
    socket.once('error', reject);
    socket.on('message', (data) => {
      const text = String(data);
      if (text.startsWith(`{"type":"${EVENT}"`)) gotEvent(() => Number(/"sent_at":(\d+)/.exec(text)?.[1]));
      else if (text.startsWith('{"type":"connection_established"')) resolve(() => socket.close());
    });
  });
}

function openSocketIo(url: string, token: string): Promise<() => void> {
  return new Promise((resolve, reject) => {
    const socket = io(url, { auth: { token }, transports: ['websocket'], forceNew: true, reconnection: false });
    socket.once('connect_error', reject);
    socket.once('connection_established', () => resolve(() => socket.close()));
    socket.on(EVENT, (fields: { sent_at: number }) => gotEvent(() => fields.sent_at));
  });
}

async function connect({ transport, url, tokens, userIds: users }: ConnectOrder): Promise<void> {
  userIds = users;
  const open = transport.endsWith('-ws') ? openWs : openSocketIo;
  let next = 0;
  const opener = async () => {
    while (next < tokens.length) closers.push(await open(url, tokens[next++] ?? ''));
  };
  await Promise.all(Array.from({ length: AT_ONCE }, opener));
}

type Publish = (userId: string, fields: ReturnType<typeof thinkingFields>) => Promise<unknown> | boolean;

const append: Publish = (userId, fields) => log.append({ userId, events: [{ type: EVENT, fields }] });
const PUBLISH: Record<TransportName, Publish> = {
  'tollgate-ws': append,
  'tollgate-socket-io': append,
  'bare-ws': (userId, fields) => redis.spublish(`bare:{${userId}}`, JSON.stringify({ type: EVENT, ...fields })),
  'bare-socket-io': (userId, fields) => peer.to(`user:${userId}`).emit(EVENT, fields),
};

async function deliver({ transport, events, perSecond }: DeliverOrder): Promise<void> {
  received = 0;
  latencyMs = [];
  const publishing: (Promise<unknown> | boolean)[] = [];
  await atRate(perSecond, events, (at) => {
    const userId = userIds[at % userIds.length] ?? '';
    publishing.push(PUBLISH[transport](userId, thinkingFields(userId, at)));
  });
  await Promise.all(publishing);
  for (let waited = 0; received < events && waited < TIMEOUT_MS; waited += 20) await delay(20);
  if (received !== events) throw new Error(`${transport}: ${received} of ${events} events arrived`);
}

process.on('message', (order: Order) => {
  const work = async () => {
    if (order.do === 'connect') await connect(order);
    if (order.do === 'deliver') await deliver(order);
    if (order.do === 'disconnect') for (const close of closers.splice(0)) close();
  };
  work().then(
    () => process.send?.({ received, latencyMs } satisfies Delivered),
    (error: Error) => process.send?.({ error: error.message }),
  );
});
