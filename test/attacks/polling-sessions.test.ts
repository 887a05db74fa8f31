import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { io } from 'socket.io-client';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { OPCODE, openRawSocket, type RawSocket } from '../support/raw-socket.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const POLLING = '/socket.io/?EIO=4&transport=polling';
const WEBSOCKET = '/socket.io/?EIO=4&transport=websocket';
/** The origins that the stack allows. */
const PAGE = 'http://app.example.test';
const OTHER_PAGE = 'http://other.example.test';
const SEPARATOR = '\x1e';
const FAILURES = 3;

type Headers = Readonly<Record<string, string>>;

const lines: string[] = [];
let processes: StackProcesses;
let lastAddress = 0;

beforeAll(async () => {
  processes = await startStack({
    workers: 0,
    env: {
      AUTH_FAILURES_PER_MINUTE: String(FAILURES),
      TRUSTED_PROXY_HOPS: '1',
      CORS_ORIGINS: `${PAGE},${OTHER_PAGE}`,
    },
    onLine: (line) => lines.push(line),
  });
});

afterAll(() => {
  // Standard output stays JSON in all tests of this file.
  const others = lines.filter((line) => !line.startsWith('{') && !line.startsWith('auth service: '));
  expect(others).toEqual([]);
});

const url = () => nodeUrl(0, processes.addresses);
const mint = () => mintToken({}, { stack: processes.addresses }).token;

/** An address that no other test uses for failures (RFC 5737). */
function freshAddress(): Headers {
  lastAddress += 1;
  return { 'x-forwarded-for': `198.51.100.${lastAddress}` };
}

async function open(headers: Headers): Promise<string> {
  const answer = await fetch(`${url()}${POLLING}`, { headers });
  expect(answer.status).toBe(200);
  return JSON.parse((await answer.text()).slice(1)).sid;
}

function post(sid: string, body: string, headers: Headers = {}): Promise<Response> {
  return fetch(`${url()}${POLLING}&sid=${sid}`, { method: 'POST', body, headers });
}

function poll(sid: string, headers: Headers = {}): Promise<Response> {
  return fetch(`${url()}${POLLING}&sid=${sid}`, { headers });
}

/** A polling session that its CONNECT packet authenticates. */
async function connect(
  opening: Headers,
  later: Headers = opening,
  packet = `40{"token":"${mint()}"}`,
): Promise<string> {
  const sid = await open(opening);
  expect((await post(sid, packet, later)).status).toBe(200);
  const polls = Object.fromEntries(Object.entries(later).filter(([name]) => opening[name] !== undefined));
  let got = '';
  while (!got.includes('connection_established')) got += await (await poll(sid, polls)).text();
  return sid;
}

async function codeOf(answer: Response): Promise<[number, string | undefined]> {
  const body = await answer.text();
  return [answer.status, answer.ok ? undefined : JSON.parse(body).error?.code];
}

function upgrade(sid: string, headers: Headers = {}): RawSocket {
  return openRawSocket({ url: url(), path: `${WEBSOCKET}&sid=${sid}`, headers });
}

async function upgradeRefusal(raw: RawSocket): Promise<[number, string]> {
  const { status } = await raw.answer;
  return [status, JSON.parse(`${await raw.ended}`).error.code];
}

const FORBIDDEN = [403, 'ORIGIN_NOT_ALLOWED'];
const CONFLICT = [401, 'CONFLICTING_CREDENTIALS'];
const FINE = [200, undefined];
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

