import { connect } from 'node:net';
import { describe, expect, it } from '@jest/globals';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { openRawSocket, type RawRequest, type RawSocket } from '../support/raw-socket.ts';
import { useStack } from '../support/stack.ts';

const ENGINE = '/socket.io/?EIO=4&transport=websocket';
const PATHS = ['/ws', '/ws/secure', '/ws/mcp', '/ws/v1/user_1', '/ws/user_1', ENGINE];
const UPGRADE_HEADERS = { upgrade: 'websocket', 'sec-websocket-version': '13' };

const stack = useStack({ workers: 0 });
const url = () => nodeUrl(0, stack().addresses);

function upgrade(path: string, headers: RawRequest['headers'] = {}): RawSocket {
  return openRawSocket({ url: url(), path, headers });
}

/** Returns the status and the error code of the body. The server closes the connection after it. */
async function refusal(raw: RawSocket): Promise<[number, string]> {
  const { status } = await raw.answer;
  return [status, JSON.parse(`${await raw.ended}`).error.code];
}

/** Writes literal bytes, and resolves with everything received when the server has closed the connection. */
function exchange(bytes: string): Promise<string> {
  const { hostname, port } = new URL(url());
  return new Promise((resolve) => {
    let answer = '';
    const socket = connect(Number(port), hostname, () => socket.write(bytes));
    closeAfter('test', () => socket.destroy());
    socket.on('data', (data) => {
      answer += data.toString('latin1');
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(answer));
  });
}

function upgradeBytes(path: string, version = '1.1'): string {
  const headers = ['Host: gateway', 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'];
  return `GET ${path} HTTP/${version}\r\n${headers.join('\r\n')}\r\nSec-WebSocket-Key: ${'A'.repeat(22)}==\r\n\r\n`;
}

describe.each(PATHS)('an upgrade of %s', (path) => {
  it.each<[string, RawRequest['headers'], number, string]>([
    ['with a body', { 'Content-Length': '5' }, 400, 'FORMAT_ERROR'],
    ['with a chunked body', { 'Transfer-Encoding': 'chunked' }, 400, 'FORMAT_ERROR'],
    ['of version 8', { 'Sec-WebSocket-Version': '8' }, 426, 'UPGRADE_REQUIRED'],
    ['of version 99', { 'Sec-WebSocket-Version': '99' }, 426, 'UPGRADE_REQUIRED'],
    ['of two versions', { 'Sec-WebSocket-Version': ['13', '8'] }, 426, 'UPGRADE_REQUIRED'],
    ['without a version', { 'Sec-WebSocket-Version': undefined }, 426, 'UPGRADE_REQUIRED'],
    ['without a key', { 'Sec-WebSocket-Key': undefined }, 400, 'FORMAT_ERROR'],
    ['with a key of 3 bytes', { 'Sec-WebSocket-Key': 'AAAA' }, 400, 'FORMAT_ERROR'],
    ['with two keys', { 'Sec-WebSocket-Key': [`${'A'.repeat(22)}==`, `${'B'.repeat(22)}==`] }, 400, 'FORMAT_ERROR'],
    ['with two Host headers', { Host: ['gateway', 'evil.test'] }, 400, 'FORMAT_ERROR'],
    ['with the same Host twice', { Host: ['gateway', 'gateway'] }, 400, 'FORMAT_ERROR'],
    ['without a Host', { Host: undefined }, 400, 'FORMAT_ERROR'],
    ['with a quote in Host', { Host: 'a"b' }, 400, 'FORMAT_ERROR'],
    ['with a path in Host', { Host: 'gateway/x' }, 400, 'FORMAT_ERROR'],
    ['with a sub-protocol twice', { 'Sec-WebSocket-Protocol': 'mcp, mcp' }, 400, 'FORMAT_ERROR'],
  ])('A7 %s is refused with HTTP and an error object', async (_what, headers, status, code) => {
    const raw = upgrade(path, headers);
    expect(await refusal(raw)).toEqual([status, code]);
    const answer = (await raw.answer).headers;
    expect(answer.connection).toBe(status === 426 ? 'Upgrade, close' : 'close');
    if (status === 426) expect(answer).toMatchObject(UPGRADE_HEADERS);
  });

  it('A7 by POST is 400', async () => {
    expect(await refusal(openRawSocket({ url: url(), path, method: 'POST' }))).toEqual([400, 'FORMAT_ERROR']);
  });

  it('over HTTP/1.0 is 400', async () => {
    expect(await exchange(upgradeBytes(path, '1.0'))).toMatch(/^HTTP\/1\.1 400 [\s\S]*"FORMAT_ERROR"/);
  });

  it.each(['h2c', 'websocket2', 'TLS/1.0', 'h2c, websocket', undefined])(
    'A7 to %s is a plain request: 426 that names the protocol',
    async (protocol) => {
      const raw = upgrade(path, { Upgrade: protocol, Connection: 'Upgrade, close' });
      const { status, headers } = await raw.answer;
      expect([status, headers]).toMatchObject([426, UPGRADE_HEADERS]);
      expect(JSON.parse(`${await raw.ended}`).error).toMatchObject({ code: 'UPGRADE_REQUIRED', retryable: false });
    },
  );

  it('with another request behind it in the same packet is 400, and the other request is not answered', async () => {
    const answer = await exchange(`${upgradeBytes(path)}GET /health/live HTTP/1.1\r\nHost: gateway\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 400 [\s\S]*"FORMAT_ERROR"/);
    expect(answer.match(/HTTP\/1\.1/g)).toHaveLength(1);
  });

  it('behind a request that has not been answered yet is 400, after the answer to that', async () => {
    const answer = await exchange(`GET /health/ready HTTP/1.1\r\nHost: gateway\r\n\r\n${upgradeBytes(path)}`);
    const statuses = [...answer.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status);
    expect([answer.includes('101 Switching'), statuses[1]]).toEqual([false, '400']);
    expect(answer.indexOf('"checks"')).toBeLessThan(answer.indexOf('"FORMAT_ERROR"'));
  });

  it('behind a request that has been answered on the same connection is accepted', async () => {
    const raw = openRawSocket({
      url: url(),
      path: '/health/live',
      headers: { Upgrade: undefined, Connection: undefined },
    });
    expect((await raw.answer).status).toBe(200);
    let later = '';
    raw.socket.on('data', (data) => {
      later += String(data);
    });
    raw.write(upgradeBytes(path));
    await new Promise((resolve) => raw.socket.once('data', resolve));
    expect(later).toMatch(/^HTTP\/1\.1 101 /);
  });
});

describe('a plain request', () => {
  it.each(['/ws/config', '/ws/secure/config', '/ws/secure/health'])('of %s is answered as ever', async (path) => {
    expect((await fetch(`${url()}${path}`)).status).toBe(200);
  });

  it.each(['/ws/', '/ws/v1', '/ws/health', '/ws/a/b', '/nonexistent', '//ws'])('of %s is 404', async (path) => {
    expect((await fetch(`${url()}${path}`)).status).toBe(404);
  });

  it.each([
    ['two Host headers', 'Host: gateway\r\nHost: evil.test\r\n'],
    ['no Host', ''],
    ['a quote in Host', 'Host: a"b\r\n'],
    ['a space in Host', 'Host: a b\r\n'],
    ['a user name in Host', 'Host: user@gateway\r\n'],
    ['a port that is none', 'Host: gateway:x\r\n'],
  ])('with %s is 400, and nothing of it is repeated', async (_what, host) => {
    const answer = await exchange(`POST /mcp HTTP/1.1\r\n${host}Content-Length: 0\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 400 [\s\S]*"FORMAT_ERROR"/);
    expect(answer).not.toMatch(/www-authenticate|evil|a"b/i);
  });

  it.each(['gateway', 'gateway:8000', '127.0.0.1:8000', '[::1]:8000', 'GATEWAY.example.test.'])(
    'with Host %s is taken',
    async (host) => {
      const answer = await exchange(`GET /health/live HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
      expect(answer).toMatch(/^HTTP\/1\.1 200 /);
    },
  );
});

describe('a version of Engine.IO that is not spoken', () => {
  it.each(['3', '2', '5', ''])(
    'E20 %s over WebSocket is 400 before the upgrade, with an error object',
    async (version) => {
      const raw = upgrade(`/socket.io/?EIO=${version}&transport=websocket`);
      expect(await refusal(raw)).toEqual([400, 'FORMAT_ERROR']);
    },
  );

  it('E20 3 over polling is 400, in the form that clients of Engine.IO know', async () => {
    const answer = await fetch(`${url()}/socket.io/?EIO=3&transport=polling`);
    expect([answer.status, await answer.json()]).toEqual([400, { code: 5, message: 'Unsupported protocol version' }]);
  });

  it('E20 an upgrade with another transport in its query is 400', async () => {
    expect(await refusal(upgrade('/socket.io/?EIO=4&transport=polling'))).toEqual([400, 'FORMAT_ERROR']);
  });
});
