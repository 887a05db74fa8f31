import { describe, expect, it } from '@jest/globals';
import { claimsWith, forgeToken } from '../support/forged-tokens.ts';
import { acceptedAs, present, refusedWith } from '../support/presentations.ts';
import { freshUserId } from '../support/tokens.ts';

const now = Math.floor(Date.now() / 1000);

/** A token with a valid signature, so that only its claims decide. */
const withClaims = (changes: Record<string, unknown>) => forgeToken({ payload: claimsWith(changes) });

/** Claims as text, with these members before and after: `JSON.stringify` cannot repeat a name. */
function claimsText(before: string, after: string, without: string): string {
  const { [without]: _replaced, ...rest } = claimsWith();
  return `{${[before, JSON.stringify(rest).slice(1, -1), after].filter(Boolean).join(',')}}`;
}

describe('the end of a token', () => {
  it.each([
    ['missing', undefined, 'VALIDATION_FAILED'],
    ['null', null, 'VALIDATION_FAILED'],
    ['a string', `${now + 600}`, 'VALIDATION_FAILED'],
    ['a list', [now + 600], 'VALIDATION_FAILED'],
    ['true', true, 'VALIDATION_FAILED'],
    ['a fraction', now + 600.5, 'accepted'],
    ['beyond all dates', 1e300, 'VALIDATION_FAILED'],
    ['one second beyond the last that is taken', 1e11 + 1, 'VALIDATION_FAILED'],
    ['in milliseconds', (now + 600) * 1000, 'VALIDATION_FAILED'],
    ['negative', -1, 'TOKEN_EXPIRED'],
    ['zero', 0, 'TOKEN_EXPIRED'],
    ['ten seconds ago', now - 10, 'TOKEN_EXPIRED'],
  ])('B42 B51 B181 that is %s: %j is %s, in every place', async (_what, exp, code) => {
    const sub = freshUserId();
    const expected = code === 'accepted' ? acceptedAs(sub) : refusedWith(code);
    expect(await present(withClaims({ sub, exp }), { inTurn: true })).toEqual(expected);
  });

  it('B51 that is written twice is VALIDATION_FAILED', async () => {
    const live = claimsText(`"exp":${now - 600}`, `"exp":${now + 600}`, 'exp');
    const dead = claimsText(`"exp":${now + 600}`, `"exp":${now - 600}`, 'exp');
    expect(await present(forgeToken({ payload: live }))).toEqual(refusedWith('VALIDATION_FAILED'));
    expect(await present(forgeToken({ payload: dead }))).toEqual(refusedWith('VALIDATION_FAILED'));
  });
});

describe('the beginning of a token', () => {
  it.each([
    ['iat in an hour', { iat: now + 3_600 }],
    ['iat a string', { iat: `${now}` }],
    ['iat a string in an hour', { iat: `${now + 3_600}` }],
    ['iat negative', { iat: -1 }],
    ['iat beyond all dates', { iat: 1e300 }],
    ['nbf in an hour', { nbf: now + 3_600 }],
    ['nbf a string', { nbf: `${now}` }],
  ])('B50 B182 is VALIDATION_FAILED with %s', async (_what, changes) => {
    expect(await present(withClaims(changes))).toEqual(refusedWith('VALIDATION_FAILED'));
  });
});

describe('a claim', () => {
  it.each([
    ['iss of another issuer', { iss: 'https://evil.example.test' }],
    ['iss with a slash more', { iss: `${claimsWith().iss}/` }],
    ['iss as a list', { iss: [claimsWith().iss] }],
    ['no iss', { iss: undefined }],
    ['aud of another service', { aud: 'billing' }],
    ['aud that only begins alike', { aud: 'tollgate2' }],
    ['aud in capitals', { aud: 'Tollgate' }],
    ['aud as an object', { aud: { 0: 'tollgate' } }],
    ['aud as an empty list', { aud: [] }],
    ['no aud', { aud: undefined }],
    ['token_use refresh', { token_use: 'refresh' }],
    ['token_use id', { token_use: 'id' }],
    ['token_use in capitals', { token_use: 'ACCESS' }],
    ['token_use as a list', { token_use: ['access'] }],
  ])('B50 B182 makes a token VALIDATION_FAILED: %s', async (_what, changes) => {
    expect(await present(withClaims(changes))).toEqual(refusedWith('VALIDATION_FAILED'));
  });
});

