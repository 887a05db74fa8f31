import { describe, expect, it } from '@jest/globals';
import { openClient } from '../support/clients.ts';
import { base64url, claimsWith, forgeToken, hs256 } from '../support/forged-tokens.ts';
import { keysOf } from '../support/keys-of.ts';
import { openLeases } from '../support/leases.ts';
import { nodeUrl } from '../support/nodes.ts';
import { OPCODE, openRawSocket, type RawSocket, rawFrame } from '../support/raw-socket.ts';
import { startService } from '../support/services.ts';
import { useStack } from '../support/stack.ts';
import { buyTicket } from '../support/tickets.ts';
import { freshUserId, mintToken, validToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const PAGE = 'http://app.example.test';
const ENGINE = '/socket.io/?EIO=4&transport=websocket';
const forged = () => forgeToken({ payload: claimsWith(), sign: hs256('attacker') });

interface Knock {
  readonly path?: string;
  readonly token?: string;
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  readonly url?: string;
}

function knock({ path = '/ws/secure', token, headers, url = nodeUrl(0) }: Knock): RawSocket {
  const authorization = token === undefined ? {} : { Authorization: `Bearer ${token}` };
  return openRawSocket({ url, path, headers: { ...authorization, ...headers } });
}

/** `<close code> <reason>`, the HTTP status, or the user of the welcome. */
async function outcome(raw: RawSocket): Promise<string | number> {
  const { status } = await raw.answer;
  if (status !== 101) return status;
  const { payload } = await until(() => raw.frames.find(({ opcode }) => opcode === OPCODE.text));
  const { type, payload: fields = {} } = JSON.parse(`${payload}`);
  if (type !== 'error') return fields.user_id ?? 'anonymous';
  const { code, reason } = await until(() => raw.closeFrame);
  return `${code} ${reason}`;
}

function types(raw: RawSocket): string[] {
  const texts = raw.frames.filter(({ opcode }) => opcode === OPCODE.text);
  return texts.map(({ payload }) => JSON.parse(`${payload}`)).map(({ type, code }) => code ?? type);
}

describe('the user of a path', () => {
  const { token, userId } = mintToken({ sub: `${freshUserId()}-A` });

  it.each<[string, string | number, string]>([
    ['its own', 'let in', userId],
    ['its own, with a URL’s escapes', 'let in', userId.replace(/^u/, '%75')],
    ['its own, behind a path that leads back to it', 404, `x/../${userId}`],
    ['another one', '1008 USER_MISMATCH', 'user_1'],
    ['its own in capitals', '1008 USER_MISMATCH', userId.toUpperCase()],
    ['its own and a space', '1008 USER_MISMATCH', `${userId}%20`],
    ['its own and a null byte', '1008 USER_MISMATCH', `${userId}%00`],
    ['its own and an invisible letter', '1008 USER_MISMATCH', `${userId}%E2%80%8B`],
    ['its own, cut short', '1008 USER_MISMATCH', userId.slice(0, -1)],
    ['its own with escapes of escapes', '1008 USER_MISMATCH', userId.replace(/^u/, '%2575')],
    ['its own and a path', '1008 USER_MISMATCH', `${userId}%2F..%2Fadmin`],
    ['its own and a parameter', '1008 USER_MISMATCH', `${userId};admin`],
    ['a prototype', '1008 USER_MISMATCH', '__proto__'],
    ['a service', '1008 USER_MISMATCH', 'service:billing'],
    ['10 kB', '1008 USER_MISMATCH', 'u'.repeat(10_000)],
    ['escapes that are none', 404, '%zz'],
    ['escapes of half a letter', 404, '%c3'],
    ['two users', 404, `${userId}/user_1`],
    ['a path that leads away', 404, `../${userId}`],
    ['nobody', 404, ''],
  ])('B21 B22 B259 that is %s: %s', async (_what, expected, segment) => {
    for (const prefix of ['/ws/', '/ws/v1/']) {
      const here = expected === 'let in' ? userId : expected;
      expect([prefix, await outcome(knock({ path: `${prefix}${segment}`, token }))]).toEqual([prefix, here]);
    }
  });

  it('B259 authenticates no user: without a credential it is NO_TOKEN', async () => {
    for (const id of [userId, 'dev_user', 'admin', 'service:billing']) {
      expect(await outcome(knock({ path: `/ws/${id}` }))).toBe('1008 NO_TOKEN');
    }
  });
});

describe('a second identity in band', () => {
  it('B53 B259 ends the connection, and nothing that was sent behind it is done', async () => {
    const [one, other] = [mintToken(), mintToken()];
    const raw = knock({ path: '/ws' });
    await until(() => raw.frames[0]);
    for (const message of [
      { type: 'auth', token: one.token },
      { type: 'threads_list' },
      { type: 'auth', token: other.token },
      { type: 'threads_list' },
      { type: 'agent_request', message: 'hello' },
    ]) {
      raw.sendFrame(JSON.stringify(message));
    }
    expect(await until(() => raw.closeFrame)).toEqual({ code: 1008, reason: 'USER_MISMATCH' });
    expect(types(raw)).toEqual(['connection_established', 'auth_success', 'threads_list', 'USER_MISMATCH']);
    const { redis } = await openLeases();
    expect(await keysOf(redis, `*${other.userId}*`)).toEqual([]);
  });

  it.each<[string, () => Record<string, unknown>, string]>([
    ['a forged token', () => ({ type: 'auth', token: forged() }), 'VALIDATION_FAILED'],
    ['a forged token under its other name', () => ({ type: 'authenticate', token: forged() }), 'VALIDATION_FAILED'],
    ['no token', () => ({ type: 'auth' }), 'NO_TOKEN'],
    ['a newer token of another', () => ({ type: 'token_refresh', token: validToken() }), 'USER_MISMATCH'],
    [
      'a service without a token',
      () => ({ type: 'service_auth', service_id: 'billing', context: 'service:billing' }),
      'NO_TOKEN',
    ],
  ])('B53 B259 that is %s ends it as well', async (_what, message, code) => {
    const raw = knock({ path: '/ws', token: validToken() });
    await until(() => raw.frames[0]);
    raw.sendFrame(JSON.stringify(message()));
    raw.sendFrame('{"type":"threads_list"}');
    expect(await until(() => raw.closeFrame)).toEqual({ code: 1008, reason: code });
    expect(types(raw)).toEqual(['connection_established', code]);
  });

  it('B53 B259 that is a service, with a good token, ends the connection of a user', async () => {
    const { id, token } = await startService('identity-thief');
    const raw = knock({ path: '/ws', token: validToken() });
    await until(() => raw.frames[0]);
    raw.sendFrame(JSON.stringify({ type: 'service_auth', service_id: id, context: `service:${id}`, token }));
    expect(await until(() => raw.closeFrame)).toEqual({ code: 1008, reason: 'USER_MISMATCH' });
  });
});

describe('what is no credential', () => {
  it.each(['auth_token', 'id_token', 'bearer', 'api_key', 'ticket[]', 'TOKEN'])(
    'B49 B52 is ignored in the URL: ?%s=',
    async (name) => {
      const query = new URLSearchParams({ [name]: validToken() });
      expect(await outcome(knock({ path: `/ws/secure?${query}` }))).toBe('1008 NO_TOKEN');
      expect(await outcome(knock({ path: `/ws?${query}` }))).toBe('anonymous');
      // An ignored header causes no conflict with a valid credential either.
      const { token, userId } = mintToken();
      expect(await outcome(knock({ path: `/ws/secure?${query}`, token }))).toBe(userId);
    },
  );

  it.each([
    'X-Access-Token',
    'X-Auth-Token',
    'Proxy-Authorization',
    'X-Forwarded-Authorization',
    'Cookie',
    'X-Original-Authorization',
    'Authorization-2',
    'Sec-WebSocket-Extensions',
  ])('B49 B121 is ignored in the header %s', async (name) => {
    const value = name === 'Cookie' ? `token=${validToken()}` : `Bearer ${validToken()}`;
    expect(await outcome(knock({ headers: { [name]: value } }))).toBe('1008 NO_TOKEN');
  });

  it('B52 B121 is an Authorization header that comes twice, however much the two agree', async () => {
    const token = `Bearer ${validToken()}`;
    for (const second of [token, `Bearer ${forged()}`, 'Basic dXNlcjpwYXNz', '']) {
      expect(await outcome(knock({ headers: { Authorization: [token, second] } }))).toBe('1008 INVALID_FORMAT');
      expect(await outcome(knock({ headers: { Authorization: [second, token] } }))).toBe('1008 INVALID_FORMAT');
    }
  });

  it('over Socket.IO is whatever stands beside the token: a user, a plan, an identity', async () => {
    const auth = { user_id: 'admin', userId: 'admin', sub: 'admin', plan: 'enterprise', identity: { userId: 'admin' } };
    const anonymous = await openClient({ transport: 'socketio', auth });
    expect(anonymous.refusal?.data?.code).toBe('NO_TOKEN');
    const { token, userId } = mintToken({ plan: 'free' });
    const client = await openClient({ transport: 'socketio', token, auth });
    expect(await client.welcome()).toMatchObject({ user_id: userId, plan: 'free' });
  });
});

it('B53 ignores packets sent with a forged CONNECT of Socket.IO, and closes the engine', async () => {
  const raw = openRawSocket({ url: nodeUrl(0), path: ENGINE });
  await until(() => raw.frames[0]);
  const packets = [`40${JSON.stringify({ token: forged() })}`, '42["threads_list",{}]', '421["threads_list",{}]'];
  raw.write(Buffer.concat(packets.map((packet) => rawFrame(packet))));
  await until(() => raw.closeFrame);
  await raw.ended;
  const answers = raw.frames.filter(({ opcode }) => opcode === OPCODE.text).map(({ payload }) => `${payload}`);
  // 42 is an event, 43 an acknowledgement. The refusal, 44, may be cut off: Socket.IO closes a client that does not
  // wait for it.
  expect(answers.filter((answer) => /^4[23]/.test(answer))).toEqual([]);
});

describe('a ticket', () => {
  it.each([
    ['the page in capitals', 'HTTP://APP.EXAMPLE.TEST', 403],
    ['the page with a slash', `${PAGE}/`, 403],
    ['null', 'null', 403],
  ])('that a page bought is not spent by who may not even connect: %s', async (_what, origin, status) => {
    const { token, userId } = mintToken();
    const ticket = await buyTicket(token, { headers: { origin: PAGE } });
    const path = `/ws/secure?ticket=${ticket}`;
    expect(await outcome(knock({ path, headers: { Origin: origin } }))).toBe(status);
    expect(await outcome(knock({ path, headers: { Origin: PAGE } }))).toBe(userId);
    expect(await outcome(knock({ path, headers: { Origin: PAGE } }))).toBe('1008 VALIDATION_FAILED');
  });

  it.each<[string, (ticket: string) => string, string]>([
    // The last character keeps its case, because its spare bits must be zero (see tokens.kinds.test.ts).
    [
      'in the other case',
      (ticket) => `ticket=${swapCase(ticket.slice(0, -1))}${ticket.slice(-1)}`,
      '1008 VALIDATION_FAILED',
    ],
    ['with a space behind', (ticket) => `ticket=${ticket}%20`, '1008 INVALID_FORMAT'],
    ['with a line break behind', (ticket) => `ticket=${ticket}%0a`, '1008 INVALID_FORMAT'],
    ['with a null byte behind', (ticket) => `ticket=${ticket}%00`, '1008 INVALID_FORMAT'],
    ['encoded', (ticket) => `ticket=${base64url(ticket)}`, '1008 INVALID_FORMAT'],
    ['beside an empty one', (ticket) => `ticket=${ticket}&ticket=`, '1008 CONFLICTING_CREDENTIALS'],
    ['under another name', (ticket) => `Ticket=${ticket}`, '1008 NO_TOKEN'],
    ['as an element of a list', (ticket) => `ticket[]=${ticket}`, '1008 NO_TOKEN'],
    ['behind a semicolon', (ticket) => `x=1;ticket=${ticket}`, '1008 NO_TOKEN'],
  ])('%s is none, and the ticket stays what it was', async (_what, query, expected) => {
    const { token, userId } = mintToken();
    const ticket = await buyTicket(token);
    expect(await outcome(knock({ path: `/ws/secure?${query(ticket)}` }))).toBe(expected);
    expect(await outcome(knock({ path: `/ws/secure?ticket=${ticket}` }))).toBe(userId);
  });
});

function swapCase(text: string): string {
  return text.replace(/[a-z]/gi, (letter) => (letter < 'a' ? letter.toLowerCase() : letter.toUpperCase()));
}

describe.each([0, 1])('B246 with %i trusted proxies', (hops) => {
  const BOUND = 3;
  const stack = useStack({
    workers: 0,
    env: { AUTH_FAILURES_PER_MINUTE: String(BOUND), TRUSTED_PROXY_HOPS: String(hops) },
  });

  it('no header but the last of X-Forwarded-For says whom failures count for, and that only of a proxy', async () => {
    const url = nodeUrl(0, stack().addresses);
    const spoofed = (at: number) => ({
      'X-Real-IP': `198.51.100.${at}`,
      'X-Client-IP': `198.51.100.${at}`,
      'CF-Connecting-IP': `198.51.100.${at}`,
      'True-Client-IP': `198.51.100.${at}`,
      Forwarded: `for=198.51.100.${at}`,
      'X-Forwarded-For': hops === 0 ? `198.51.100.${at}` : `198.51.100.${at}, 203.0.113.7`,
    });
    for (let at = 0; at < BOUND; at++) {
      expect(await outcome(knock({ url, token: 'a.b.c', headers: spoofed(at) }))).toBe('1008 VALIDATION_FAILED');
    }
    expect(await outcome(knock({ url, token: 'a.b.c', headers: spoofed(99) }))).toBe(429);
    // Without a forwarded address the socket's own counts, which has failed only if no proxy is trusted.
    const own = await outcome(knock({ url, token: 'a.b.c', headers: { 'X-Forwarded-For': 'unknown' } }));
    expect(own).toBe(hops === 0 ? 429 : '1008 VALIDATION_FAILED');
  });
});
