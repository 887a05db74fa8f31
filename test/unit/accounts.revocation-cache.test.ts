import { describe, expect, it } from '@jest/globals';
import { pino } from 'pino';
import { RevocationCache } from '../../src/accounts/revocation-cache.ts';
import type { Clock } from '../../src/lib/clock.ts';

const START = 1_800_000_000_000;
const MOST = 250_000;

function start() {
  const time = { now: START };
  const clock: Clock = { now: () => time.now, after: () => () => {}, every: () => () => {} };
  const lines: string[] = [];
  const logger = pino({ level: 'error' }, { write: (line: string) => lines.push(line) });
  return { cache: new RevocationCache({ clock, logger }), time, lines };
}

describe('the revocations that a node knows', () => {
  it('are found by token and by session, and by nothing else', () => {
    const { cache } = start();
    expect(cache.has({ tokenId: 'a', sessionId: 'b' })).toBe(false);
    cache.add('jti:a', START + 1_000);
    cache.add('sid:s', START + 1_000);
    expect(cache.has({ tokenId: 'a' })).toBe(true);
    expect(cache.has({ tokenId: 'a', sessionId: 'other' })).toBe(true);
    expect(cache.has({ tokenId: 'other', sessionId: 's' })).toBe(true);
    expect(cache.has({ tokenId: 's', sessionId: 'a' })).toBe(false);
    expect(cache.has({ tokenId: 'other' })).toBe(false);
  });

  it('are removed a minute after their end, and not earlier', () => {
    const { cache, time } = start();
    cache.add('sid:s', START + 10_000);
    cache.add('sid:s', START + 5_000);
    time.now = START + 69_000;
    cache.removeExpired();
    expect(cache.has({ tokenId: 'a', sessionId: 's' })).toBe(true);
    time.now = START + 70_000;
    cache.removeExpired();
    expect([cache.has({ tokenId: 'a', sessionId: 's' }), cache.size]).toEqual([false, 0]);
  });

  it('are bounded: expired ones go first, then the oldest, which is logged once', () => {
    const { cache, time, lines } = start();
    cache.add('jti:ended', START);
    time.now = START + 61_000;
    for (let at = 0; at < MOST; at++) cache.add(`jti:${at}`, time.now + 1_000);
    expect([cache.size, lines.length, cache.has({ tokenId: '0' })]).toEqual([MOST, 0, true]);
    cache.add('jti:one-more', time.now + 1_000);
    cache.add('jti:and-another', time.now + 1_000);
    expect([cache.size, lines.length]).toEqual([MOST, 1]);
    expect(['0', '1', '2', 'one-more'].map((tokenId) => cache.has({ tokenId }))).toEqual([false, false, true, true]);
  });
});
