import { describe, expect, it } from '@jest/globals';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { openRawSocket } from '../support/raw-socket.ts';
import { refused } from '../support/refusals.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { mintToken, validToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const ALLOWED_ORIGIN = 'http://app.example.test';
const now = () => Math.floor(Date.now() / 1000);

describe.each(TRANSPORTS)('a handshake over %s', (transport) => {
  it('B3 B15 without a token is refused so that the client can read it, without delay', async () => {
    const watch = await Stopwatch.start();
    const { error, closed, tookMs } = await refused({ transport });
    expect(error).toMatchObject({ code: 'NO_TOKEN', retryable: false });
    expect(error.message).toMatch(/authentication/i);
    if (transport === 'ws') expect(closed).toEqual({ code: 1008, reason: 'NO_TOKEN' });
    expect(tookMs).toBeLessThan(watch.allow(2_000));
  });

  it('B4 with a token of a foreign signature is refused', async () => {
    const { token } = mintToken({}, { secret: 'somebody else signs with this, 32+ bytes' });
    const { error, closed } = await refused({ transport, token });
    expect(error).toMatchObject({ code: 'VALIDATION_FAILED', retryable: false });
    if (transport === 'ws') expect(closed).toEqual({ code: 1008, reason: 'VALIDATION_FAILED' });
  });

  it('B19 B51 with an expired token is refused as retryable', async () => {
    const token = validToken({ iat: now() - 120, exp: now() - 60 });
    const { error, closed } = await refused({ transport, token });
    expect(error).toMatchObject({ code: 'TOKEN_EXPIRED', retryable: true });
    if (transport === 'ws') expect(closed).toEqual({ code: 1008, reason: 'TOKEN_EXPIRED' });
  });

  it('leaves nothing open behind a refusal', async () => {
    const client = await openClient({ transport });
    expect((await client.closed).reason).not.toBe('');
  });

  it('B16 from a foreign origin is refused with 403 before the upgrade, whatever its token', async () => {
    for (const origin of ['http://evil.example.test', 'null', `${ALLOWED_ORIGIN}.evil.test`]) {
      const client = await openClient({ transport, token: validToken(), headers: { origin } });
      expect([origin, client.refusal?.status]).toEqual([origin, 403]);
      expect(client.events).toEqual([]);
    }
  });

  it('B16 from an allowed origin, or from none, is accepted', async () => {
    const page = await openClient({ transport, token: validToken(), headers: { origin: ALLOWED_ORIGIN } });
    expect((await page.welcome()).authenticated).toBe(true);
    const native = await openClient({ transport, token: validToken() });
    expect((await native.welcome()).authenticated).toBe(true);
  });

  it('with an invalid resume position is refused with FORMAT_ERROR', async () => {
    const resumePoint = { after: 'soon', epoch: 'e' };
    const options = transport === 'ws' ? { query: resumePoint } : { auth: resumePoint };
    const { error } = await refused({ transport, token: validToken(), ...options });
    expect(error).toMatchObject({ code: 'FORMAT_ERROR' });
  });
});

describe('a refusal', () => {
  it.each([
    ['/ws/secure', { type: 'error', payload: { code: 'NO_TOKEN', recoverable: false } }],
    ['/ws/user_1', { type: 'error', payload: { code: 'NO_TOKEN', recoverable: false } }],
    ['/ws/mcp', { jsonrpc: '2.0', error: { code: -33401, data: { code: 'NO_TOKEN', retryable: false } } }],
  ])(
    'on %s is reported in the dialect of the endpoint, and nothing that was sent is processed',
    async (path, expected) => {
      const raw = openRawSocket({ url: nodeUrl(0), path });
      await raw.answer;
      raw.sendFrame('{"type":"ping"}');
      raw.sendFrame('{"jsonrpc":"2.0","id":1,"method":"ping"}');
      await until(() => raw.closeFrame);
      const [first, close, ...others] = raw.frames;
      expect(JSON.parse(`${first?.payload}`)).toMatchObject(expected);
      expect(JSON.parse(`${first?.payload}`)).not.toHaveProperty('id');
      expect(raw.closeFrame).toEqual({ code: 1008, reason: 'NO_TOKEN' });
      expect([close?.opcode, others]).toEqual([8, []]);
    },
  );

  it('of a foreign origin is JSON, as every error over HTTP', async () => {
    const client = await openClient({ token: validToken(), headers: { origin: 'http://evil.example.test' } });
    expect(JSON.parse(client.refusal?.body ?? '')).toMatchObject({
      error: { code: 'ORIGIN_NOT_ALLOWED', retryable: false },
    });
  });

  it('B16 of a foreign origin holds for long polling too, and names no origin to the page', async () => {
    const response = await fetch(`${nodeUrl(0)}/socket.io/?EIO=4&transport=polling`, {
      headers: { origin: 'http://evil.example.test' },
    });
    expect(response.status).toBe(403);
    expect(response.headers.get('access-control-allow-origin')).toBeNull();
  });

  it('B30 of a path that is a stranger, /ws/nonexistent, has an error object', async () => {
    const anonymous = await refused({ path: '/ws/nonexistent' });
    expect(anonymous).toMatchObject({ error: { code: 'NO_TOKEN' }, closed: { code: 1008, reason: 'NO_TOKEN' } });
    const somebody = await refused({ path: '/ws/nonexistent', token: validToken() });
    expect(somebody.error.code).toBe('USER_MISMATCH');
    expect(somebody.error.message).toMatch(/unauthorized.*mismatch/i);
    expect(somebody.closed).toEqual({ code: 1008, reason: 'USER_MISMATCH' });
  });

  it.each(['/', '/nonexistent', '/ws/', '/ws/secure/', '//ws', '/ws/v1', '/ws/config', '/ws/a/b', '/health/live'])(
    'B30 of the path %s, where no WebSocket is, is 404 with an error object',
    async (path) => {
      const raw = openRawSocket({ url: nodeUrl(0), path });
      expect(await raw.answer).toMatchObject({ status: 404, headers: { connection: 'close' } });
      expect(JSON.parse(`${await raw.ended}`)).toMatchObject({ error: { code: 'ENDPOINT_NOT_FOUND' } });
    },
  );

  it.each(['/ws/{user}', '/ws/v1/{user}'])('B21 B22 on %s depends on whose token it is', async (path) => {
    const { token, userId } = mintToken();
    const own = await openClient({ path: path.replace('{user}', userId), token });
    expect((await own.welcome()).user_id).toBe(userId);
    const { error } = await refused({ path: path.replace('{user}', `${userId}x`), token });
    expect(error.code).toBe('USER_MISMATCH');
  });

  it.each(['token', 'access_token', 'jwt', 'authorization'])('takes no token from the query: %s', async (name) => {
    const { error } = await refused({ query: { [name]: validToken() } });
    expect(error.code).toBe('NO_TOKEN');
  });

  it('of an upgrade that is no proper WebSocket handshake is plain HTTP', async () => {
    for (const headers of [{ 'Sec-WebSocket-Version': '7' }, { 'Sec-WebSocket-Key': 'short' }, { Upgrade: 'h2c' }]) {
      const raw = openRawSocket({ url: nodeUrl(0), path: '/ws', headers });
      expect((await raw.answer).status).toBeGreaterThanOrEqual(400);
      expect((await raw.answer).status).toBeLessThan(500);
    }
  });
});
