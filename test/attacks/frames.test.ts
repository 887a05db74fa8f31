import { readFileSync } from 'node:fs';
import { describe, expect, it } from '@jest/globals';
import { openClient } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { OPCODE, openRawSocket, type RawSocket, rawFrame } from '../support/raw-socket.ts';
import { useStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const KIB = 1_024;

const stack = useStack({ workers: 0, env: { AUTH_DEADLINE_SECONDS: '60', MESSAGE_RATE_PER_MINUTE: '100000' } });
const url = () => nodeUrl(0, stack().addresses);
const goodToken = () => mintToken({ plan: 'developer' }, { stack: stack().addresses }).token;

/** A raw socket after its welcome; on `/ws` it is unauthenticated unless it has a token. */
async function open(path: string, token = path === '/ws' ? undefined : goodToken()): Promise<RawSocket> {
  const authorization = token === undefined ? {} : { Authorization: `Bearer ${token}` };
  const raw = openRawSocket({ url: url(), path, headers: authorization });
  await until(() => raw.frames.some(({ payload }) => payload.includes('connection_established')));
  return raw;
}

/** A ping of exactly this size. */
function ping(size: number, format: 'flat' | 'jsonrpc' = 'flat'): string {
  const [head, tail] =
    format === 'flat'
      ? ['{"type":"ping","pad":"', '"}']
      : ['{"jsonrpc":"2.0","id":1,"method":"ping","params":{"pad":"', '"}}'];
  return `${head}${'x'.repeat(size - head.length - tail.length)}${tail}`;
}

/** Waits for a message of the server with this type or code. */
async function said(raw: RawSocket, wanted: string): Promise<void> {
  await until(() => raw.frames.some(({ payload }) => payload.includes(wanted)), { label: wanted });
}

describe.each([
  ['/ws', 8_192],
  ['/ws/secure', 8_192],
  ['/ws/mcp', 64 * KIB],
] as const)('B17 a message on %s, where %i bytes are allowed', (path, limit) => {
  const format = path === '/ws/mcp' ? 'jsonrpc' : 'flat';
  const connect = () => open(path, goodToken());

  it('is read up to the limit exactly', async () => {
    const raw = await connect();
    raw.sendFrame(ping(limit, format));
    await said(raw, 'original_timestamp');
  });

  it('is answered with MESSAGE_TOO_LARGE above it, and the connection stays open', async () => {
    const raw = await connect();
    if (limit < 64 * KIB) {
      raw.sendFrame(ping(limit + 1, format));
      raw.sendFrame(ping(64 * KIB, format));
      await until(() => raw.frames.filter(({ payload }) => payload.includes('MESSAGE_TOO_LARGE')).length === 2);
    }
    raw.sendFrame(ping(100, format));
    await said(raw, 'original_timestamp');
  });

  it('ends the connection with 1009 above 64 KiB', async () => {
    const raw = await connect();
    raw.sendFrame(ping(64 * KIB + 1, format));
    expect(await until(() => raw.closeFrame)).toEqual({ code: 1009, reason: '' });
  });

  it('ends it when a header only claims as much, before a byte of it has come', async () => {
    const raw = await connect();
    raw.sendFrame('', { claimedLength: 2 ** 40 });
    expect(await until(() => raw.closeFrame)).toEqual({ code: 1009, reason: '' });
  });

  it('ends it when the fragments of one message are as much together', async () => {
    const raw = await connect();
    raw.sendFrame('x'.repeat(40 * KIB), { fin: false });
    raw.sendFrame('x'.repeat(40 * KIB), { opcode: OPCODE.continuation, fin: false });
    expect(await until(() => raw.closeFrame)).toEqual({ code: 1009, reason: '' });
  });
});

describe('a message in fragments', () => {
  /** Sends `{"type":"ping"…}` in this many frames. */
  function sendInFragments(raw: RawSocket, count: number): void {
    const text = ping(100);
    for (let at = 0; at < count; at++) {
      const isLast = at === count - 1;
      const opcode = at === 0 ? OPCODE.text : OPCODE.continuation;
      raw.sendFrame(isLast ? text.slice(at) : text.slice(at, at + 1), { opcode, fin: isLast });
    }
  }

  it('is read from 16 of them', async () => {
    const raw = await open('/ws/secure');
    sendInFragments(raw, 16);
    await said(raw, 'original_timestamp');
  });

  it('ends the connection with 1008 from 17 on', async () => {
    const raw = await open('/ws/secure');
    sendInFragments(raw, 17);
    expect((await until(() => raw.closeFrame)).code).toBe(1008);
  });

  it('that are empty and never end ends it too', async () => {
    const raw = await open('/ws');
    raw.sendFrame('', { fin: false });
    for (let i = 0; i < 100; i++) raw.sendFrame('', { opcode: OPCODE.continuation, fin: false });
    expect((await until(() => raw.closeFrame)).code).toBe(1008);
  });
});

describe('before authentication', () => {
  it('64 KiB are read in all, and one byte more ends the connection with NO_TOKEN', async () => {
    const raw = await open('/ws');
    for (let i = 0; i < 8; i++) raw.sendFrame(ping(8_192));
    await until(() => raw.frames.filter(({ payload }) => payload.includes('original_timestamp')).length === 8);
    expect(raw.closeFrame).toBeUndefined();
    raw.sendFrame('x');
    expect(await until(() => raw.closeFrame)).toEqual({ code: 1008, reason: 'NO_TOKEN' });
  });

  it.each([
    ['that are too large', ping(60_000), OPCODE.text],
    ['that are binary', 'x'.repeat(60_000), OPCODE.binary],
    ['that are no JSON', '{'.repeat(60_000), OPCODE.text],
  ])('frames %s count as much as all others', async (_what, frame, opcode) => {
    const raw = await open('/ws');
    raw.sendFrame(frame, { opcode });
    raw.sendFrame(frame, { opcode });
    expect(await until(() => raw.closeFrame)).toEqual({ code: 1008, reason: 'NO_TOKEN' });
  });

  it('what is sent behind a token waits for it, however much it is', async () => {
    const headers = { Authorization: `Bearer ${goodToken()}` };
    const raw = openRawSocket({ url: url(), path: '/ws/mcp', headers });
    await raw.answer;
    for (let i = 0; i < 5; i++) raw.sendFrame(ping(60_000, 'jsonrpc'));
    await until(() => raw.frames.filter(({ payload }) => payload.includes('original_timestamp')).length === 5);
    expect(raw.closeFrame).toBeUndefined();
  });
});

describe('B134 a flood of control frames', () => {
  const PINGS = 100_000;
  const MOST_GROWTH_BYTES = 64 * KIB * KIB;

  function rss(): number {
    const status = readFileSync(`/proc/${stack().gateways[0]?.pid}/status`, 'utf8');
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * KIB;
  }

  it.each([
    ['pings before authentication', '/ws', OPCODE.ping],
    ['pings after authentication', '/ws/secure', OPCODE.ping],
    ['pongs', '/ws/secure', OPCODE.pong],
    ['pings over Socket.IO', '/socket.io/?EIO=4&transport=websocket', OPCODE.ping],
  ])('of %s is cut off with 1008, and costs no memory', async (_what, path, opcode) => {
    const raw = path.startsWith('/socket.io') ? openRawSocket({ url: url(), path }) : await open(path);
    await until(() => raw.frames.length > 0);
    const before = rss();
    const thousand = Buffer.concat(Array.from({ length: 1_000 }, () => rawFrame('x'.repeat(125), { opcode })));
    for (let i = 0; i < PINGS / 1_000; i++) raw.write(thousand);
    expect(await until(() => raw.closeFrame)).toEqual({ code: 1008, reason: 'RATE_LIMITED' });
    await raw.ended;
    const pongs = raw.frames.filter((frame) => frame.opcode === OPCODE.pong).length;
    // `ws` answers a ping before it emits the event, so it answers the excess one too.
    expect(pongs).toBeLessThanOrEqual(601);
    expect(rss() - before).toBeLessThan(MOST_GROWTH_BYTES);
    const bystander = await openClient({ url: url(), token: goodToken() });
    await bystander.welcome();
  });

  it('by a client that reads no answer is cut off as soon as answers pile up', async () => {
    const before = rss();
    const raws = await Promise.all(Array.from({ length: 20 }, () => open('/ws/secure')));
    for (const raw of raws) {
      raw.socket.pause();
      for (let i = 0; i < 5_000; i++) raw.sendFrame('x'.repeat(125), { opcode: OPCODE.ping });
    }
    for (const raw of raws) {
      raw.socket.resume();
      await raw.ended;
    }
    expect(rss() - before).toBeLessThan(MOST_GROWTH_BYTES);
  });

  it('is not what ten pings a second are', async () => {
    const raw = await open('/ws/secure');
    for (let i = 0; i < 600; i++) raw.sendFrame('', { opcode: OPCODE.ping });
    await until(() => raw.frames.filter(({ opcode }) => opcode === OPCODE.pong).length === 600);
    expect(raw.closeFrame).toBeUndefined();
  });
});