describe('an optional claim of another form', () => {
  it.each([
    ['iat null', { iat: null }],
    ['nbf null', { nbf: null }],
    ['jti missing', { jti: undefined }],
    ['jti a number', { jti: 7 }],
    ['jti of 1 kB', { jti: 'j'.repeat(1_024) }],
    ['sid an object', { sid: {} }],
    ['email null', { email: null }],
    ['token_use null', { token_use: null }],
    ['permissions as an object', { permissions: { 0: '*' } }],
    ['65 permissions', { permissions: Array.from({ length: 65 }, (_, at) => `p${at}`) }],
    ['a permission of 1 kB', { permissions: ['p'.repeat(1_024)] }],
    ['a flag that is a string', { feature_flags: { data_operations: 'true' } }],
    ['plan null', { plan: null }],
    ['plan as a list', { plan: ['pro', 'free'] }],
  ])('does not lock the user out: %s', async (_what, changes) => {
    const sub = freshUserId();
    expect(await present(withClaims({ sub, ...changes }), { inTurn: true })).toEqual(acceptedAs(sub));
  });
});

describe('a subject', () => {
  it.each([
    ['missing', undefined],
    ['null', null],
    ['empty', ''],
    ['a number', 5],
    ['an object', { id: 'user_1' }],
    ['a list of one', ['user_1']],
    ['256 characters', 'u'.repeat(256)],
    ['half of a surrogate pair', 'user_\ud800'],
    ['a service’s', 'service:billing'],
  ])('B50 that is %s is VALIDATION_FAILED', async (_what, sub) => {
    expect(await present(withClaims({ sub }))).toEqual(refusedWith('VALIDATION_FAILED'));
  });

  it.each([
    ['Auth0’s', 'auth0|5f7c8ec7', 'auth0|5f7c8ec7'],
    ['255 characters', 'u'.repeat(255), 'u'.repeat(255)],
    ['with a slash', 'user/1', 'user/1'],
    ['with a space', 'user 1', 'user%201'],
    ['with a line break and another user', 'user_1\nuser_2', 'user_1%0Auser_2'],
    ['with a null', 'user_1\u0000', 'user_1%00'],
    ['with braces, which would choose the Redis slot', '{p1}:user_1', '%7Bp1%7D:user_1'],
    ['a glob', 'user_*', 'user_%2A'],
    ['with a letter that only looks alike', 'us\u0435r_1', 'us%D0%B5r_1'],
    ['with an invisible letter', 'user_1\u200b', 'user_1%E2%80%8B'],
    ['that looks encoded', 'user%201', 'user%25201'],
  ])('that is %s is a user with an id of its own', async (_what, sub, id) => {
    expect(await present(withClaims({ sub }), { inTurn: true })).toEqual(acceptedAs(id));
  });

  it('with a colon that is no service’s is a user like any other', async () => {
    const sub = `auth0:${freshUserId()}`;
    expect(await present(withClaims({ sub }), { inTurn: true })).toEqual(acceptedAs(sub));
  });

  it('B257 that is written twice is VALIDATION_FAILED, the same one twice too, and however it is escaped', async () => {
    const [first, last] = [freshUserId(), freshUserId()];
    for (const [before, after] of [
      [`"sub":"${first}"`, `"sub":"${last}"`],
      [`"sub":"${last}"`, `"sub":"${last}"`],
      [`"s\\u0075b":"${first}"`, `"sub":"${last}"`],
    ] as const) {
      const token = forgeToken({ payload: claimsText(before, after, 'sub') });
      expect(await present(token)).toEqual(refusedWith('VALIDATION_FAILED'));
    }
  });

  it('B257 is not hidden by a claim that is written twice on a lower level', async () => {
    const payload = claimsText('"feature_flags":{"beta":true,"beta":false}', '', 'feature_flags');
    expect(await present(forgeToken({ payload }))).toEqual(refusedWith('VALIDATION_FAILED'));
  });
});

describe('what a token says of the prototype of objects', () => {
  it('counts for nothing', async () => {
    const sub = freshUserId();
    const inherited = `"__proto__":{"jti":"j","token_use":"access","sub":"${sub}"}`;
    expect(await present(forgeToken({ payload: claimsText(inherited, '', 'sub') }))).toEqual(
      refusedWith('VALIDATION_FAILED'),
    );
    const ofConstructor = `"constructor":{"prototype":{"plan":"enterprise"}}`;
    const payload = claimsText(ofConstructor, `"sub":"${sub}"`, 'sub');
    expect(await present(forgeToken({ payload }), { inTurn: true })).toEqual(acceptedAs(sub));
  });
});

describe('a payload that is no object', () => {
  it.each(['null', '[]', '"text"', '5', 'true', ' ', '{', '{"sub":"user_1"}{}'])(
    'B50 is VALIDATION_FAILED: %s',
    async (payload) => {
      const token = forgeToken({ payload });
      expect(await present(token)).toEqual(refusedWith('VALIDATION_FAILED'));
    },
  );
});
