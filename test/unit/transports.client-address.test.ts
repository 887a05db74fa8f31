import type { IncomingMessage } from 'node:http';
import { describe, expect, it } from '@jest/globals';
import { clientAddress } from '../../src/transports/client-address.ts';

function request(remoteAddress: string | undefined, forwarded?: string): IncomingMessage {
  const headers = forwarded === undefined ? {} : { 'x-forwarded-for': forwarded };
  return { socket: { remoteAddress }, headers } as unknown as IncomingMessage;
}

describe('the address of a client', () => {
  it('is the socket’s when no proxy is trusted, whatever a header says', () => {
    expect(clientAddress(request('192.0.2.1', '198.51.100.7'), 0)).toBe('192.0.2.1');
  });

  it.each([
    [1, '203.0.113.5', '203.0.113.5'],
    [1, '198.51.100.7, 203.0.113.5', '203.0.113.5'],
    [2, '198.51.100.7, 203.0.113.5, 10.0.0.2', '203.0.113.5'],
    [2, '198.51.100.7 ,203.0.113.5 , 10.0.0.2', '203.0.113.5'],
    [1, '203.0.113.5:4711', '203.0.113.5'],
    [1, '[2001:db8::5]:4711', '2001:db8:0:0::/64'],
    [1, '[2001:db8::5]', '2001:db8:0:0::/64'],
  ])('is what the outermost of %i trusted proxies wrote: %s', (hops, header, expected) => {
    expect(clientAddress(request('10.0.0.1', header), hops)).toBe(expected);
  });

  it.each([
    ['is missing', undefined],
    ['is empty', ''],
    ['is shorter than the chain of proxies', '198.51.100.7'],
    ['holds no address there', 'unknown, 198.51.100.7'],
    ['holds a name there', 'evil.example.test, 198.51.100.7'],
    ['holds an address that is none there', '999.1.1.1, 198.51.100.7'],
    ['holds text in front of an address there', 'x[2001:db8::5]:4711, 198.51.100.7'],
    ['holds text behind an address there', '[2001:db8::5]x, 198.51.100.7'],
    ['holds nothing there', ', 198.51.100.7'],
    ['is one comma', ','],
    ['holds an entry of 257 characters there', `${' '.repeat(246)}203.0.113.5, 198.51.100.7`],
  ])('is the socket’s when the header %s', (_what, header) => {
    expect(clientAddress(request('10.0.0.1', header), 2)).toBe('10.0.0.1');
  });

  it.each([
    ['2001:db8:1:2::1', '2001:db8:1:2::/64'],
    ['2001:db8:1:2:ffff:ffff:ffff:ffff', '2001:db8:1:2::/64'],
    ['2001:0DB8:0001:0002:0:0:0:9', '2001:db8:1:2::/64'],
    ['2001:db8:1:3::1', '2001:db8:1:3::/64'],
    ['::1', '0:0:0:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::ffff:c000:201', '192.0.2.1'],
    ['64:ff9b::192.0.2.1', '64:ff9b:0:0::/64'],
  ])('of IPv6 is its /64, and of a mapped IPv4 address that one: %s', (address, expected) => {
    expect(clientAddress(request(address), 0)).toBe(expected);
  });

  it('is empty for a socket that has gone', () => {
    expect(clientAddress(request(undefined), 0)).toBe('');
  });
});
