import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { Random } from '../../test/support/chaos/random.ts';
import { Member, type MemberDeps, REQUEST_MS } from './member.ts';
import type { User } from './users.ts';

/** Opens more connections than its plan allows, and replaces each that is closed. */
export class GreedyMember {
  readonly user: User;
  readonly #deps: MemberDeps;
  readonly #random: Random;
  readonly #sockets: number;

  constructor(deps: MemberDeps, user: User, sockets: number) {
    this.user = user;
    this.#deps = deps;
    this.#sockets = sockets;
    this.#random = new Random(deps.seed);
  }

  /** Resolves when all connections are closed after the signal. */
  async work(): Promise<void> {
    await Promise.all(Array.from({ length: this.#sockets }, () => this.#reconnect()));
  }

  close(): void {}

  async #reconnect(): Promise<void> {
    const { signal, urls } = this.#deps;
    while (!signal.aborted) {
      const socket = await openSocket(urls[this.#random.below(urls.length)] ?? '', this.user);
      const close = () => socket.terminate();
      signal.addEventListener('abort', close, { once: true });
      await closed(socket);
      signal.removeEventListener('abort', close);
      await delay(200 + this.#random.below(800));
    }
  }
}

async function openSocket(url: string, { token }: User): Promise<WebSocket> {
  const headers = { authorization: `Bearer ${await token()}` };
  const target = new URL('/ws/secure', url.replace(/^http/, 'ws'));
  return new WebSocket(target, { headers, handshakeTimeout: REQUEST_MS });
}

async function closed(socket: WebSocket): Promise<void> {
  await new Promise<void>((resolve) => {
    socket.on('error', () => {});
    socket.on('close', () => resolve());
  });
}

/** Reads nothing for some seconds at a time, and records what then arrives. A closed connection is replaced. */
export class SlowMember extends Member {
  #socket: WebSocket | undefined;
  #connections = 0;

  constructor(deps: MemberDeps, user: User) {
    super(deps, user, `${user.id}-slow`);
  }

  override close(): void {
    this.#socket?.terminate();
  }

  protected async next(): Promise<void> {
    if (this.#socket?.readyState !== WebSocket.OPEN) this.#socket = await this.#open();
    const socket = this.#socket;
    if (socket.readyState !== WebSocket.OPEN) return;
    socket.pause();
    await delay(this.random.below(6_000), undefined, { signal: this.deps.signal }).catch(() => undefined);
    socket.resume();
    await delay(500);
  }

  async #open(): Promise<WebSocket> {
    const { recorder } = this.deps;
    const user = this.user.id;
    this.#connections += 1;
    const connection = `${this.name}#${this.#connections}`;
    const socket = await openSocket(this.url, this.user);
    socket.on('message', (data) => {
      // What arrives after `terminate` is that of a position that this client has given up.
      if (socket.readyState !== WebSocket.OPEN) return;
      const { type, payload } = JSON.parse(String(data)) as { type: string; payload: Record<string, unknown> };
      const { seq, epoch, event_id: eventId, user_id: eventUser } = payload;
      if (type === 'connection_established') {
        recorder.add({ t: 'opened', connection, user, after: Number(seq), epoch: String(epoch) });
      } else if (type === 'resume_failed') {
        recorder.add({ t: 'lost', connection, user, reason: String(payload.reason) });
        socket.terminate();
      } else if (typeof seq === 'number' && typeof eventId === 'string') {
        recorder.add({ t: 'event', connection, user, seq, eventId, eventUser: String(eventUser) });
      }
    });
    socket.on('error', () => {});
    await Promise.race([new Promise((resolve) => socket.once('open', resolve)), closed(socket)]);
    return socket;
  }
}

/** Bytes that break a protocol, by the name of what they break. TOKEN is replaced. */
const RUDE: Readonly<Record<string, string | Buffer>> = {
  'half a request line': 'GET /ws/sec',
  'half a header': 'GET /ws/secure HTTP/1.1\r\nHost: a\r\nAuthoriz',
  'no HTTP': Buffer.from([0, 1, 2, 255, 254, 13, 10, 13, 10]),
  'a body that ends early': [
    'POST /v1/runs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer TOKEN\r\n',
    'Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"message":"He',
  ].join(''),
};
const UPGRADE = [
  'GET /ws/secure HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n',
  'Authorization: Bearer TOKEN\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n',
].join('');
/** What follows an accepted upgrade. */
const RUDE_FRAMES: Readonly<Record<string, Buffer>> = {
  'half a frame': Buffer.from([0x81, 0xfe, 0x01]),
  'a frame without a mask': Buffer.from([0x81, 0x02, 0x7b, 0x7d]),
  'a frame of 2 GiB': Buffer.from([0x81, 0xff, 0, 0, 0, 0, 0x80, 0, 0, 0, 1, 2, 3, 4]),
  'a reserved opcode': Buffer.from([0x87, 0x80, 1, 2, 3, 4]),
  nothing: Buffer.alloc(0),
};

/** Breaks the protocol, and then its connection without a close. */
export class RudeMember extends Member {
  protected override readonly maxPauseMs: number = 400;

  constructor(deps: MemberDeps, user: User) {
    super(deps, user, 'rude');
  }

  protected async next(): Promise<void> {
    const names = [...Object.keys(RUDE), ...Object.keys(RUDE_FRAMES)];
    const name = names[this.random.below(names.length)] ?? '';
    await this.operation('rude', { key: this.newKey('rude'), value: name }, async () => {
      const first = RUDE[name] ?? UPGRADE;
      const token = await this.user.token();
      const bytes = typeof first === 'string' ? first.replace('TOKEN', token) : first;
      await this.#send(bytes, RUDE_FRAMES[name]);
      return { t: 'ok' };
    });
  }

  async #send(first: string | Buffer, afterAnswer: Buffer | undefined): Promise<void> {
    const { hostname, port } = new URL(this.url);
    const socket = connect({ host: hostname, port: Number(port) });
    const ended = new Promise<void>((resolve) => {
      socket.on('error', () => {});
      socket.on('close', () => resolve());
    });
    socket.on('connect', () => socket.write(first));
    socket.once('data', () => socket.write(afterAnswer ?? ''));
    // In the middle of what the server reads.
    await Promise.race([delay(20 + this.random.below(1_500)), ended]);
    if (this.random.chance(0.5)) socket.resetAndDestroy();
    else socket.destroy();
    await ended;
  }
}
