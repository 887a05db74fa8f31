import type { IncomingMessage } from 'node:http';
import { describe, expect, it } from '@jest/globals';
import { TollgateError } from '../../src/protocol/errors.ts';
import { ENDPOINTS, matchEndpoint, PUBLIC_PATHS } from '../../src/transports/endpoints.ts';
import {
  forgetContents,
  handedOverToken,
  presentedCredentials,
  requestUrl,
  resumePoint,
} from '../../src/transports/handshake-request.ts';

/** Returns the endpoint and the user of a request target, as the upgrade listener resolves them. */
function target(url: string): string {
  const parsed = requestUrl({ url } as IncomingMessage);
  const matched = parsed && matchEndpoint(parsed.pathname);
  if (!matched) return 'none';
  return matched.userId === undefined ? matched.endpoint.path : `${matched.endpoint.path} ${matched.userId}`;
}

describe('the table of endpoints', () => {
  it('speaks the dialects and answers the sub-protocols of the contract', () => {
    const rows = ENDPOINTS.map(({ path, dialect, identityRequired, protocols }) => [
      path,
      dialect.format,
      identityRequired,
      protocols,
    ]);
    expect(rows).toEqual([
      ['/ws', 'regular_json', false, ['jwt-auth']],
      ['/ws/secure', 'envelope', true, ['jwt-auth']],
      ['/ws/mcp', 'jsonrpc', true, ['mcp', 'jwt-auth']],
      ['/v1/chat/ws', 'ui_chat', true, ['jwt-auth']],
      ['/ws/v1/{user_id}', 'envelope', true, ['jwt-auth']],
      ['/ws/{user_id}', 'envelope', true, ['jwt-auth']],
    ]);
  });

  it('B31 publishes the four paths that older clients know', () => {
    expect(PUBLIC_PATHS).toEqual(['/ws', '/ws/{user_id}', '/ws/v1/{user_id}', '/ws/secure']);
  });
});

describe('the target of a request', () => {
  it.each([
    ['/ws', '/ws'],
    ['/ws?token=x', '/ws'],
    ['/ws/secure', '/ws/secure'],
    ['/ws/secure?after=1&epoch=e', '/ws/secure'],
    ['/ws/mcp', '/ws/mcp'],
    ['/ws/user_1', '/ws/{user_id} user_1'],
    ['/ws/v1/user_1', '/ws/v1/{user_id} user_1'],
    ['/ws/nonexistent', '/ws/{user_id} nonexistent'],
    ['/ws/user%40example.com', '/ws/{user_id} user@example.com'],
    ['/ws/a%2Fb', '/ws/{user_id} a/b'],
    ['/ws/SECURE', '/ws/{user_id} SECURE'],
    // RFC 9112 section 3.2.2: an absolute URL, whose host is ignored.
    ['http://elsewhere/ws', '/ws'],
    ['HTTPS://elsewhere:1/ws/user_1?a=http://b/c', '/ws/{user_id} user_1'],
  ])('B20 B21 B22 %s leads to %s', (url, expected) => {
    expect(target(url)).toBe(expected);
  });

  it.each([
    '',
    '*',
    '/',
    'ws',
    '//ws',
    '//ws/secure',
    '///ws',
    'http://elsewhere',
    'http://elsewhere//ws',
    'ftp://elsewhere/ws',
    'http:///ws',
    '/ws/',
    '/ws//',
    '/ws//secure',
    '/ws/secure/',
    '/ws/mcp/',
    '/ws/v1',
    '/ws/v1/',
    '/ws/v1//user_1',
    '/ws/v1/user_1/',
    '/ws/v1/secure',
    '/ws/v2/user_1',
    '/ws/user_1/more',
    '/ws/config',
    '/ws/health',
    '/ws/secure/config',
    '/ws/secure/health',
    '/ws/se%63ure',
    '/ws/%6Dcp',
    '/ws/v%31',
    '/ws%2Fsecure',
    '/%77s',
    '/ws/%',
    '/ws/%zz',
    '/ws/%ff',
    '/wss',
    '/WS',
    '/ws\\secure\\x',
    '/socket.io',
  ])('leads from %j to no endpoint', (url) => {
    expect(target(url)).toBe('none');
  });
});

