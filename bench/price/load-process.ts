import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createAdapter } from '@socket.io/redis-adapter';
import { Redis } from 'ioredis';
import { Server } from 'socket.io';
import { io } from 'socket.io-client';
import { WebSocket } from 'ws';
import { KEY_PREFIX } from '../lib/deployment.ts';
import { atRate, thinkingFields } from '../lib/user-events.ts';
import { type LoadAnswer, type LoadOrder, type LoadSettings, SATURATED } from './load.ts';

/** Connections opened concurrently. */
const AT_ONCE = 16;
/** Messages and events in flight while saturated. */
const IN_FLIGHT = 256;
const RECONNECT_MS = 10;
const TIMEOUT_MS = 120_000;
const MESSAGE = 'How is my workload doing?';

interface ClientSocket {
  send(type: string, fields?: object): void;
  close(): void;
}

interface User {
  readonly id: string;
  readonly token: string;
  socket: ClientSocket | undefined;
  /** Time of the request of the turn in progress; 0 when its first event has arrived. */
  askedAt: number;
}

const settings = JSON.parse(process.argv[2] ?? '{}') as LoadSettings;
const redis = new Redis(settings.redisUrl);
const users: User[] = [];
/** Called for each event of the order in progress. */
let onEvent: (user: User, type: string) => void = () => undefined;
let onLost: (user: User) => void = () => undefined;

function open(user: User, url: string): Promise<void> {
  return settings.transport === 'ws' ? openWs(user, url) : openSocketIo(user, url);
}