describe('the id of a polling session is not enough', () => {
  it.each<[string, Headers]>([
    ['an origin that may not connect', { origin: 'http://evil.test' }],
    ['another origin that may connect', { origin: OTHER_PAGE }],
    ['no origin', {}],
  ])('for %s, when a page has opened it', async (_who, headers) => {
    const page = { origin: PAGE };
    const sid = await connect(page);
    expect(await codeOf(await poll(sid, headers))).toEqual(FORBIDDEN);
    expect(await codeOf(await post(sid, '42["ping",{}]', headers))).toEqual(FORBIDDEN);
    expect(await upgradeRefusal(upgrade(sid, headers))).toEqual(FORBIDDEN);
    // The refused requests have not ended it.
    expect(await codeOf(await post(sid, '42["ping",{}]', page))).toEqual(FINE);
    expect(await (await poll(sid, page)).text()).toContain('"pong"');
  });

  it('for a page, when a client without an origin has connected it', async () => {
    const sid = await connect({});
    expect(await codeOf(await poll(sid, { origin: PAGE }))).toEqual(FORBIDDEN);
    expect(await codeOf(await post(sid, '42["ping",{}]', { origin: PAGE }))).toEqual(FORBIDDEN);
    expect(await upgradeRefusal(upgrade(sid, { origin: PAGE }))).toEqual(FORBIDDEN);
    expect(await codeOf(await post(sid, '42["ping",{}]'))).toEqual(FINE);
  });

  it('for another page, when one that sends its origin with POST alone has connected it: same-origin pages', async () => {
    const sid = await connect({}, { origin: PAGE });
    expect(await codeOf(await post(sid, '42["ping",{}]', { origin: OTHER_PAGE }))).toEqual(FORBIDDEN);
    expect(await codeOf(await post(sid, '42["ping",{}]'))).toEqual(FORBIDDEN);
    expect(await upgradeRefusal(upgrade(sid))).toEqual(FORBIDDEN);
    expect(await codeOf(await post(sid, '42["ping",{}]', { origin: PAGE }))).toEqual(FINE);
    expect(await codeOf(await poll(sid))).toEqual(FINE);
  });

  it.each(['cross-site', 'same-site'])('for a page that makes %s requests without an origin', async (site) => {
    const sid = await connect({});
    expect(await codeOf(await poll(sid, { 'sec-fetch-site': site }))).toEqual(FORBIDDEN);
    expect(await codeOf(await post(sid, '42["ping",{}]', { 'sec-fetch-site': site }))).toEqual(FORBIDDEN);
    expect((await fetch(`${url()}${POLLING}`, { headers: { 'sec-fetch-site': site } })).status).toBe(403);
  });

  it('beside the bearer of another user, nor without the bearer that its client repeats', async () => {
    const own = bearer(mint());
    const sid = await connect(own, own, '40');
    for (const headers of [bearer(mint()), { authorization: 'Bearer x' }, {}]) {
      expect(await codeOf(await poll(sid, headers))).toEqual(CONFLICT);
      expect(await codeOf(await post(sid, '42["ping",{}]', headers))).toEqual(CONFLICT);
      expect(await upgradeRefusal(upgrade(sid, headers))).toEqual(CONFLICT);
    }
    expect(await codeOf(await post(sid, '42["ping",{}]', own))).toEqual(FINE);
  });

  it('beside a bearer, when its client has presented none', async () => {
    const sid = await connect({});
    expect(await codeOf(await post(sid, '42["ping",{}]', bearer(mint())))).toEqual(CONFLICT);
    expect(await codeOf(await poll(sid, bearer(mint())))).toEqual(CONFLICT);
  });

  it('once it has a WebSocket: neither polls nor another WebSocket', async () => {
    const sid = await connect({});
    const raw = upgrade(sid);
    await raw.answer;
    raw.sendFrame('2probe');
    await until(() => raw.frames.some(({ payload }) => `${payload}` === '3probe'));
    raw.sendFrame('5');
    raw.sendFrame('42["ping",{}]');
    await until(() => raw.frames.some(({ payload }) => `${payload}`.includes('"pong"')));
    expect(await upgradeRefusal(upgrade(sid))).toEqual([400, 'FORMAT_ERROR']);
    expect((await poll(sid)).status).toBe(400);
  });

  it('of a session that began as a WebSocket', async () => {
    const first = openRawSocket({ url: url(), path: WEBSOCKET });
    const { payload } = await until(() => first.frames[0]);
    const { sid } = JSON.parse(`${payload}`.slice(1));
    expect(await upgradeRefusal(upgrade(sid))).toEqual([400, 'FORMAT_ERROR']);
    expect(first.closeFrame).toBeUndefined();
  });

  it('in a script element: JSONP is 400', async () => {
    const sid = await connect({});
    expect(await codeOf(await fetch(`${url()}${POLLING}&sid=${sid}&j=0`))).toEqual([400, 'FORMAT_ERROR']);
    expect(await codeOf(await fetch(`${url()}${POLLING}&j=0`))).toEqual([400, 'FORMAT_ERROR']);
  });
});

describe('the client of a polling session continues', () => {
  it('from another address: it changes on mobile networks', async () => {
    const sid = await connect({ origin: PAGE, ...freshAddress() });
    const moved = { origin: PAGE, ...freshAddress() };
    expect(await codeOf(await post(sid, '42["ping",{}]', moved))).toEqual(FINE);
    expect(await (await poll(sid, moved)).text()).toContain('"pong"');
  });

  it('without its bearer, when it presents that in its opening request alone (python-socketio)', async () => {
    const sid = await open(bearer(mint()));
    expect(await codeOf(await post(sid, '40'))).toEqual(FINE);
    let got = '';
    while (!got.includes('connection_established')) got += await (await poll(sid)).text();
    expect(await codeOf(await post(sid, '42["ping",{}]', bearer(mint())))).toEqual(CONFLICT);
  });

  it('on a WebSocket without its bearer, in a browser, which cannot repeat it there', async () => {
    const page = { origin: PAGE, ...bearer(mint()) };
    const sid = await connect(page, page, '40');
    expect((await upgrade(sid, { origin: PAGE }).answer).status).toBe(101);
  });

  it.each([
    ['auth', (token: string) => ({ auth: { token } })],
    ['extraHeaders', (token: string) => ({ extraHeaders: bearer(token) })],
  ])('with socket.io-client and its defaults, the token in %s', async (_where, options) => {
    const socket = io(url(), { ...options(mint()), reconnection: false, forceNew: true });
    closeAfter('test', () => socket.disconnect());
    const upgraded = new Promise((resolve) => socket.io.engine.once('upgrade', resolve));
    await new Promise((resolve, reject) => {
      socket.once('connection_established', resolve);
      socket.once('connect_error', reject);
    });
    await upgraded;
    expect(await socket.emitWithAck('ping', {})).toMatchObject({ ok: true });
  });
});

