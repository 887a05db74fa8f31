import { describe, expect, it } from '@jest/globals';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { openRawSocket, type RawSocket } from '../support/raw-socket.ts';
import { useStack } from '../support/stack.ts';
import { requestTicket } from '../support/tickets.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const BOUND = 3;
const FORGED = mintForged();

let lastAddress = 0;
/** An address that no other test uses for failures (RFC 5737). */
function freshAddress(): string {
  lastAddress += 1;
  return `203.0.113.${lastAddress}`;
}

function mintForged(): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: 'user_1' })}.c2lnbmF0dXJl`;
}

interface Knock {
  readonly url: string;
  readonly path?: string;
  readonly token?: string;
  readonly forwarded?: string | readonly string[];
}

/** A handshake over a raw socket. */
function knock({ url, path = '/ws/secure', token, forwarded }: Knock): RawSocket {
  const authorization = token === undefined ? {} : { Authorization: `Bearer ${token}` };
  return openRawSocket({ url, path, headers: { 'X-Forwarded-For': forwarded, ...authorization } });
}

/** The outcome of a handshake: the HTTP status, or the code and reason of the close frame. */
async function outcome(raw: RawSocket): Promise<string | number> {
  const { status } = await raw.answer;
  if (status !== 101) return status;
  const frame = await until(() => raw.closeFrame ?? raw.frames.find(({ opcode }) => opcode === 1));
  if ('opcode' in frame && String(frame.payload).includes('connection_established')) return 'welcome';
  const closed = await until(() => raw.closeFrame);
  return `${closed.code} ${closed.reason}`;
}

async function fail(times: number, attempt: Knock): Promise<(string | number)[]> {
  const outcomes = [];
  for (let i = 0; i < times; i++) outcomes.push(await outcome(knock({ token: FORGED, ...attempt })));
  return outcomes;
}

describe('B126 B155 B246 handshakes that fail, behind a proxy that is trusted', () => {
  const stack = useStack({
    workers: 0,
    env: { AUTH_FAILURES_PER_MINUTE: String(BOUND), TRUSTED_PROXY_HOPS: '1', AUTH_DEADLINE_SECONDS: '30' },
  });
  const url = () => nodeUrl(0, stack().addresses);
  const goodToken = () => mintToken({}, { stack: stack().addresses }).token;

  it('count as much on the ticket route, where good tokens still work', async () => {
    const address = freshAddress();
    const ask = (token?: string) => {
      const bearer: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
      return requestTicket({ url: url(), headers: { 'x-forwarded-for': address, ...bearer } });
    };
    const statuses = [];
    // A request without a credential is no attempt.
    for (let i = 0; i <= BOUND; i++) statuses.push((await ask()).status);
    for (let i = 0; i < BOUND; i++) statuses.push((await ask(FORGED)).status);
    expect(new Set(statuses)).toEqual(new Set([401]));
    const closed = await ask(FORGED);
    expect([closed.status, await closed.json()]).toMatchObject([429, { error: { code: 'AUTH_RATE_LIMITED' } }]);
    expect(Number(closed.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(await fail(1, { url: url(), forwarded: address })).toEqual([429]);
    expect((await ask(goodToken())).status).toBe(201);
  });

  it.each(['/ws', '/ws/secure', '/ws/user_1', '/ws/mcp'])(
    'on %s receive the reason up to the limit, and 429 with Retry-After above it',
    async (path) => {
      const forwarded = freshAddress();
      const readable = '1008 VALIDATION_FAILED';
      expect(await fail(BOUND + 2, { url: url(), path, forwarded })).toEqual([readable, readable, readable, 429, 429]);
      const raw = knock({ url: url(), path, token: FORGED, forwarded });
      const { headers } = await raw.answer;
      expect(Number(headers['retry-after'])).toBeGreaterThan(60);
      expect(Number(headers['retry-after'])).toBeLessThanOrEqual(120);
      const { error } = JSON.parse(`${await raw.ended}`);
      expect(error).toMatchObject({ code: 'AUTH_RATE_LIMITED', retryable: true, retry_after_ms: expect.any(Number) });
    },
  );

  it('do not affect good tokens from the same address, on any endpoint and in any place', async () => {
    const forwarded = freshAddress();
    await fail(BOUND + 1, { url: url(), forwarded });
    const headers = { 'x-forwarded-for': forwarded };
    const { token, userId } = mintToken({}, { stack: stack().addresses });
    for (const path of ['/ws', '/ws/secure', `/ws/${userId}`]) {
      expect([path, await outcome(knock({ url: url(), path, token, forwarded }))]).toEqual([path, 'welcome']);
    }
    const protocols = ['jwt-auth', `jwt.${Buffer.from(goodToken()).toString('base64url')}`];
    const page = await openClient({ url: url(), protocols, headers });
    expect([(await page.welcome()).auth_method, page.protocol]).toEqual(['subprotocol', 'jwt-auth']);
    const session = await openClient({ transport: 'socketio', url: url(), token: goodToken(), headers });
    expect((await session.welcome()).authenticated).toBe(true);
    // They say nothing about other clients of the address.
    expect(await fail(1, { url: url(), forwarded })).toEqual([429]);
  });

  it('make the token of another user on a user’s path 429 as well', async () => {
    const forwarded = freshAddress();
    const attempt = { url: url(), path: '/ws/user_1', token: goodToken(), forwarded };
    const mismatch = '1008 USER_MISMATCH';
    expect(await fail(BOUND + 1, attempt)).toEqual([mismatch, mismatch, mismatch, 429]);
  });

  it('close /ws to those who have yet to authenticate: in band they could try as many tokens', async () => {
    const forwarded = freshAddress();
    expect(await outcome(knock({ url: url(), path: '/ws', forwarded }))).toBe('welcome');
    await fail(BOUND, { url: url(), forwarded });
    expect(await outcome(knock({ url: url(), path: '/ws', forwarded }))).toBe(429);
  });

  it('count without a token too', async () => {
    const forwarded = freshAddress();
    const outcomes = [];
    for (let i = 0; i < BOUND + 1; i++) outcomes.push(await outcome(knock({ url: url(), forwarded })));
    expect(outcomes).toEqual(['1008 NO_TOKEN', '1008 NO_TOKEN', '1008 NO_TOKEN', 429]);
  });

  it('count in band too, and are answered with AUTH_RATE_LIMITED on sockets that are open already', async () => {
    const forwarded = freshAddress();
    const sockets = Array.from({ length: BOUND + 2 }, () => knock({ url: url(), path: '/ws', forwarded }));
    const codes = [];
    for (const raw of sockets) {
      await until(() => raw.frames.length > 0);
      raw.sendFrame(JSON.stringify({ type: 'auth', token: FORGED }));
      codes.push((await until(() => raw.closeFrame)).reason);
    }
    const [invalid, limited] = ['VALIDATION_FAILED', 'AUTH_RATE_LIMITED'];
    expect(codes).toEqual([invalid, invalid, invalid, limited, limited]);
    expect(await fail(1, { url: url(), forwarded })).toEqual([429]);
  });

  it('count when fifty messages have been sent without authenticating', async () => {
    const forwarded = freshAddress();
    for (let i = 0; i < BOUND; i++) {
      const raw = knock({ url: url(), path: '/ws', forwarded });
      await raw.answer;
      for (let message = 0; message <= 50; message++) raw.sendFrame('{"type":"ping"}');
      expect((await until(() => raw.closeFrame)).reason).toBe('NO_TOKEN');
    }
    expect(await fail(1, { url: url(), forwarded })).toEqual([429]);
  });

  it('over Socket.IO end in connect_error, above the bound with AUTH_RATE_LIMITED and when to come back', async () => {
    const headers = { 'x-forwarded-for': freshAddress() };
    const codes = [];
    for (let i = 0; i < BOUND + 1; i++) {
      const client = await openClient({ transport: 'socketio', url: url(), token: FORGED, headers });
      codes.push(client.refusal?.data?.code);
      await client.closed;
    }
    const invalid = 'VALIDATION_FAILED';
    expect(codes).toEqual([invalid, invalid, invalid, 'AUTH_RATE_LIMITED']);
    const last = await openClient({ transport: 'socketio', url: url(), headers });
    expect(last.refusal?.data).toMatchObject({ code: 'AUTH_RATE_LIMITED', retryable: true });
    expect(last.refusal?.data?.retry_after_ms).toBeGreaterThan(1_000);
  });

  it('over Socket.IO and raw WebSocket count together', async () => {
    const forwarded = freshAddress();
    for (let i = 0; i < BOUND; i++) {
      const headers = { 'x-forwarded-for': forwarded };
      await (await openClient({ transport: 'socketio', url: url(), token: FORGED, headers })).closed;
    }
    expect(await fail(1, { url: url(), forwarded })).toEqual([429]);
  });

  it('are not blamed on another address by a spoofed X-Forwarded-For, nor hidden by one', async () => {
    const [mine, victim] = [freshAddress(), freshAddress()];
    for (let i = 0; i < BOUND; i++) await fail(1, { url: url(), forwarded: `${victim}, ${mine}` });
    expect(await fail(1, { url: url(), forwarded: `198.51.100.${lastAddress}, ${mine}` })).toEqual([429]);
    expect(await fail(1, { url: url(), forwarded: ['10.1.2.3', mine] })).toEqual([429]);
    expect(await fail(1, { url: url(), forwarded: victim })).toEqual(['1008 VALIDATION_FAILED']);
  });

  it('from one /64 of IPv6 count together, and for no other', async () => {
    for (let i = 0; i < BOUND; i++) await fail(1, { url: url(), forwarded: `2001:db8:7:1::${i}` });
    expect(await fail(1, { url: url(), forwarded: '2001:db8:7:1:ffff::1' })).toEqual([429]);
    expect(await fail(1, { url: url(), forwarded: '2001:db8:7:2::1' })).toEqual(['1008 VALIDATION_FAILED']);
  });

  it('are counted as handshakes with the result AUTH_RATE_LIMITED', async () => {
    const forwarded = freshAddress();
    await fail(BOUND + 1, { url: url(), forwarded });
    const metrics = await (await fetch(`${url()}/metrics`)).text();
    expect(metrics).toMatch(/tollgate_handshakes_total\{endpoint="\/ws\/secure",result="AUTH_RATE_LIMITED"\} [1-9]/);
  });

  it.each(TRANSPORTS)('over %s that succeed count for nothing', async (transport) => {
    const headers = { 'x-forwarded-for': freshAddress() };
    for (let i = 0; i < BOUND + 2; i++) {
      const client = await openClient({ transport, url: url(), token: goodToken(), headers });
      await client.welcome();
      await client.close();
    }
  });
});

describe('B246 handshakes that fail, with no proxy trusted', () => {
  const stack = useStack({ workers: 0, env: { AUTH_FAILURES_PER_MINUTE: String(BOUND) } });

  it('are counted for the address of the socket, whatever X-Forwarded-For says', async () => {
    const url = nodeUrl(0, stack().addresses);
    for (let i = 0; i < BOUND; i++) await fail(1, { url, forwarded: `198.51.100.${i}` });
    expect(await fail(1, { url, forwarded: '198.51.100.99' })).toEqual([429]);
    const { token } = mintToken({}, { stack: stack().addresses });
    expect(await outcome(knock({ url, token, forwarded: '198.51.100.99' }))).toBe('welcome');
  });
});