function openWs(user: User, url: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${user.token}` };
    const socket = new WebSocket(`${url.replace('http', 'ws')}/ws`, { headers, perMessageDeflate: false });
    socket.on('error', reject);
    socket.on('close', () => onLost(user));
    user.socket = {
      send: (type, fields) => socket.send(JSON.stringify({ type, ...fields })),
      close: () => socket.close(),
    };
    socket.on('message', (data) => {
      const type = /^\{"type":"(\w+)"/.exec(String(data))?.[1] ?? '';
      if (type === 'connection_established') resolve();
      else onEvent(user, type);
    });
  });
}

function openSocketIo(user: User, url: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const options = { auth: { token: user.token }, transports: ['websocket'], forceNew: true, reconnection: false };
    const socket = io(url, options);
    socket.once('connect_error', reject);
    socket.on('disconnect', () => onLost(user));
    user.socket = { send: (type, fields) => socket.emit(type, fields ?? {}), close: () => socket.close() };
    socket.onAny((type: string) => (type === 'connection_established' ? resolve() : onEvent(user, type)));
  });
}

async function connect({ url, users: list }: Extract<LoadOrder, { do: 'connect' }>): Promise<void> {
  const added = list.map(({ id, token }): User => ({ id, token, socket: undefined, askedAt: 0 }));
  users.push(...added);
  const rest = added.values();
  const opener = async () => {
    for (const user of rest) await open(user, url);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, opener));
}

type Publish = (userId: string, fields: ReturnType<typeof thinkingFields>) => unknown;

/** Appends with the writer of the measured checkout: `today` and the working tree may have different scripts. */
async function appending(): Promise<Publish> {
  const from = <T>(path: string): Promise<T> => import(join(settings.root, path));
  type Modules = [
    typeof import('../../src/events/user-log-writer.ts'),
    typeof import('../../src/lib/metrics.ts'),
    typeof import('../../src/lib/tracing.ts'),
    typeof import('../../src/redis/keys.ts'),
  ];
  const paths = ['src/events/user-log-writer.ts', 'src/lib/metrics.ts', 'src/lib/tracing.ts', 'src/redis/keys.ts'];
  const [writer, metrics, tracing, keys] = (await Promise.all(paths.map((path) => from(path)))) as Modules;
  const log = new writer.UserLogWriter(
    { redis, keys: new keys.Keys(KEY_PREFIX), metrics: new metrics.Metrics(), tracing: tracing.NO_TRACING },
    { length: 1_000, maxAgeMs: 24 * 3_600_000, maxBytes: 8_388_608 },
  );
  return (userId, fields) => log.append({ userId, events: [{ type: 'agent_thinking', fields }] });
}

async function publisher(): Promise<Publish> {
  if (settings.publishing === 'append') return appending();
  if (settings.publishing === 'p4r') {
    return (userId, fields) =>
      redis.spublish(`bare:{${userId}}`, JSON.stringify({ type: 'agent_thinking', ...fields }));
  }
  const node = new Server({ adapter: createAdapter(redis, new Redis(settings.redisUrl)) });
  return (userId, fields) => node.to(`user:${userId}`).emit('agent_thinking', fields);
}

let publish: Publish | undefined;

/**
 * Sends `count` requests over the users in turn, at a rate or with `IN_FLIGHT` unanswered ones, and resolves when
 * `done` was called for each of them.
 */
async function exchange(
  { count, perSecond, among }: { readonly count: number; readonly perSecond: number; readonly among?: number },
  send: (user: User, at: number) => void,
  isDone: (user: User, type: string) => boolean,
): Promise<void> {
  let [sent, done] = [0, 0];
  const all = Promise.withResolvers<void>();
  const timer = setTimeout(() => all.reject(new Error(`${done} of ${count} were answered in time`)), TIMEOUT_MS);
  const next = () => {
    const user = users[sent % Math.min(among ?? users.length, users.length)];
    if (user) send(user, sent++);
  };
  onEvent = (user, type) => {
    if (!isDone(user, type)) return;
    done += 1;
    if (done === count) all.resolve();
    else if (perSecond === SATURATED && sent < count) next();
  };
  if (perSecond === SATURATED) for (let i = 0; i < Math.min(IN_FLIGHT, count); i++) next();
  else await atRate(perSecond, count, next);
  await all.promise;
  clearTimeout(timer);
  onEvent = () => undefined;
}

async function turns(order: Extract<LoadOrder, { do: 'turns' }>): Promise<number[]> {
  const firstEventMs: number[] = [];
  const ask = (user: User) => {
    user.askedAt = performance.now();
    user.socket?.send('agent_request', { message: MESSAGE });
  };
  await exchange(order, ask, (user, type) => {
    if (type === 'agent_started' && user.askedAt > 0) {
      firstEventMs.push(performance.now() - user.askedAt);
      user.askedAt = 0;
    }
    return type === 'agent_completed';
  });
  return firstEventMs;
}

async function storm({ url, count }: Extract<LoadOrder, { do: 'storm' }>): Promise<void> {
  let back = 0;
  await new Promise<void>((resolve) => {
    const again = (user: User): void => {
      open(user, url).then(
        () => {
          back += 1;
          if (back === count) resolve();
        },
        () => setTimeout(again, RECONNECT_MS, user),
      );
    };
    onLost = again;
  });
  onLost = () => undefined;
}

async function obey(order: LoadOrder): Promise<LoadAnswer> {
  const startedAt = performance.now();
  let firstEventMs: readonly number[] = [];
  if (order.do === 'connect') await connect(order);
  if (order.do === 'pings')
    await exchange(
      order,
      (user) => user.socket?.send('ping'),
      (_, type) => type === 'pong',
    );
  if (order.do === 'deliver') {
    publish ??= await publisher();
    const send = publish;
    const failed = (error: Error) => process.send?.({ error: error.message });
    await exchange(
      order,
      (user, at) => void Promise.resolve(send(user.id, thinkingFields(user.id, at))).catch(failed),
      (_, type) => type === 'agent_thinking',
    );
  }
  if (order.do === 'turns') firstEventMs = await turns(order);
  if (order.do === 'storm') await storm(order);
  if (order.do === 'disconnect') {
    onLost = () => undefined;
    for (const { socket } of users.splice(0)) socket?.close();
    await delay(1);
  }
  return { ms: performance.now() - startedAt, firstEventMs };
}

// The process that measures has ended.
process.once('disconnect', () => process.exit());
process.on('message', (order: LoadOrder) => {
  obey(order).then(
    (answer) => process.send?.(answer),
    (error: Error) => process.send?.({ error: error.message }),
  );
});
