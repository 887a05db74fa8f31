import { createHmac, createSecretKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { describe, expect, it } from '@jest/globals';
import jwt from 'jsonwebtoken';
import { TokenVerifier } from '../../src/auth/tokens.ts';
import type { Clock } from '../../src/lib/clock.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { TollgateError } from '../../src/protocol/errors.ts';
import { silentLogger } from '../support/core.ts';
import { providerOf } from '../support/identity-providers.ts';

const SECRET = randomBytes(32).toString('base64url');
const PREVIOUS = randomBytes(32).toString('base64url');
const ISSUER = 'https://auth.example.test';
const START = 1_800_000_000;

/** A clock that a test sets. */
function manualClock(seconds = START) {
  const clock = { seconds };
  const none = () => () => undefined;
  const port: Clock = { now: () => clock.seconds * 1000, after: none, every: none };
  return Object.assign(clock, { port });
}

const TYPES = ['at+jwt', 'JWT', 'none'];

function verifier({ secrets = [SECRET], clock = manualClock(), acceptedTypes = TYPES } = {}) {
  const deps = { clock: clock.port, logger: silentLogger, metrics: new Metrics() };
  return new TokenVerifier(deps, [providerOf({ issuer: ISSUER, secrets, acceptedTypes })]);
}

function claims(changes: Record<string, unknown> = {}): Record<string, unknown> {
  const all = {
    iss: ISSUER,
    aud: 'tollgate',
    sub: 'user_1',
    iat: START,
    exp: START + 60,
    jti: 'jti_1',
    sid: 'sid_1',
    email: 'user@example.test',
    plan: 'pro',
    permissions: ['basic'],
    roles: ['admin'],
    feature_flags: { data_operations: true },
    token_use: 'access',
    ...changes,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

function signed(changes: Record<string, unknown> = {}, secret = SECRET, options: jwt.SignOptions = {}): string {
  const key = createSecretKey(Buffer.from(secret));
  return jwt.sign(claims(changes), key, { algorithm: 'HS256', ...options });
}

/** A token with any header and a valid HS256 signature. */
function forged(header: object, payload: object = claims()): string {
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url');
  const text = `${encode(header)}.${encode(payload)}`;
  return `${text}.${createHmac('sha256', SECRET).update(text).digest('base64url')}`;
}

async function codeOf(token: string, tokens = verifier()): Promise<string> {
  try {
    return `accepted ${(await tokens.verifyAccess(token, 'header')).userId}`;
  } catch (error) {
    if (error instanceof TollgateError) return error.code;
    throw error;
  }
}

describe('an access token', () => {
  it('B35 B95 tells who its user is and what it may do', async () => {
    expect(await verifier().verifyAccess(signed(), 'subprotocol')).toEqual({
      provider: 'default',
      userId: 'user_1',
      email: 'user@example.test',
      plan: 'pro',
      permissions: ['basic'],
      roles: ['admin'],
      featureFlags: { data_operations: true },
      sessionId: 'sid_1',
      tokenId: 'jti_1',
      tokenIssuedAt: START * 1000,
      tokenExpiresAt: (START + 60) * 1000,
      method: 'subprotocol',
    });
  });

  it('has the least that can be when it says no more than it must', async () => {
    const bare = { sid: undefined, email: undefined, plan: undefined, permissions: undefined, roles: undefined };
    const token = signed({ ...bare, feature_flags: undefined, token_use: undefined });
    const identity = await verifier().verifyAccess(token, 'header');
    expect(identity).toMatchObject({ plan: 'free', permissions: [], roles: [], featureFlags: {} });
    expect(identity.sessionId).toBeUndefined();
  });

  it('B51 is good until its exp and five seconds of clock skew, and TOKEN_EXPIRED after', async () => {
    const clock = manualClock();
    const tokens = verifier({ clock });
    const token = signed();
    for (const [after, expected] of [
      [0, 'accepted user_1'],
      [60, 'accepted user_1'],
      [64, 'accepted user_1'],
      [65, 'TOKEN_EXPIRED'],
      [86_400, 'TOKEN_EXPIRED'],
    ] as const) {
      clock.seconds = START + after;
      expect([after, await codeOf(token, tokens)]).toEqual([after, expected]);
    }
  });

  it('is VALIDATION_FAILED when it was issued in the future, beyond the clock skew', async () => {
    expect(await codeOf(signed({ iat: START + 5 }))).toBe('accepted user_1');
    expect(await codeOf(signed({ iat: START + 6 }))).toBe('VALIDATION_FAILED');
  });

  it('is VALIDATION_FAILED before its nbf', async () => {
    expect(await codeOf(signed({ nbf: START + 30 }))).toBe('VALIDATION_FAILED');
  });

  it.each([
    ['another issuer', { iss: 'https://evil.example.test' }],
    ['no issuer', { iss: undefined }],
    ['another audience', { aud: 'billing' }],
    ['no audience', { aud: undefined }],
    ['no subject', { sub: undefined }],
    ['an empty subject', { sub: '' }],
    ['a subject of 256 characters', { sub: 'u'.repeat(256) }],
    ['a subject that is not well-formed Unicode', { sub: 'user_\ud800' }],
    ['no exp', { exp: undefined }],
    ['an exp that is a string', { exp: `${START + 60}` }],
    ['an exp that is no date', { exp: 1e300 }],
    ['a service as its use', { token_use: 'service' }],
    ['a refresh as its use', { token_use: 'refresh' }],
  ])('is VALIDATION_FAILED with %s', async (_what, changes) => {
    // Not `signed`: jsonwebtoken refuses to sign some of these, but other issuers may sign them.
    const token = forged({ alg: 'HS256', typ: 'JWT' }, claims(changes));
    expect(await codeOf(token)).toBe('VALIDATION_FAILED');
  });

  it.each<[string, Record<string, unknown>, object]>([
    ['no iat', { iat: undefined }, { tokenIssuedAt: (START + 60 - 86_400) * 1000 }],
    ['no iat but nbf', { iat: undefined, nbf: START - 1 }, { tokenIssuedAt: (START - 1) * 1000 }],
    ['no jti', { jti: undefined }, { tokenId: expect.stringMatching(/^[\w-]{43}$/) }],
    ['an empty jti', { jti: '' }, { tokenId: expect.stringMatching(/^[\w-]{43}$/) }],
    ['a number as jti', { jti: 7 }, { tokenId: '7' }],
    ['a long sid', { sid: 's'.repeat(1_000) }, { sessionId: expect.stringMatching(/^[\w-]{43}$/) }],
    ['a sid that is no id', { sid: {} }, { sessionId: undefined }],
    ['a null e-mail address', { email: null }, { email: undefined }],
    [
      'null for every optional claim',
      { sid: null, plan: null, roles: null, token_use: null },
      { plan: 'free', roles: [] },
    ],
    ['one permission as text', { permissions: 'all' }, { permissions: ['all'] }],
    ['permissions as an OAuth scope', { permissions: 'a b' }, { permissions: ['a', 'b'] }],
    ['permissions that are partly no text', { permissions: ['a', 1, null, 'b'] }, { permissions: ['a', 'b'] }],
    ['65 roles', { roles: Array.from({ length: 65 }, (_, at) => `r${at}`) }, { roles: { length: 64 } }],
    ['a role of 65 characters', { roles: ['r'.repeat(65), 'admin'] }, { roles: ['admin'] }],
    ['a role with a space', { roles: 'Team Lead' }, { roles: ['Team Lead'] }],
    ['several plans', { plan: ['pro', 'free'] }, { plan: 'pro' }],
    ['a plan that is no text', { plan: 7 }, { plan: 'free' }],
    ['flags as a list', { feature_flags: ['beta'] }, { featureFlags: { beta: true } }],
    ['a flag that is a text', { feature_flags: { a: 'true', b: true } }, { featureFlags: { b: true } }],
    ['Auth0’s subject', { sub: 'auth0|5f7c' }, { userId: 'auth0|5f7c' }],
    ['a subject with = and /', { sub: 'a/b=' }, { userId: 'a/b=' }],
    ['a subject of 255 characters', { sub: 'u'.repeat(255) }, { userId: 'u'.repeat(255) }],
    ['a subject with a space', { sub: 'user 1' }, { userId: 'user%201' }],
    ['a subject that looks encoded', { sub: 'user%201' }, { userId: 'user%25201' }],
    ['a subject with braces', { sub: '{p1}:user' }, { userId: '%7Bp1%7D:user' }],
    ['a subject with a letter that looks alike', { sub: 'us\u0435r' }, { userId: 'us%D0%B5r' }],
    ['Hydra’s token_use', { token_use: 'access_token' }, { userId: 'user_1' }],
  ])('is accepted with %s', async (_what, changes, expected) => {
    const token = forged({ alg: 'HS256', typ: 'JWT' }, claims(changes));
    expect(await verifier().verifyAccess(token, 'header')).toMatchObject(expected);
  });

  it('is taken when this audience is one of several', async () => {
    expect(await codeOf(signed({ aud: ['billing', 'tollgate'] }))).toBe('accepted user_1');
  });
});

describe('a signature', () => {
  it('of another key is VALIDATION_FAILED, also when the token has expired', async () => {
    const clock = manualClock();
    const token = signed({}, PREVIOUS);
    expect(await codeOf(token, verifier({ clock }))).toBe('VALIDATION_FAILED');
    clock.seconds += 3_600;
    expect(await codeOf(token, verifier({ clock }))).toBe('VALIDATION_FAILED');
  });

  it('of the previous key is good while keys are rotated, and expires like the others', async () => {
    const clock = manualClock();
    const tokens = verifier({ secrets: [SECRET, PREVIOUS], clock });
    expect(await codeOf(signed({}, PREVIOUS), tokens)).toBe('accepted user_1');
    expect(await codeOf(signed({}, SECRET), tokens)).toBe('accepted user_1');
    expect(await codeOf(signed({}, 'a third key that nobody has configured'), tokens)).toBe('VALIDATION_FAILED');
    clock.seconds += 65;
    expect(await codeOf(signed({}, PREVIOUS), tokens)).toBe('TOKEN_EXPIRED');
  });

  it('B120 does not survive a change of payload or signature', async () => {
    const [header = '', payload = '', signature = ''] = signed().split('.');
    const changed = Buffer.from(JSON.stringify(claims({ plan: 'enterprise' }))).toString('base64url');
    const flipped = (signature[0] === 'A' ? 'B' : 'A') + signature.slice(1);
    expect(await codeOf(`${header}.${changed}.${signature}`)).toBe('VALIDATION_FAILED');
    expect(await codeOf(`${header}.${payload}.${flipped}`)).toBe('VALIDATION_FAILED');
    expect(await codeOf(`${header}.${payload}.${signature.slice(0, 20)}`)).toBe('VALIDATION_FAILED');
  });

  it('of the algorithm none is refused, however it is written', async () => {
    const [, payload = '', signature = ''] = signed().split('.');
    for (const alg of ['none', 'None', 'NONE', 'nOnE', '']) {
      const header = Buffer.from(JSON.stringify({ alg, typ: 'JWT' })).toString('base64url');
      for (const end of ['', signature]) expect(await codeOf(`${header}.${payload}.${end}`)).toBe('VALIDATION_FAILED');
    }
  });

  it('of another algorithm than the configured one is refused, whatever the token says', async () => {
    for (const algorithm of ['HS384', 'HS512'] as const) {
      expect(await codeOf(signed({}, SECRET, { algorithm }))).toBe('VALIDATION_FAILED');
    }
    // The MAC of the secret is valid, and the header names another algorithm.
    for (const alg of ['none', 'HS512', 'RS256', 'hs256', '', undefined]) {
      expect(await codeOf(forged({ alg, typ: 'JWT' }))).toBe('VALIDATION_FAILED');
    }
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2_048 });
    const rsa = jwt.sign(claims(), privateKey, { algorithm: 'RS256', keyid: 'k' });
    expect(await codeOf(rsa)).toBe('VALIDATION_FAILED');
  });

  it('over a critical header that is not understood is refused: RFC 7515 section 4.1.11', async () => {
    expect(await codeOf(forged({ alg: 'HS256' }))).toBe('accepted user_1');
    for (const crit of [['exp'], ['b64'], []]) {
      expect(await codeOf(forged({ alg: 'HS256', b64: true, crit }))).toBe('VALIDATION_FAILED');
    }
  });

  it('B118 makes no public text that says what a token is checked with', async () => {
    for (const token of ['x', 'a.b.c', 'e30.e30.x', `${signed()}x`]) {
      const error = await verifier()
        .verifyAccess(token, 'header')
        .catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: 'VALIDATION_FAILED' });
      expect(String((error as Error).message)).not.toMatch(/jwt|token|signature|malformed/i);
    }
  });
});

