import { describe, expect, it } from '@jest/globals';
import { RunTokens } from '../../src/auth/run-tokens.ts';
import { Seal } from '../../src/lib/seal.ts';
import { ManualClock } from '../support/manual-clock.ts';

const SECRET = 'a secret of the services, 32 characters';

function start(secret = SECRET) {
  const clock = new ManualClock();
  return { clock, tokens: new RunTokens({ clock }, secret) };
}

/** A token of a run with any claims, sealed with the key of the tokens of runs. */
function sealed(claims: object): string {
  const bytes = Buffer.from(new Seal(SECRET, 'run token').seal(JSON.stringify(claims)), 'base64');
  return `Bearer tgrun_${bytes.toString('base64url')}`;
}

describe('the token of a run', () => {
  it('names its user, its run and its times, and contains none of them in the clear', () => {
    const { tokens, clock } = start();
    const expiresAt = clock.now() + 1_000;
    const token = tokens.issue({ userId: 'user_1', runId: 'run_1', expiresAt });
    const expected = { userId: 'user_1', runId: 'run_1', issuedAt: clock.now(), expiresAt };
    expect(tokens.read(`Bearer ${token}`)).toEqual(expected);
    expect(tokens.read(`bearer ${token}`)).toEqual(expected);
    expect(Buffer.from(token.slice('tgrun_'.length), 'base64url').toString('latin1')).not.toMatch(/user_1|run_1/);
  });

  it('is good until its expiry, rounded up to a millisecond, and TOKEN_EXPIRED from then on', () => {
    const { tokens, clock } = start();
    const token = tokens.issue({ userId: 'user_1', runId: 'run_1', expiresAt: clock.now() + 999.5 });
    clock.advance(999);
    expect(tokens.read(`Bearer ${token}`)).toMatchObject({ userId: 'user_1' });
    clock.advance(1);
    expect(() => tokens.read(`Bearer ${token}`)).toThrow(
      expect.objectContaining({ code: 'TOKEN_EXPIRED', retryable: false }),
    );
  });

  it('is VALIDATION_FAILED when it is changed, cut, or sealed with another key', () => {
    const { tokens, clock } = start();
    const claims = { userId: 'user_1', runId: 'run_1', expiresAt: clock.now() + 1_000 };
    const token = tokens.issue(claims);
    const changed = token.slice(0, 20) + (token[20] === 'A' ? 'B' : 'A') + token.slice(21);
    const other = start('another secret of the services, 32 c').tokens.issue(claims);
    for (const wrong of [changed, token.slice(0, -4), other, 'tgrun_x', `tgrun_${'x'.repeat(4_096)}`]) {
      expect(() => tokens.read(`Bearer ${wrong}`)).toThrow(expect.objectContaining({ code: 'VALIDATION_FAILED' }));
    }
  });

  it.each([
    ['another audience', { aud: 'billing' }],
    ['no audience', { aud: undefined }],
    ['no user', { sub: undefined }],
    ['no run', { run: 7 }],
    ['no issue time', { iat: undefined }],
    ['no expiry', { exp: undefined }],
    ['an expiry that is a text', { exp: '9999999999999' }],
  ])('is VALIDATION_FAILED with %s, although it is sealed with the right key', (_what, changes) => {
    const { tokens, clock } = start();
    const claims = { aud: 'mcp', sub: 'user_1', run: 'run_1', iat: clock.now(), exp: clock.now() + 1_000 };
    expect(tokens.read(sealed(claims))).toMatchObject({ runId: 'run_1' });
    expect(() => tokens.read(sealed({ ...claims, ...changes }))).toThrow(
      expect.objectContaining({ code: 'VALIDATION_FAILED' }),
    );
  });

  it('is not in a header of another form, which other rules read', () => {
    const tokens = start().tokens;
    const others = ['', 'Bearer ', 'Bearer tgrun_', 'Bearer a.b.c', 'Basic tgrun_abc', 'tgrun_abc'];
    const odd = ['x Bearer tgrun_abc', 'Bearer tgrun_abc x', 'Bearer tgrun_a+b', `Bearer tgrun_${'x'.repeat(4_097)}`];
    for (const authorization of [undefined, ...others, ...odd]) expect(tokens.read(authorization)).toBeUndefined();
  });
});
