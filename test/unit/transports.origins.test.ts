import type { IncomingMessage } from 'node:http';
import { describe, expect, it } from '@jest/globals';
import { type OriginOptions, Origins } from '../../src/transports/origins.ts';

const LISTED = ['http://app.example.test', 'https://b.test:8443'];

interface Asked extends Partial<OriginOptions> {
  readonly origin: string | undefined;
  readonly host?: string;
  readonly proto?: string;
}

function allows({ origin, host = 'gateway.test', proto, ...options }: Asked): boolean {
  const headers = { origin, host, ...(proto === undefined ? {} : { 'x-forwarded-proto': proto }) };
  const origins = new Origins({ allowed: LISTED, publicUrl: undefined, trustedProxyHops: 0, ...options });
  return origins.allow({ headers } as IncomingMessage);
}

describe('an origin', () => {
  it('B16 is let through when it is listed, exactly, or missing', () => {
    expect(allows({ origin: undefined })).toBe(true);
    expect(allows({ origin: 'http://app.example.test' })).toBe(true);
    expect(allows({ origin: undefined, allowed: [] })).toBe(true);
    expect(allows({ origin: 'http://any.test', allowed: ['*'] })).toBe(true);
  });

  it.each([
    'https://app.example.test',
    'http://app.example.test:80',
    'http://app.example.test/',
    'http://APP.example.test',
    'http://app.example.test.evil.test',
    'http://evil.test#http://app.example.test',
    'null',
    '',
  ])('B16 is refused when it is %j', (origin) => {
    expect(allows({ origin })).toBe(false);
  });
});

describe('the own origin', () => {
  const publicUrl = 'https://gateway.example.test/base/';

  it('is allowed if it is that of PUBLIC_URL, whatever Host says', () => {
    const origin = 'https://gateway.example.test';
    expect(allows({ origin, publicUrl })).toBe(true);
    expect(allows({ origin, publicUrl, host: '10.1.2.3:8000' })).toBe(true);
    expect(allows({ origin: 'http://gateway.example.test', publicUrl })).toBe(false);
    expect(allows({ origin: 'https://gateway.example.test:8443', publicUrl })).toBe(false);
  });

  it.each([
    ['http://192.168.1.20:8000', '192.168.1.20:8000'],
    ['http://localhost:8000', 'localhost:8000'],
    ['http://127.0.0.1', '127.0.0.1'],
    ['http://127.0.0.1', '127.0.0.1:80'],
    ['http://[::1]:8000', '[::1]:8000'],
  ])('is allowed without PUBLIC_URL if its host does not depend on the DNS: %s', (origin, host) => {
    expect(allows({ origin, host })).toBe(true);
    expect(allows({ origin, host, publicUrl })).toBe(true);
  });

  it.each([
    ['a name that DNS rebinding could point here', 'http://evil.test:8000', 'evil.test:8000'],
    ['a name that begins like localhost', 'http://localhost.evil.test', 'localhost.evil.test'],
    ['a name that begins like an address', 'http://127.0.0.1.evil.test', '127.0.0.1.evil.test'],
    ['another port of the same host', 'http://localhost:3000', 'localhost:8000'],
    ['another address', 'http://127.0.0.2:8000', '127.0.0.1:8000'],
    ['another scheme', 'https://127.0.0.1:8000', '127.0.0.1:8000'],
    ['the default port in words', 'http://127.0.0.1:80', '127.0.0.1:80'],
    ['a user name in front', 'http://x@127.0.0.1', '127.0.0.1'],
    ['a path', 'http://127.0.0.1/', '127.0.0.1'],
    ['an address in another form', 'http://2130706433', '2130706433'],
    ['no host', 'http://localhost', ''],
    ['a host that is none', 'http://localhost', 'localhost:99999'],
  ])('is not %s', (_what, origin, host) => {
    expect(allows({ origin, host })).toBe(false);
  });

  it('has the scheme that a trusted proxy reports, and only a trusted one', () => {
    const own = { origin: 'https://192.168.1.20', host: '192.168.1.20' };
    expect(allows({ ...own, proto: 'https', trustedProxyHops: 1 })).toBe(true);
    expect(allows({ ...own, proto: 'http, HTTPS ', trustedProxyHops: 1 })).toBe(true);
    expect(allows({ ...own, proto: 'https' })).toBe(false);
    expect(allows({ ...own, proto: 'https, http', trustedProxyHops: 1 })).toBe(false);
  });
});