describe('the accepted types', () => {
  const typed = (typ: string | undefined) => forged({ alg: 'HS256', ...(typ === undefined ? {} : { typ }) });
  const outcomes = async (acceptedTypes: string[], types: readonly (string | undefined)[]) => {
    const codes = types.map((typ) => codeOf(typed(typ), verifier({ acceptedTypes })));
    return (await Promise.all(codes)).map((code) => code === 'accepted user_1');
  };

  it('are those of the setting alone, whichever way both are written: RFC 9068 section 4', async () => {
    for (const accepted of ['at+jwt', 'AT+JWT', 'application/at+jwt']) {
      const types = ['at+jwt', 'application/at+jwt', 'JWT', undefined, 'none'];
      expect(await outcomes([accepted], types)).toEqual([true, true, false, false, false]);
    }
    expect(await outcomes(['JWT'], ['JWT', 'at+jwt', undefined])).toEqual([true, false, false]);
  });

  it('take none for a header without a type, never for one that says so', async () => {
    expect(await outcomes(['none'], [undefined, 'none', 'JWT'])).toEqual([true, false, false]);
  });

  it('may be of another top-level type, which is never left out', async () => {
    expect(await outcomes(['text/token'], ['text/token', 'token', 'application/token'])).toEqual([true, false, false]);
  });

  it('hold for services as well', async () => {
    const header = { alg: 'HS256', typ: 'JWT' };
    const token = forged(header, claims({ sub: 'service:billing', scope: '', token_use: 'service' }));
    expect((await verifier().verifyService(token)).serviceId).toBe('billing');
    const strict = verifier({ acceptedTypes: ['at+jwt'] });
    await expect(strict.verifyService(token)).rejects.toMatchObject({ code: 'VALIDATION_FAILED' });
  });
});

