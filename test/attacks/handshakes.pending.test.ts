import { createServer } from 'node:net';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { openClient } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { openRawSocket, type RawSocket } from '../support/raw-socket.ts';
import { startStack, useStack } from '../support/stack.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const BOUND = 5;
/** Tolerance of a deadline: timers, two busy cores, and the time that a client has to receive a close. */
const SLACK_MS = 4_000;

let lastAddress = 0;
/** An address that no other test connects from (RFC 5737). */
function freshAddress(): string {
  lastAddress += 1;
  return `198.51.100.${lastAddress}`;
}

const POLLING = '/socket.io/?EIO=4&transport=polling';

describe('connections that do not authenticate', () => {
  // A deadline beyond that of Socket.IO, so that the two can be distinguished.
  const stack = useStack({
    workers: 0,
    env: {
      PENDING_CONNECTIONS_PER_ADDRESS: String(BOUND),
      TRUSTED_PROXY_HOPS: '1',
      AUTH_DEADLINE_SECONDS: '60',
    },
  });
  const url = () => nodeUrl(0, stack().addresses);

  function silent(forwarded: string, path = '/ws'): RawSocket {
    return openRawSocket({ url: url(), path, headers: { 'X-Forwarded-For': forwarded } });
  }

  function poll(forwarded: string, sid = ''): Promise<Response> {
    return fetch(`${url()}${POLLING}${sid && `&sid=${sid}`}`, { headers: { 'x-forwarded-for': forwarded } });
  }

  /** Opens an engine by long polling and returns its id. */
  async function openEngine(forwarded: string): Promise<string> {
    const response = await poll(forwarded);
    expect(response.status).toBe(200);
    return JSON.parse((await response.text()).slice(1)).sid;
  }

  async function pending(): Promise<number> {
    const metrics = await (await fetch(`${url()}/metrics`)).text();
    return Number(/^tollgate_pending_connections (\d+)$/m.exec(metrics)?.[1]);
  }

  it('B131 are as many an address as is allowed; then an upgrade is 429 with Retry-After', async () => {
    const address = freshAddress();
    const held = Array.from({ length: BOUND }, () => silent(address));
    expect(await Promise.all(held.map(async (raw) => (await raw.answer).status))).toEqual(Array(BOUND).fill(101));
    for (const path of ['/ws', '/ws/secure', '/socket.io/?EIO=4&transport=websocket']) {
      const raw = silent(address, path);
      expect(await raw.answer).toMatchObject({ status: 429, headers: { 'retry-after': '5', connection: 'close' } });
      const { error } = JSON.parse(`${await raw.ended}`);
      expect(error).toMatchObject({ code: 'AUTH_RATE_LIMITED', retryable: true, retry_after_ms: 5_000 });
    }
    const polled = await poll(address);
    expect([polled.status, polled.headers.get('retry-after')]).toEqual([429, '5']);
    expect(await polled.json()).toMatchObject({ error: { code: 'AUTH_RATE_LIMITED' } });
    const origin = 'http://app.example.test';
    const page = await fetch(`${url()}${POLLING}`, { headers: { 'x-forwarded-for': address, origin } });
    expect([page.status, page.headers.get('access-control-allow-origin')]).toEqual([429, origin]);
    expect((await silent(freshAddress()).answer).status).toBe(101);
  });

  it('give their place back when they authenticate, and when they go', async () => {
    const address = freshAddress();
    const headers = { 'x-forwarded-for': address };
    const [first, second] = await Promise.all(
      Array.from({ length: BOUND }, () => openClient({ path: '/ws', url: url(), headers })),
    );
    expect((await silent(address).answer).status).toBe(429);
    first?.send('auth', { token: mintToken({}, { stack: stack().addresses }).token });
    await first?.waitFor('auth_success');
    expect((await silent(address).answer).status).toBe(101);
    expect((await silent(address).answer).status).toBe(429);
    second?.terminate();
    await until(async () => (await silent(address).answer).status === 101);
  });

  it('are never those that bring a good token', async () => {
    const headers = { 'x-forwarded-for': freshAddress() };
    for (let i = 0; i < BOUND * 2; i++) {
      const transport = i % 2 ? 'socketio' : 'ws';
      const { token } = mintToken({}, { stack: stack().addresses });
      await (await openClient({ transport, url: url(), token, headers })).welcome();
    }
  });

  it('of Engine.IO count from their open, over polling too, and end 8 seconds later', async () => {
    const address = freshAddress();
    const watch = await Stopwatch.start();
    const engines = [await openEngine(address), await openEngine(address)];
    const raws = [0, 1, 2].map(() => silent(address, '/socket.io/?EIO=4&transport=websocket'));
    await Promise.all(raws.map((raw) => until(() => raw.frames.length > 0)));
    expect((await poll(address)).status).toBe(429);
    await Promise.all(raws.map((raw) => raw.ended));
    const tookMs = watch.ms;
    expect(tookMs).toBeGreaterThan(7_000);
    expect(tookMs).toBeLessThan(watch.allow(8_000 + SLACK_MS));
    for (const sid of engines) await until(async () => (await poll(address, sid)).status === 400);
    expect(watch.ms).toBeLessThan(watch.allow(8_000 + SLACK_MS));
    expect((await poll(address)).status).toBe(200);
  });

  it('of Engine.IO end in time although they go on polling', async () => {
    const address = freshAddress();
    const sid = await openEngine(address);
    const watch = await Stopwatch.start();
    // The client's poll is open when the time ends, and is answered with the engine's close.
    const body = await (await poll(address, sid)).text();
    expect(body).toBe('1');
    expect((await poll(address, sid)).status).toBe(400);
    expect(watch.ms).toBeLessThan(watch.allow(8_000 + SLACK_MS));
  });

  it('of Engine.IO leave at once when their handshake is none', async () => {
    const address = freshAddress();
    for (let i = 0; i < BOUND * 2; i++) {
      const path = '/socket.io/?EIO=3&transport=';
      const polled = await fetch(`${url()}${path}polling`, { headers: { 'x-forwarded-for': address } });
      expect([polled.status, await polled.json()]).toEqual([400, { code: 5, message: 'Unsupported protocol version' }]);
      await silent(address, `${path}websocket`).ended;
    }
    await openEngine(address);
  });

  it('of Engine.IO that are refused end although they neither poll nor read any more', async () => {
    const address = freshAddress();
    const engines = await Promise.all(Array.from({ length: BOUND }, () => openEngine(address)));
    for (const sid of engines) {
      const headers = { 'x-forwarded-for': address, 'content-type': 'text/plain' };
      await fetch(`${url()}${POLLING}&sid=${sid}`, { method: 'POST', headers, body: '40{"token":"a.b.c"}' });
    }
    const watch = await Stopwatch.start();
    await until(async () => (await poll(address)).status === 200);
    expect(watch.ms).toBeLessThan(watch.allow(2_000 + SLACK_MS));
  });

  it('B131 B134 are 2,000 a node; then 503 with Retry-After, for every address, and all of them end', async () => {
    expect(await pending()).toBeLessThan(20);
    // Raw sockets have a minute, however long it takes to open them all; polling ones have eight seconds.
    const held: RawSocket[] = [];
    for (let group = 0; group < 19; group++) {
      const raws = Array.from({ length: 100 }, (_, i) => silent(`192.0.${group}.${i}`));
      for (const { status } of await Promise.all(raws.map(({ answer }) => answer))) expect(status).toBe(101);
      held.push(...raws);
    }
    await Promise.all(Array.from({ length: 100 }, (_, i) => poll(`192.0.19.${i}`).then((response) => response.text())));
    const refused = await poll('203.0.113.200');
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '5']);
    expect((await silent('203.0.113.200').answer).status).toBe(503);
    expect(await pending()).toBe(2_000);
    for (const { socket } of held) socket.destroy();
    await until(async () => (await pending()) === 0, { timeoutMs: 30_000, everyMs: 200 });
  }, 60_000);
});

