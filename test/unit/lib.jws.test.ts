import { describe, expect, it } from '@jest/globals';
import { hasJoseHeader, isCanonical, jsonObject } from '../../src/lib/jws.ts';

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const encoded = (text: string | Buffer) => Buffer.from(text).toString('base64url');
const read = (text: string | Buffer) => jsonObject(encoded(text));

describe('a base64url part', () => {
  it('has one spelling among all last characters, for any bytes', () => {
    for (let length = 1; length <= 66; length++) {
      const part = encoded(Buffer.alloc(length, 0xa7));
      const alike = [...ALPHABET]
        .map((last) => part.slice(0, -1) + last)
        .filter((spelling) => Buffer.from(spelling, 'base64url').equals(Buffer.alloc(length, 0xa7)));
      expect(alike).toHaveLength([1, 16, 4][length % 3] ?? 0);
      expect(alike.filter(isCanonical)).toEqual([part]);
    }
  });

  it.each(['QUI=', 'QUJD=', 'QUJDR', '+/+/', 'QU I', 'QUI\n', 'QÜI', 'A'])('has no other: %j', (part) => {
    expect(isCanonical(part)).toBe(false);
    expect(isCanonical(`e30.${part}.AAAA`)).toBe(false);
    expect(isCanonical(`${part}.e30.AAAA`)).toBe(false);
  });

  it('may be empty, as the key of an encrypted token is', () => {
    expect(isCanonical('e30..QUJD.QUJD.QUJD')).toBe(true);
  });
});

describe('a JSON object in a part', () => {
  it.each([
    '{}',
    ' { "a" : 1 } ',
    '{"a":":","b":"\\\\","c":"\\":"}',
    '{"a":[{"b":1},{"b":1}],"c":{"b":{"b":[]}}}',
    '{"__proto__":1,"constructor":{"a":null}}',
    '{"1":1,"01":1,"":1}',
    '{"ä":"\u2028😀"}',
  ])('is what JSON.parse makes of it: %s', (text) => {
    expect(read(text)).toEqual(JSON.parse(text));
  });

  it.each([
    '{"a":1,"a":1}',
    '{"a":1,"b":2,"a":3}',
    '{"a":1,"\\u0061":1}',
    '{"b":{"a":1,"a":2}}',
    '{"b":[[{"a":1,"a":2}]]}',
    '{"":1,"":2}',
    '{"__proto__":1,"__proto__":2}',
    '{"a:":":","a:":":"}',
  ])('names no member twice: %s', (text) => {
    expect(JSON.parse(text)).toBeDefined();
    expect(read(text)).toBeUndefined();
  });

  it.each(['', 'null', '[]', '"a"', '1', '{', '{}{}', '\ufeff{}', '{"a":1,}'])('is nothing else: %j', (text) => {
    expect(read(text)).toBeUndefined();
  });

  it('is UTF-8', () => {
    expect(read(Buffer.from('7b2261223a22ff227d', 'hex'))).toBeUndefined();
    expect(read(Buffer.from('7b2261223a22c3a4227d', 'hex'))).toEqual({ a: 'ä' });
  });
});

describe('a JOSE header', () => {
  it.each(['{"alg":"HS256"}', '{"alg":"none","alg":"HS256"}', '{}'])('is any object: %s', (header) => {
    expect(hasJoseHeader(`${encoded(header)}.e30.AAAA`)).toBe(true);
    expect(hasJoseHeader(`${encoded(header)}=.e30.AAAA`)).toBe(true);
  });

  it.each(['opaque', 'opaque.token.here', `${encoded('{}')}`, `${encoded('[]')}.a.b`, '..', '.'])(
    'is not in %s',
    (token) => {
      expect(hasJoseHeader(token)).toBe(false);
    },
  );
});