describe('a service token', () => {
  const service = { sub: 'service:billing', scope: 'usage:read usage:write', token_use: 'service' };

  it('tells the service and its scopes', async () => {
    expect(await verifier().verifyService(signed(service))).toEqual({
      serviceId: 'billing',
      scopes: ['usage:read', 'usage:write'],
      tokenId: expect.any(String),
      tokenIssuedAt: expect.any(Number),
      tokenExpiresAt: expect.any(Number),
    });
  });

  it('is not taken for a user, nor a user for a service', async () => {
    expect(await codeOf(signed(service))).toBe('VALIDATION_FAILED');
    expect(await codeOf(signed({ sub: 'service:billing' }))).toBe('VALIDATION_FAILED');
    for (const changes of [{}, { sub: 'service:billing' }, { token_use: 'service' }]) {
      await expect(verifier().verifyService(signed(changes))).rejects.toMatchObject({ code: 'VALIDATION_FAILED' });
    }
  });

  it('expires like the others', async () => {
    const clock = manualClock(START + 65);
    await expect(verifier({ clock }).verifyService(signed(service))).rejects.toMatchObject({ code: 'TOKEN_EXPIRED' });
  });
});

describe('a header that was read before', () => {
  it('changes nothing for the next token: signature, claims and type are checked each time', async () => {
    const tokens = verifier();
    await tokens.verifyAccess(signed(), 'header');
    const [header, payload] = signed().split('.');
    await expect(tokens.verifyAccess(`${header}.${payload}.${'A'.repeat(43)}`, 'header')).rejects.toThrow(
      TollgateError,
    );
    await expect(tokens.verifyAccess(signed({ aud: 'other' }), 'header')).rejects.toThrow(TollgateError);
    for (let i = 0; i < 2; i++) {
      const wrongType = tokens.verifyAccess(forged({ alg: 'HS256', typ: 'logout+jwt' }), 'header');
      await expect(wrongType).rejects.toThrow(TollgateError);
    }
    expect((await tokens.verifyAccess(signed({ sub: 'user_2' }), 'header')).userId).toBe('user_2');
  });

  it('is one of a bounded number: a hundred senders with their own header are all read', async () => {
    const tokens = verifier();
    for (let i = 0; i < 200; i++) {
      const token = forged({ alg: 'HS256', typ: 'JWT', kid: `kid-${i % 100}` }, claims({ sub: `user_${i}` }));
      expect((await tokens.verifyAccess(token, 'header')).userId).toBe(`user_${i}`);
    }
  });
});