/** The packets of one payload, a tenth of what would fill the allowed bytes. */
function payload(packet: string, count = 1_500): string {
  return Array(count).fill(packet).join(SEPARATOR);
}

/** CPU milliseconds of the gateway: user and system time in ticks of 10 ms, the 14th and 15th field of proc(5). */
function cpuMs(): number {
  const stat = readFileSync(`/proc/${processes.gateways[0]?.pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return 10 * (Number(fields[11]) + Number(fields[12]));
}

describe('a payload of many packets', () => {
  it.each([
    ['CONNECT packets', '40'],
    ['CONNECT packets of another namespace', '40/a,'],
    ['pongs', '3'],
    ['events', '42["a"]'],
    ['acknowledgements', '430[]'],
    ['upgrades', '5'],
    ['announced attachments', '459-["a"]'],
  ])('ends the engine before authentication, and counts as a failed handshake: %s', async (_what, packet) => {
    const address = freshAddress();
    for (let i = 0; i < FAILURES; i++) {
      const sid = await open(address);
      expect((await post(sid, payload(packet), address)).status).toBe(200);
      await until(async () => (await poll(sid, address)).status === 400);
    }
    const raw = openRawSocket({ url: url(), path: '/ws', headers: address });
    expect((await raw.answer).status).toBe(429);
  });

  it('of few packets the first of which is foreign counts as a failed handshake too, and is answered', async () => {
    const address = freshAddress();
    for (let i = 0; i < FAILURES; i++) {
      const sid = await open(address);
      const polled = poll(sid, address);
      expect((await post(sid, payload('40/a,', 10), address)).status).toBe(200);
      expect((await (await polled).text()).match(/44\/a,/g)).toHaveLength(1);
      await until(async () => (await poll(sid, address)).status === 400);
    }
    expect((await openRawSocket({ url: url(), path: '/ws', headers: address }).answer).status).toBe(429);
  });

  it('costs hardly more CPU than a payload of one packet', async () => {
    const attack = async (body: string) => {
      const before = cpuMs();
      for (let i = 0; i < 40; i++) {
        const address = freshAddress();
        await post(await open(address), body, address);
      }
      return cpuMs() - before;
    };
    await attack('40/a,');
    const one = await attack('40/a,');
    // If they were decoded, 1,500 CONNECT packets would cost 30 times as much as one, and grow quadratically.
    for (const packet of ['40', '40/a,']) expect(await attack(payload(packet))).toBeLessThan(4 * one + 100);
  });

  it('ends the session after authentication too, with an error that says why', async () => {
    const sid = await connect({});
    const polled = poll(sid);
    expect((await post(sid, payload('3'))).status).toBe(200);
    expect(await (await polled).text()).toContain('MESSAGE_TOO_LARGE');
    await until(async () => (await poll(sid)).status === 400);
  });

  it('of as many events as a connection may have waiting is taken after authentication', async () => {
    const sid = await connect({});
    expect((await post(sid, payload('42["ping",{}]', 20))).status).toBe(200);
    let got = '';
    while ((got.match(/"pong"/g) ?? []).length < 20) got += await (await poll(sid)).text();
  });

  it('that binds a second connection is none: the second CONNECT ends the engine', async () => {
    const sid = await open({});
    await post(sid, payload(`40{"token":"${mint()}"}`, 2));
    await until(async () => (await poll(sid)).status === 400);
  });
});

describe('packets that are no messages', () => {
  it('are as few as control frames: pongs without end close a WebSocket', async () => {
    const raw = openRawSocket({ url: url(), path: WEBSOCKET });
    await until(() => raw.frames.length > 0);
    raw.sendFrame(`40{"token":"${mint()}"}`);
    await until(() => raw.frames.some(({ payload: text }) => `${text}`.includes('connection_established')));
    for (let i = 0; i < 700; i++) raw.sendFrame('3');
    await until(() => raw.closeFrame);
    expect(raw.frames.some(({ payload: text }) => `${text}`.includes('RATE_LIMITED'))).toBe(true);
  });

  it('are as few before authentication as all others', async () => {
    const address = freshAddress();
    for (let i = 0; i < FAILURES; i++) {
      const raw = openRawSocket({ url: url(), path: WEBSOCKET, headers: address });
      await until(() => raw.frames.length > 0);
      for (let sent = 0; sent < 60; sent++) raw.sendFrame('3');
      await until(() => raw.closeFrame);
    }
    expect((await openRawSocket({ url: url(), path: '/ws', headers: address }).answer).status).toBe(429);
  });

  it('end a WebSocket that probes and never takes over', async () => {
    const sid = await open({});
    const raw = upgrade(sid);
    await raw.answer;
    for (let i = 0; i < 50; i++) raw.sendFrame('2probe');
    await until(() => raw.closeFrame);
    const answers = raw.frames.filter(({ opcode, payload: text }) => opcode === OPCODE.text && `${text}` === '3probe');
    expect(answers.length).toBeLessThanOrEqual(11);
  });
});
