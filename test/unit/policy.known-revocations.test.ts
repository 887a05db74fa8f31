import { describe, expect, it } from '@jest/globals';
import { pino } from 'pino';
import type { Clock } from '../../src/lib/clock.ts';
import { KnownRevocations } from '../../src/policy/known-revocations.ts';

const START = 1_800_000_000_000;
const MOST = 250_000;

function start() {
  const time = { now: START };
  const clock: Clock = { now: () => time.now, after: () => () => {}, every: () => () => {} };
  const lines: string[] = [];
  const logger = pino({ level: 'error' }, { write: (line: string) => lines.push(line) });
  return { known: new KnownRevocations({ clock, logger }), time, lines };
}

describe('the revocations that a node knows', () => {
  it('are found by token and by session, and by nothing else', () => {
    const { known } = start();
    expect(known.has({ tokenId: 'a', sessionId: 'b' })).toBe(false);
    known.add('jti:a', START + 1_000);
    known.add('sid:s', START + 1_000);
    expect(known.has({ tokenId: 'a' })).toBe(true);
    expect(known.has({ tokenId: 'a', sessionId: 'other' })).toBe(true);
    expect(known.has({ tokenId: 'other', sessionId: 's' })).toBe(true);
    expect(known.has({ tokenId: 's', sessionId: 'a' })).toBe(false);
    expect(known.has({ tokenId: 'other' })).toBe(false);
  });

  it('are forgotten a minute after their end, and heard of again never earlier', () => {
    const { known, time } = start();
    known.add('sid:s', START + 10_000);
    known.add('sid:s', START + 5_000);
    time.now = START + 69_000;
    known.forgetEnded();
    expect(known.has({ tokenId: 'a', sessionId: 's' })).toBe(true);
    time.now = START + 70_000;
    known.forgetEnded();
    expect([known.has({ tokenId: 'a', sessionId: 's' }), known.size]).toEqual([false, 0]);
  });

  it('are bounded: what has ended goes first, then the oldest, and that is told once', () => {
    const { known, time, lines } = start();
    known.add('jti:ended', START);
    time.now = START + 61_000;
    for (let at = 0; at < MOST; at++) known.add(`jti:${at}`, time.now + 1_000);
    expect([known.size, lines.length, known.has({ tokenId: '0' })]).toEqual([MOST, 0, true]);
    known.add('jti:one-more', time.now + 1_000);
    known.add('jti:and-another', time.now + 1_000);
    expect([known.size, lines.length]).toEqual([MOST, 1]);
    expect(['0', '1', '2', 'one-more'].map((tokenId) => known.has({ tokenId }))).toEqual([false, false, true, true]);
  });
});
