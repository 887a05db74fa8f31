import { describe, expect, it } from '@jest/globals';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { openRawSocket } from '../support/raw-socket.ts';
import { refused } from '../support/refusals.ts';
import { mintToken, validToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const base64url = (text: string) => Buffer.from(text).toString('base64url');

/** An upgrade that offers these subprotocols; the `ws` client drops a connection whose offer is not answered. */
async function offer(protocols: string, path = '/ws/secure') {
  const raw = openRawSocket({ url: nodeUrl(0), path, headers: { 'Sec-WebSocket-Protocol': protocols } });
  const { status, headers } = await raw.answer;
  const answered = headers['sec-websocket-protocol'];
  if (status !== 101) return { status, answered, first: undefined, headers, raw };
  const frame = await until(() => raw.frames[0]);
  return { status, answered, first: JSON.parse(frame.payload.toString()), headers, raw };
}

describe('the Authorization header', () => {
  it.each(['Bearer', 'bearer', 'BEARER'])('B35 B37 lets a user in with the scheme %s', async (scheme) => {
    const { token, userId, claims } = mintToken({ plan: 'enterprise' });
    const client = await openClient({ headers: { authorization: `${scheme} ${token}` } });
    expect(await client.welcome()).toMatchObject({
      user_id: userId,
      plan: 'enterprise',
      auth_method: 'header',
      permissions: expect.arrayContaining(claims.permissions.slice()),
    });
  });

  it.each([
    ['the scheme alone', 'Bearer', 'INVALID_FORMAT'],
    ['another scheme', 'Basic dXNlcjpwYXNz', 'INVALID_FORMAT'],
    ['two tokens', 'Bearer a.b.c d.e.f', 'INVALID_FORMAT'],
    ['text that is no token', 'Bearer hello', 'INVALID_FORMAT'],
    ['SQL', "Bearer ' OR 1=1; DROP TABLE users;--", 'INVALID_FORMAT'],
    ['markup', 'Bearer <script>alert(1)</script>', 'INVALID_FORMAT'],
    ['9 KB', `Bearer ${'a'.repeat(3_000)}.${'b'.repeat(3_000)}.${'c'.repeat(3_000)}`, 'INVALID_FORMAT'],
    ['the form of a token', 'Bearer a.b.c', 'VALIDATION_FAILED'],
  ])('B37 B50 B52 B121 is refused with %s, which it does not repeat', async (_what, authorization, code) => {
    const { error, closed } = await refused({ headers: { authorization } });
    expect(error.code).toBe(code);
    expect(closed).toEqual({ code: 1008, reason: code });
    expect(error.message).not.toMatch(/database|internal|server|jwt|token/i);
    expect(JSON.stringify(error)).not.toContain(authorization.split(' ')[1] ?? 'Bearer');
  });

  it('is read over Socket.IO too', async () => {
    const { token, userId } = mintToken();
    const client = await openClient({ transport: 'socketio', headers: { authorization: `Bearer ${token}` } });
    expect(await client.welcome()).toMatchObject({ user_id: userId, auth_method: 'header' });
  });
});

describe('the sub-protocol', () => {
  it.each(['/ws', '/ws/secure', '/ws/mcp'])('B2 B36 lets a user in on %s, and jwt-auth is answered', async (path) => {
    const { token, userId } = mintToken();
    const client = await openClient({ path, protocols: ['jwt-auth', `jwt.${base64url(token)}`] });
    expect(await client.welcome()).toMatchObject({ user_id: userId, auth_method: 'subprotocol', authenticated: true });
    expect(client.protocol).toBe('jwt-auth');
  });

  it.each([
    ['jwt-auth.<token>', (token: string) => `jwt-auth, jwt-auth.${base64url(token)}`],
    ['the token first', (token: string) => `jwt.${base64url(token)}, jwt-auth`],
    ['the scheme inside', (token: string) => `jwt-auth, jwt.${base64url(`Bearer ${token}`)}`],
    ['padding', (token: string) => `jwt-auth, jwt.${base64url(token)}=`],
    ['padding of two', (token: string) => `jwt.${base64url(token)}==, jwt-auth`],
  ])('B36 takes the token as %s', async (_form, protocols) => {
    const { token, userId } = mintToken();
    const { status, answered, first } = await offer(protocols(token));
    expect([status, answered]).toEqual([101, 'jwt-auth']);
    expect(first.payload).toMatchObject({ user_id: userId, auth_method: 'subprotocol' });
  });

  it('is not answered when only the token was offered: connected, and the token is not echoed', async () => {
    for (const prefix of ['jwt', 'jwt-auth']) {
      const { token, userId } = mintToken();
      const { status, answered, first, headers, raw } = await offer(`${prefix}.${base64url(token)}`);
      expect([status, answered]).toEqual([101, undefined]);
      expect(first.payload.user_id).toBe(userId);
      const received = JSON.stringify(headers) + raw.body.toString();
      expect(received).not.toContain(base64url(token));
      expect(received).not.toContain(token);
    }
  });

  it('is answered with mcp on /ws/mcp only, where it is preferred', async () => {
    const entry = `jwt.${base64url(validToken())}`;
    expect((await offer(`jwt-auth, mcp, ${entry}`, '/ws/mcp')).answered).toBe('mcp');
    expect((await offer(`mcp, ${entry}`, '/ws/mcp')).answered).toBe('mcp');
    expect((await offer(`mcp, jwt-auth, ${entry}`, '/ws/secure')).answered).toBe('jwt-auth');
    expect((await offer(`mcp, ${entry}`, '/ws/secure')).answered).toBeUndefined();
  });

  it('B237 is refused as it was sent by the client of issue 463', async () => {
    const token = validToken();
    for (const protocols of [`jwt, ${token}`, `jwt-auth, ${token}`]) {
      const { answered, first, raw } = await offer(protocols);
      expect(first.payload.code).toBe('NO_TOKEN');
      expect([undefined, 'jwt-auth']).toContain(answered);
      expect(raw.closeFrame ?? (await until(() => raw.closeFrame))).toEqual({ code: 1008, reason: 'NO_TOKEN' });
    }
  });

  it.each([
    ['text that is no token', base64url('hello'), 'INVALID_FORMAT'],
    ['the token not encoded', 'eyJh.eyJz.c2ln', 'INVALID_FORMAT'],
    ['nothing', '', 'NO_TOKEN'],
  ])('B50 is refused with %s', async (_what, encoded, code) => {
    const { answered, first } = await offer(`jwt-auth, jwt.${encoded}`);
    expect([answered, first.payload.code]).toEqual(['jwt-auth', code]);
  });
});

describe('two credentials', () => {
  it('B52 that disagree are refused', async () => {
    const [one, other] = [validToken(), validToken()];
    const protocols = ['jwt-auth', `jwt.${base64url(other)}`];
    const raw = await refused({ token: one, protocols });
    expect([raw.error.code, raw.closed]).toEqual([
      'CONFLICTING_CREDENTIALS',
      { code: 1008, reason: 'CONFLICTING_CREDENTIALS' },
    ]);
    const headers = { authorization: `Bearer ${other}` };
    const socketIo = await refused({ transport: 'socketio', token: one, headers });
    expect(socketIo.error.code).toBe('CONFLICTING_CREDENTIALS');
  });

  it('that agree are one', async () => {
    const { token, userId } = mintToken();
    const client = await openClient({ token, protocols: ['jwt-auth', `jwt.${base64url(token)}`] });
    expect(await client.welcome()).toMatchObject({ user_id: userId, auth_method: 'header' });
  });
});

describe.each(TRANSPORTS)('a token over %s', (transport) => {
  it.each([
    ['of a service', { token_use: 'service', sub: 'service:billing' }, 'VALIDATION_FAILED'],
    ['for another audience', { aud: 'billing' }, 'VALIDATION_FAILED'],
    ['of another issuer', { iss: 'https://evil.example.test' }, 'VALIDATION_FAILED'],
    ['without a subject', { sub: undefined }, 'VALIDATION_FAILED'],
    ['from the future', { iat: Math.floor(Date.now() / 1000) + 600 }, 'VALIDATION_FAILED'],
  ])('B42 B50 %s is refused, and not worth trying again', async (_what, claims, code) => {
    const { error } = await refused({ transport, token: validToken(claims) });
    expect(error).toMatchObject({ code, retryable: false });
    expect(error).not.toHaveProperty('retry_after_ms');
  });

  it('B42 that is missing, has a wrong form or has expired tells which, and whether to try again', async () => {
    const now = Math.floor(Date.now() / 1000);
    const expired = validToken({ iat: now - 60, exp: now - 30 });
    const cases = [
      [undefined, 'NO_TOKEN', false],
      ['no-token-at-all', 'INVALID_FORMAT', false],
      [expired, 'TOKEN_EXPIRED', true],
    ] as const;
    for (const [token, code, retryable] of cases) {
      const { error } = await refused({ transport, ...(token === undefined ? {} : { token }) });
      expect(error).toMatchObject({ code, retryable, message: expect.any(String) });
    }
  });
});

describe('the token of Socket.IO', () => {
  it.each([5, {}, ['a.b.c'], true])('is refused when it is %j', async (token) => {
    const { error } = await refused({ transport: 'socketio', auth: { token } });
    expect(error.code).toBe('INVALID_FORMAT');
  });

  it('B36 may begin with its scheme', async () => {
    const { token, userId } = mintToken();
    const client = await openClient({ transport: 'socketio', token: `Bearer ${token}` });
    expect(await client.welcome()).toMatchObject({ user_id: userId, auth_method: 'handshake' });
  });
});
