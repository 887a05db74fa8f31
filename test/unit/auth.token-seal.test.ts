import { randomBytes } from 'node:crypto';
import { describe, expect, it } from '@jest/globals';
import { TokenSeal } from '../../src/auth/token-refresh/token-seal.ts';
import { refreshAt } from '../../src/auth/token-refresh/token-sessions.ts';

describe('a sealed token', () => {
  const secret = randomBytes(32).toString('hex');
  const token = 'eyJhbGciOiJIUzI1NiJ9.payload.signature';

  it('is opened by a process with the same secret, and says nothing to others', () => {
    const sealed = new TokenSeal(secret).seal(token);
    expect(Buffer.from(sealed, 'base64').toString('latin1')).not.toContain('payload');
    expect(new TokenSeal(secret).open(sealed)).toBe(token);
    expect(new TokenSeal(randomBytes(32).toString('hex')).open(sealed)).toBeUndefined();
  });

  it('is a refresh token of one session only, and no access token', () => {
    const seal = new TokenSeal(secret);
    const { sealed, digest } = seal.sealRefreshToken('secret-of-ada', 'ada sid:1');
    expect(seal.openRefreshToken(sealed, 'ada sid:1')).toBe('secret-of-ada');
    expect(seal.openRefreshToken(sealed, 'ada sid:2')).toBeUndefined();
    expect(seal.open(sealed)).toBeUndefined();
    expect(seal.sealRefreshToken('secret-of-ada', 'eve sid:1').digest).toBe(digest);
  });

  it('is never sealed twice alike', () => {
    const seal = new TokenSeal(secret);
    expect(seal.seal(token)).not.toBe(seal.seal(token));
  });

  it('is not opened when a bit of it was changed, or when it is none', () => {
    const seal = new TokenSeal(secret);
    const bytes = Buffer.from(seal.seal(token), 'base64');
    for (let at = 0; at < bytes.length; at += 7) {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(seal.open(changed.toString('base64'))).toBeUndefined();
    }
    for (const garbage of ['', 'x', token, 'A'.repeat(1000)]) expect(seal.open(garbage)).toBeUndefined();
  });
});

describe('the time of a refresh', () => {
  const now = 1_000_000;

  it.each([
    ['B57 15 s before the end of a token of a minute', 60_000, 45_000],
    ['B68 10 s from now for a token of 25 s', 25_000, 10_000],
    ['after a third of a token that is shorter than the lead', 9_000, 3_000],
    ['at once for a token that has ended', 0, 0],
  ])('is %s, up to a second earlier by chance', (_name, lifeMs, expected) => {
    const latest = refreshAt(now, now + lifeMs, 15_000, 0) - now;
    const earliest = refreshAt(now, now + lifeMs, 15_000, 1) - now;
    expect(latest).toBe(expected);
    expect(latest - earliest).toBeLessThanOrEqual(1_000);
    expect(earliest).toBeGreaterThanOrEqual(0);
  });
});
