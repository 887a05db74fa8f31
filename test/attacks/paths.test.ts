import { describe, expect, it } from '@jest/globals';
import { nodeUrl } from '../support/nodes.ts';
import { openRawSocket, type RawRequest } from '../support/raw-socket.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const bearer = () => ({ Authorization: `Bearer ${mintToken().token}` });

async function refusal(request: Omit<RawRequest, 'url'>): Promise<[number, string]> {
  const raw = openRawSocket({ url: nodeUrl(0), ...request });
  const { status } = await raw.answer;
  return [status, JSON.parse(`${await raw.ended}`).error.code];
}

describe('an upgrade of a path that only resembles an endpoint', () => {
  it.each([
    ...['/ws/../admin', '/ws/../v1/users', '/ws/%2e%2e/v1/users', '//ws', '//evil.test/ws', '/ws;x'],
    ...['/ws\\secure', '/x/../ws/secure', '/ws/./secure', '/ws/%2e%2E/ws/secure', '/ws/secure#x', '/ws/secure/..'],
    ...['/ws/secure/../../v1/nodes', '/WS', '/ws%00', '/ws/a/b', '/v1/usage/records', '/metrics'],
  ])('A10 is 404 ENDPOINT_NOT_FOUND, and its socket is closed: %s', async (path) => {
    expect(await refusal({ path, headers: bearer() })).toEqual([404, 'ENDPOINT_NOT_FOUND']);
  });

  it('A10 is that of another user with an escaped slash: 1008 USER_MISMATCH', async () => {
    const raw = openRawSocket({ url: nodeUrl(0), path: '/ws/..%2fws', headers: bearer() });
    await until(() => raw.closeFrame);
    expect(raw.closeFrame).toEqual({ code: 1008, reason: 'USER_MISMATCH' });
  });

  it('A10 is 400 when it does not begin with a slash', async () => {
    expect(await refusal({ path: 'ws', headers: bearer() })).toEqual([400, 'FORMAT_ERROR']);
  });
});

describe('a plain request of a path that is not in normal form', () => {
  it.each(['/x/../health/live', '/health\\live', '/./health/live', '/socket.io/../health/live', '//health/live'])(
    'A10 is 404, and nothing is resolved: %s',
    async (path) => {
      const raw = openRawSocket({ url: nodeUrl(0), path, headers: { Connection: 'close', Upgrade: undefined } });
      expect((await raw.answer).status).toBe(404);
    },
  );
});

describe('a head with many headers', () => {
  const many = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, at) => [`a${at}`, '']));

  it('A8 is 431 with 64 kB in one header', async () => {
    const request = { path: '/ws/secure', headers: { ...bearer(), 'X-Large': 'x'.repeat(65_536) } };
    expect(await refusal(request)).toEqual([431, 'MESSAGE_TOO_LARGE']);
  });

  it('A8 is 431 with 2,500 headers', async () => {
    expect(await refusal({ path: '/ws/secure', headers: { ...many(2_500), ...bearer() } })).toEqual([
      431,
      'MESSAGE_TOO_LARGE',
    ]);
  });

  it('A8 is 400 with 15 kB of spaces in Sec-WebSocket-Protocol', async () => {
    const spaces = `mcp,${' '.repeat(15_000)}jwt-auth`;
    const request = { path: '/ws/secure', headers: { ...bearer(), 'Sec-WebSocket-Protocol': spaces } };
    expect(await refusal(request)).toEqual([400, 'FORMAT_ERROR']);
  });

  it('A9 is 431 with a second credential behind 2,100 headers: none of them is cut off silently', async () => {
    const fillers = Array.from({ length: 2_100 }, () => '');
    const headers = { ...bearer(), a: fillers, authorization: `Bearer ${mintToken().token}` };
    expect(await refusal({ path: '/ws/secure', headers })).toEqual([431, 'MESSAGE_TOO_LARGE']);
  });

  it('A9 is refused with a second credential behind 800 headers: INVALID_FORMAT', async () => {
    const headers = { ...bearer(), a: Array.from({ length: 800 }, () => ''), authorization: 'Bearer a.b.c' };
    const raw = openRawSocket({ url: nodeUrl(0), path: '/ws/secure', headers });
    await until(() => raw.closeFrame);
    expect(raw.closeFrame).toEqual({ code: 1008, reason: 'INVALID_FORMAT' });
  });
});

it('B10 a ticket is not given by GET: 404 ENDPOINT_NOT_FOUND', async () => {
  const response = await fetch(new URL('/v1/tickets', nodeUrl(0)), {
    headers: { authorization: `Bearer ${mintToken().token}` },
  });
  const { error } = (await response.json()) as { error: { code: string } };
  expect([response.status, error.code]).toEqual([404, 'ENDPOINT_NOT_FOUND']);
});
