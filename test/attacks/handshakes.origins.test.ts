import { describe, expect, it } from '@jest/globals';
import { base64url } from '../support/forged-tokens.ts';
import { nodeUrl } from '../support/nodes.ts';
import { OPCODE, openRawSocket, type RawSocket } from '../support/raw-socket.ts';
import { mintToken, validToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** The origin that the test stacks allow. */
const PAGE = 'http://app.example.test';
const ENGINE = '/socket.io/?EIO=4&transport=websocket';

type HeaderValue = string | readonly string[];

/** An upgrade with a valid token, so that only the origin can cause a refusal. */
function upgrade(path: string, headers: Record<string, HeaderValue>): RawSocket {
  const token = { Authorization: `Bearer ${validToken()}` };
  return openRawSocket({ url: nodeUrl(0), path, headers: { ...token, ...headers } });
}

describe.each(['/ws', '/ws/secure', '/ws/mcp', ENGINE])('an upgrade of %s', (path) => {
  it.each<[string, HeaderValue]>([
    ['null, of sandboxed pages and files', 'null'],
    ['nothing', ''],
    ['*', '*'],
    ['another port', `${PAGE}:81`],
    ['the port that goes without saying', `${PAGE}:80`],
    ['another scheme', PAGE.replace('http', 'https')],
    ['the scheme of WebSockets', PAGE.replace('http', 'ws')],
    ['a dot behind the host', `${PAGE}.`],
    ['a slash behind', `${PAGE}/`],
    ['a path', `${PAGE}/page`],
    ['capitals in the host', 'http://APP.example.test'],
    ['capitals in the scheme', 'HTTP://app.example.test'],
    ['a host that begins alike', `${PAGE}.evil.test`],
    ['a host that ends alike', 'http://evil-app.example.test'],
    ['the parent domain', 'http://example.test'],
    ['a subdomain', 'http://x.app.example.test'],
    ['a host that only looks alike', 'http://\u0430pp.example.test'],
    ['it as a user name', `${PAGE}@evil.test`],
    ['a user name in front', 'http://user@app.example.test'],
    ['it as a query', `http://evil.test?${PAGE}`],
    ['a list with it', `${PAGE}, http://evil.test`],
    ['a list with it, of spaces', `${PAGE} http://evil.test`],
    ['two headers, the first of which is allowed', [PAGE, 'http://evil.test']],
    ['two headers that are both allowed', [PAGE, PAGE]],
  ])('B16 by a page of %s is 403 before it is accepted', async (_what, origin) => {
    const raw = upgrade(path, { Origin: origin });
    expect((await raw.answer).status).toBe(403);
    const body = JSON.parse(`${await raw.ended}`);
    expect(body).toMatchObject({ error: { code: 'ORIGIN_NOT_ALLOWED', retryable: false } });
    // The refusal must not reveal allowed origins.
    expect(JSON.stringify(body)).not.toContain('example.test');
  });

  it('B16 by the page that is allowed goes on, also with spaces around its name', async () => {
    for (const origin of [PAGE, `  ${PAGE}\t`]) {
      expect((await upgrade(path, { Origin: origin }).answer).status).toBe(101);
    }
  });

  it('B16 by a page of the gateway itself goes on: React Native and python send the origin of the URL', async () => {
    const { origin, host } = new URL(nodeUrl(0));
    expect((await upgrade(path, { Origin: origin }).answer).status).toBe(101);
    expect((await upgrade(path, { Origin: `http://localhost:${host.split(':')[1]}` }).answer).status).toBe(403);
  });

  it('B16 by a page whose name DNS rebinding points to the gateway is 403', async () => {
    const { port } = new URL(nodeUrl(0));
    const host = `rebound.evil.test:${port}`;
    expect((await upgrade(path, { Origin: `http://${host}`, Host: host }).answer).status).toBe(403);
  });

  it('B16 B49 is for no page that says where it comes from in another header', async () => {
    const headers = { 'X-Origin': PAGE, Referer: `${PAGE}/`, 'X-Forwarded-Host': 'app.example.test', Host: PAGE };
    const raw = upgrade(path, { Origin: 'http://evil.test', ...headers });
    expect((await raw.answer).status).toBe(403);
  });
});

/** Offers these subprotocols to `/ws/secure`, and returns the outcome. */
async function offer(protocols: HeaderValue): Promise<{ status: number; answered?: string; said?: string }> {
  const headers = { 'Sec-WebSocket-Protocol': protocols };
  const raw = openRawSocket({ url: nodeUrl(0), path: '/ws/secure', headers });
  const { status, headers: answer } = await raw.answer;
  if (status !== 101) return { status };
  const { payload } = await until(() => raw.frames.find(({ opcode }) => opcode === OPCODE.text));
  const { type, payload: fields } = JSON.parse(`${payload}`);
  const answered = answer['sec-websocket-protocol'];
  if (type === 'error') expect(await until(() => raw.closeFrame)).toEqual({ code: 1008, reason: fields.code });
  return { status, ...(answered === undefined ? {} : { answered }), said: fields.code ?? fields.user_id };
}

describe('sub-protocols', () => {
  const { token, userId } = mintToken();
  const entry = `jwt.${base64url(token)}`;
  const other = `jwt.${base64url(validToken())}`;
  const jwtAuth = { status: 101, answered: 'jwt-auth' };

  it.each<[string, HeaderValue, Awaited<ReturnType<typeof offer>>]>([
    ['a token without its name', entry, { status: 101, said: userId }],
    ['the token in two headers', ['jwt-auth', entry], { ...jwtAuth, said: userId }],
    ['tabs and spaces between', `jwt-auth ,\t${entry}`, { ...jwtAuth, said: userId }],
    ['the token behind a hundred others', `${names(100)}, jwt-auth, ${entry}`, { ...jwtAuth, said: userId }],
    ['padding of three', `jwt-auth, ${entry}===`, { ...jwtAuth, said: userId }],
    ['the same token in both forms', `jwt-auth, ${entry}, jwt-auth.${entry.slice(4)}`, { ...jwtAuth, said: userId }],
    ['two tokens', `jwt-auth, ${entry}, ${other}`, { ...jwtAuth, said: 'CONFLICTING_CREDENTIALS' }],
    ['two tokens in two headers', [`jwt-auth, ${entry}`, other], { ...jwtAuth, said: 'CONFLICTING_CREDENTIALS' }],
    ['a good token and an empty one', `jwt-auth, ${entry}, jwt.`, { ...jwtAuth, said: 'NO_TOKEN' }],
    ['a good token and garbage', `jwt-auth, jwt.AAAA, ${entry}`, { ...jwtAuth, said: 'INVALID_FORMAT' }],
    ['jwt-auth alone', 'jwt-auth', { ...jwtAuth, said: 'NO_TOKEN' }],
    ['the name in capitals', `JWT-AUTH, ${entry}`, { status: 101, said: userId }],
    ['the token’s name in capitals', `jwt-auth, ${entry.replace('jwt', 'JWT')}`, { ...jwtAuth, said: 'NO_TOKEN' }],
    ['a name that only begins alike', `jwt-auth2, jwtx.${entry.slice(4)}`, { status: 101, said: 'NO_TOKEN' }],
    ['a token encoded twice', `jwt-auth, jwt.${base64url(entry.slice(4))}`, { ...jwtAuth, said: 'INVALID_FORMAT' }],
    ['padding inside', `jwt-auth, ${entry.slice(0, 20)}=${entry.slice(20)}`, { status: 400 }],
    ['the other base64', `jwt-auth, ${entry}+/`, { status: 400 }],
    ['jwt-auth twice', `jwt-auth, jwt-auth, ${entry}`, { status: 400 }],
    ['the same token twice', `jwt-auth, ${entry}, ${entry}`, { status: 400 }],
    ['an empty item', `jwt-auth,, ${entry}`, { status: 400 }],
    ['an empty item in front', `, jwt-auth, ${entry}`, { status: 400 }],
    ['an empty item behind', `jwt-auth, ${entry},`, { status: 400 }],
    ['nothing but commas', ',,,', { status: 400 }],
    ['quotes', `"jwt-auth", "${entry}"`, { status: 400 }],
    ['20 kB', `jwt-auth, jwt.${'A'.repeat(20_000)}`, { status: 431 }],
    ['12 kB', `jwt-auth, jwt.${'A'.repeat(12_000)}`, { ...jwtAuth, said: 'INVALID_FORMAT' }],
  ])('B36 B50 B237 that are %s', async (_what, protocols, expected) => {
    expect(await offer(protocols)).toEqual(expected);
  });

  it('B36 never come back with a token in them, whatever is offered', async () => {
    for (const protocols of [entry, `${entry}, jwt-auth`, `x.${token}, ${entry}`, `jwt-auth.${entry.slice(4)}`]) {
      const raw = openRawSocket({
        url: nodeUrl(0),
        path: '/ws/secure',
        headers: { 'Sec-WebSocket-Protocol': protocols },
      });
      const { headers } = await raw.answer;
      await until(() => raw.frames[0]);
      expect(['jwt-auth', undefined]).toContain(headers['sec-websocket-protocol']);
      expect(JSON.stringify(headers) + raw.body).not.toContain(token.split('.')[2]);
    }
  });
});

function names(count: number): string {
  return Array.from({ length: count }, (_, at) => `x${at}`).join(', ');
}