describe('the query of a request', () => {
  const request = (url: string, rawHeaders: string[] = []) => {
    const authorization = rawHeaders[1];
    return { url, rawHeaders, headers: { authorization } } as unknown as IncomingMessage;
  };

  it('is parsed once, and may have 10,000 characters with its question mark', () => {
    const long = request(`/ws?${'a'.repeat(9_999)}`);
    expect(requestUrl(long)?.search).toHaveLength(10_000);
    expect(requestUrl(long)).toBe(requestUrl(long));
    expect(requestUrl(request(`/ws/user_1?${'a'.repeat(9_999)}`))?.search).toHaveLength(10_000);
    expect(requestUrl(request(`/ws?${'a'.repeat(10_000)}`))).toBeUndefined();
    expect(requestUrl(request(`/ws/${'a'.repeat(10_000)}`))?.pathname).toHaveLength(10_004);
  });

  it('presents all tickets and Authorization headers, so that several are refused', () => {
    expect(presentedCredentials(request('/ws?ticket=a&ticket=b')).tickets).toEqual(['a', 'b']);
    expect(presentedCredentials(request('//ws?ticket=a')).tickets).toEqual([]);
    const { headers } = presentedCredentials(request('/ws', ['Authorization', 'Bearer a']));
    expect(headers).toEqual({ authorization: 'Bearer a' });
    const twice = presentedCredentials(request('/ws', ['Authorization', 'Bearer a', 'authorization', 'Bearer b']));
    expect(twice.headers).toEqual({ authorization: 'Bearer a, Bearer b' });
  });

  it('is forgotten with the headers when the handshake has ended', () => {
    const ended = request('/ws?ticket=a', ['Authorization', 'Bearer a']);
    const before = requestUrl(ended);
    forgetContents(ended);
    expect([ended.headers, ended.rawHeaders]).toEqual([{}, []]);
    expect(requestUrl(ended)).not.toBe(before);
  });
});

describe('the refresh token of a handshake', () => {
  it('is printable ASCII, or absent', () => {
    expect([handedOverToken(undefined), handedOverToken(null)]).toEqual([undefined, undefined]);
    expect(handedOverToken('r~!')).toBe('r~!');
    for (const value of ['', 'a\n', 'ä', 5, {}, 'r'.repeat(8_193)]) {
      expect(() => handedOverToken(value)).toThrow(
        expect.objectContaining({
          code: 'FORMAT_ERROR',
          message: '"refresh_token" must have 1 to 8192 printable ASCII characters.',
        }),
      );
    }
  });
});

describe('the place to resume at', () => {
  it('is taken as text of a query and as values of a payload', () => {
    expect(resumePoint('0', 'epoch_1')).toEqual({ after: 0, epoch: 'epoch_1' });
    expect(resumePoint('17', 'epoch_1')).toEqual({ after: 17, epoch: 'epoch_1' });
    expect(resumePoint(17, 'epoch_1')).toEqual({ after: 17, epoch: 'epoch_1' });
    expect(resumePoint(null, null)).toBeUndefined();
    expect(resumePoint(undefined, undefined)).toBeUndefined();
  });

  it.each([
    ['5', null],
    [null, 'e'],
    [undefined, 'e'],
    ['', 'e'],
    ['-1', 'e'],
    ['1.5', 'e'],
    ['0x1', 'e'],
    [' 1', 'e'],
    ['1'.repeat(16), 'e'],
    [1.5, 'e'],
    [-1, 'e'],
    [2 ** 53, 'e'],
    [Number.NaN, 'e'],
    [true, 'e'],
    [[1], 'e'],
    ['1', ''],
    ['1', 5],
    ['1', 'x'.repeat(65)],
  ])('is FORMAT_ERROR for after %j and epoch %j', (after, epoch) => {
    expect(() => resumePoint(after, epoch)).toThrow(TollgateError);
    expect(() => resumePoint(after, epoch)).toThrow(expect.objectContaining({ code: 'FORMAT_ERROR' }));
  });
});