describe('B122 B125 a deadline for authentication', () => {
  const DEADLINE_MS = 2_000;
  let url: string;
  let urls: readonly string[];
  let signed: string;
  // One node per test: after a failed key request a node refuses at once for a while.
  const freshNode = () => {
    const [fresh = '', ...others] = urls;
    urls = others;
    return fresh;
  };

  beforeAll(async () => {
    // Accepts connections and never answers, so that keys are unavailable. `Tokens` itself times out after two seconds.
    const silentServer = createServer(() => {}).listen(0, '127.0.0.1');
    await new Promise((resolve) => silentServer.once('listening', resolve));
    closeAfter('file', () => silentServer.close());
    const address = silentServer.address();
    const port = typeof address === 'object' && address ? address.port : 0;
    const env = {
      AUTH_DEADLINE_SECONDS: '1',
      JWKS_URL: `http://127.0.0.1:${port}/jwks`,
      AUTH_FAILURES_PER_MINUTE: '3',
      TRUSTED_PROXY_HOPS: '1',
    };
    const processes = await startStack({ gateways: 5, workers: 0, env });
    [url = '', ...urls] = processes.addresses.gateways.map((gateway) => gateway.url);
    const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
    signed = `${part({ alg: 'RS256', kid: 'unknown' })}.${part({ sub: 'user_1' })}.c2lnbmF0dXJl`;
  });

  it('ends a handshake whose token cannot be looked at, readably', async () => {
    const node = freshNode();
    const watch = await Stopwatch.start();
    const raw = openRawSocket({ url: node, path: '/ws/secure', headers: { Authorization: `Bearer ${signed}` } });
    expect(await until(() => raw.closeFrame)).toEqual({ code: 1008, reason: 'AUTH_TIMEOUT' });
    expect(JSON.parse(`${raw.frames[0]?.payload}`).payload).toMatchObject({ code: 'AUTH_TIMEOUT', retryable: true });
    expect(watch.ms).toBeLessThan(watch.allow(DEADLINE_MS));
  });

  it('ends it before the upgrade too, where the address has failed too often', async () => {
    const node = freshNode();
    const forwarded = { 'X-Forwarded-For': freshAddress() };
    for (let i = 0; i < 3; i++) {
      const raw = openRawSocket({ url: node, path: '/ws/secure', headers: forwarded });
      expect((await until(() => raw.closeFrame)).reason).toBe('NO_TOKEN');
    }
    const headers = { ...forwarded, Authorization: `Bearer ${signed}` };
    const watch = await Stopwatch.start();
    const raw = openRawSocket({ url: node, path: '/ws/secure', headers });
    expect((await raw.answer).status).toBe(401);
    expect(JSON.parse(`${await raw.ended}`)).toMatchObject({ error: { code: 'AUTH_TIMEOUT' } });
    expect(watch.ms).toBeLessThan(watch.allow(DEADLINE_MS));
  });

  it('ends it over Socket.IO too, with connect_error', async () => {
    const node = freshNode();
    const watch = await Stopwatch.start();
    const client = await openClient({ transport: 'socketio', url: node, token: signed });
    expect(client.refusal?.data).toMatchObject({ code: 'AUTH_TIMEOUT', retryable: true });
    await client.closed;
    expect(watch.ms).toBeLessThan(watch.allow(DEADLINE_MS));
  });

  it('ends it in band, whatever is sent meanwhile', async () => {
    const node = freshNode();
    const watch = await Stopwatch.start();
    const client = await openClient({ path: '/ws', url: node });
    await client.welcome();
    client.send('auth', { token: signed });
    client.send('ping');
    expect(await client.closed).toEqual({ code: 1008, reason: 'AUTH_TIMEOUT' });
    expect(watch.ms).toBeLessThan(watch.allow(DEADLINE_MS));
  });

  it.each([
    ['messages', (raw: RawSocket) => raw.sendFrame('{"type":"ping"}')],
    ['pings', (raw: RawSocket) => raw.sendFrame('', { opcode: 9 })],
    ['pongs', (raw: RawSocket) => raw.sendFrame('', { opcode: 10 })],
    ['fragments', (raw: RawSocket) => raw.sendFrame('', { opcode: 0, fin: false })],
    ['single bytes', (raw: RawSocket) => raw.write('{')],
  ])('is not moved by %s', async (what, send) => {
    const watch = await Stopwatch.start();
    const raw = openRawSocket({ url, path: '/ws' });
    await raw.answer;
    if (what === 'fragments') raw.sendFrame('{', { fin: false });
    if (what === 'single bytes') raw.write(Buffer.from([0x81, 0xfe, 0x10, 0x00, 1, 2, 3, 4]));
    const timer = setInterval(() => send(raw), 100);
    closeAfter('test', () => clearInterval(timer));
    expect(await until(() => raw.closeFrame)).toEqual({ code: 1008, reason: 'AUTH_TIMEOUT' });
    expect(watch.ms).toBeLessThan(watch.allow(DEADLINE_MS));
    expect(watch.ms).toBeGreaterThan(900);
  });

  it('cuts off who does not answer the close, two seconds later', async () => {
    const watch = await Stopwatch.start();
    const raw = openRawSocket({ url, path: '/ws' });
    await raw.ended;
    expect(watch.ms).toBeLessThan(watch.allow(3_000 + SLACK_MS));
    const forced = async () =>
      (await (await fetch(`${url}/metrics`)).text()).match(/forced_closes_total\{.*\} (\d+)/)?.[1];
    await until(async () => Number(await forced()) >= 1);
  });
});
