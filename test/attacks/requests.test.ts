import { connect } from 'node:net';
import { describe, expect, it } from '@jest/globals';
import { openClient } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { mintToken } from '../support/tokens.ts';

const QUIET_MS = 500;

/** Writes literal bytes, and returns the statuses of all responses once the connection has closed or is quiet. */
function statusesOf(bytes: string): Promise<number[]> {
  const { hostname, port } = new URL(nodeUrl(0));
  return new Promise((resolve) => {
    let answer = '';
    const socket = connect(Number(port), hostname, () => socket.write(bytes, 'latin1'));
    closeAfter('test', () => socket.destroy());
    const end = () => {
      socket.destroy();
      resolve([...answer.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status)));
    };
    socket.on('data', (data) => {
      answer += data.toString('latin1');
      socket.setTimeout(QUIET_MS, end);
    });
    socket.on('error', () => {});
    socket.on('close', end);
  });
}

const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: gateway\r\n\r\n`;
const HIDDEN = get('/health/live');

function post(headers: readonly string[], body: string): string {
  return `POST /v1/runs HTTP/1.1\r\n${['Host: gateway', 'Content-Type: application/json', ...headers].join('\r\n')}\r\n\r\n${body}`;
}

const CHUNKED = `0\r\n\r\n${HIDDEN}`;

describe('a request whose end two servers can see in different places', () => {
  it.each([
    ['Content-Length and Transfer-Encoding', post(['Content-Length: 4', 'Transfer-Encoding: chunked'], CHUNKED)],
    ['two lengths', post(['Content-Length: 0', 'Content-Length: 40'], HIDDEN)],
    ['a list of lengths', post(['Content-Length: 0, 40'], HIDDEN)],
    ['a length with a sign', post(['Content-Length: +0'], HIDDEN)],
    ['a length in hexadecimal', post(['Content-Length: 0x0'], HIDDEN)],
    ['an unknown transfer coding', post(['Transfer-Encoding: xchunked'], CHUNKED)],
    ['chunked before another coding', post(['Transfer-Encoding: chunked, identity'], CHUNKED)],
    ['a space before the colon', post(['Transfer-Encoding : chunked'], CHUNKED)],
    ['a folded header', post(['Transfer-Encoding:', ' chunked'], CHUNKED)],
    ['a chunk size with a sign', post(['Transfer-Encoding: chunked'], `-1\r\n\r\n${HIDDEN}`)],
    ['a chunk size above 2^64', post(['Transfer-Encoding: chunked'], `10000000000000000\r\n\r\n${HIDDEN}`)],
    ['a bare line feed after a chunk size', post(['Transfer-Encoding: chunked'], `0\n\n${HIDDEN}`)],
    ['a carriage return within a header', post(['X-Name: a\rTransfer-Encoding: chunked'], CHUNKED)],
    ['a null byte within a header', post(['X-Name: a\0b'], '')],
  ])('T28 is refused with one response, and what follows is not read: %s', async (_name, bytes) => {
    const statuses = await statusesOf(bytes);
    expect(statuses).toHaveLength(1);
    expect([400, 401]).toContain(statuses[0]);
  });

  it('is what two whole requests are not: each has its response', async () => {
    expect(await statusesOf(get('/health/live') + get('/health/live'))).toEqual([200, 200]);
  });
});

describe('a request target with bytes that a terminal interprets', () => {
  it.each([
    ['an escape sequence', '/\x1b[31m'],
    ['a control byte of 8 bits', '/\x9b31m'],
    ['a line break', '/a\n{"level":50}'],
    ['a carriage return', '/a\r{"level":50}'],
  ])('T29 is 400, before anything is logged: %s', async (_name, path) => {
    expect(await statusesOf(get(path))).toEqual([400]);
  });
});

describe('a position in Last-Event-ID', () => {
  it.each([
    ...[
      'epoch:-1',
      'epoch:1e3',
      'epoch:9007199254740993',
      'epoch:',
      ':1',
      'epoch',
      'epoch:0x1',
      'epoch:1.5',
      'epoch: 1',
    ],
    ...['epoch:NaN', `${'e'.repeat(1_000)}:1`, '__proto__', 'epoch:1:'],
  ])('T30 that was forged is 400 FORMAT_ERROR: %s', async (id) => {
    const headers = { authorization: `Bearer ${mintToken().token}`, 'last-event-id': id };
    const response = await fetch(new URL('/v1/events', nodeUrl(0)), { headers });
    const { error } = (await response.json()) as { error: { code: string } };
    expect([response.status, error.code]).toEqual([400, 'FORMAT_ERROR']);
  });
});

it('T31 a range is not applied: the whole document comes with 200', async () => {
  const url = new URL('/openapi.json', nodeUrl(0));
  const ranges = Array.from({ length: 500 }, (_, at) => `${at}-`).join(',');
  const [whole, ranged] = await Promise.all([fetch(url), fetch(url, { headers: { range: `bytes=${ranges}` } })]);
  expect([ranged.status, (await ranged.text()).length]).toEqual([200, (await whole.text()).length]);
});

describe('names that a client chooses', () => {
  async function series(): Promise<readonly string[]> {
    const text = await (await fetch(new URL('/metrics', nodeUrl(0)))).text();
    return text.split('\n').filter((line) => line.startsWith('tollgate_'));
  }

  it('T32 never become labels of metrics: paths, methods, tools, messages, agents', async () => {
    const mark = 'made_up_name';
    const { token } = mintToken({ plan: 'enterprise' });
    const client = await openClient({ url: nodeUrl(0), token });
    const use = async (name: string) => {
      const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json', 'user-agent': name };
      await fetch(new URL(`/${name}/${name}?${name}`, nodeUrl(0)), { headers });
      await fetch(new URL(`/v1/tools/${name}`, nodeUrl(0)), { method: 'POST', headers, body: '{}' });
      await fetch(new URL('/v1/runs', nodeUrl(0)), { method: 'PROPFIND', headers });
      const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: name, params: { name } });
      await fetch(new URL('/mcp', nodeUrl(0)), { method: 'POST', headers, body });
      client.send(name, {});
      client.send('tool_call', { tool: name, arguments: {} });
      client.send('agent_request', { message: 'x', agent: name });
      await client.waitFor('error');
    };
    await use(mark);
    const before = await series();
    for (let at = 0; at < 5; at++) await use(`${mark}_${at}`);
    const after = await series();
    expect(after.filter((line) => line.includes(mark))).toEqual([]);
    const grown = after.length - before.length;
    // Buckets of a result that had not occurred yet; a label per name would add dozens for each.
    expect(grown).toBeLessThan(40);
  });
});
