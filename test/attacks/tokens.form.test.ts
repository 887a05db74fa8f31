import { describe, expect, it } from '@jest/globals';
import { base64url, claimsWith, forgeToken, hs256, type TokenPart } from '../support/forged-tokens.ts';
import { keysOf } from '../support/keys-of.ts';
import { openLeases } from '../support/leases.ts';
import { nodeUrl } from '../support/nodes.ts';
import { acceptedAs, present, refusedWith } from '../support/presentations.ts';
import { openRawSocket } from '../support/raw-socket.ts';
import { freshUserId } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const none = () => '';
const segments = (token: string) => token.split('.') as [string, string, string];

/** RFC 7797 without the required `crit`: the payload is signed unencoded. */
function unencoded(): string {
  const text = `${base64url('{"alg":"HS256","b64":false}')}.${JSON.stringify(claimsWith())}`;
  return `${text}.${base64url(hs256()(text))}`;
}

describe('a header that a good signature covers', () => {
  it.each<[string, TokenPart]>([
    ['crit of a claim', { alg: 'HS256', crit: ['exp'] }],
    [
      'crit of an extension',
      { alg: 'HS256', crit: ['http://example.test/extension'], 'http://example.test/extension': 1 },
    ],
    ['crit empty', { alg: 'HS256', crit: [] }],
    ['crit null', { alg: 'HS256', crit: null }],
    ['a payload that is not encoded', { alg: 'HS256', b64: false, crit: ['b64'] }],
    ['no algorithm', { typ: 'JWT' }],
    ['the algorithm as a list', { alg: ['HS256'] }],
    ['the algorithm in its prototype', '{"__proto__":{"alg":"HS256"}}'],
    ['a second algorithm, none', '{"alg":"HS256","alg":"none"}'],
    ['a second algorithm, stronger', '{"alg":"HS256","alg":"HS512"}'],
    ['nothing', {}],
    ['a list', ['HS256']],
    ['text', '"HS256"'],
    ['null', 'null'],
    ['half an object', '{"alg":"HS256"'],
    ['two objects', '{"alg":"HS256"}{}'],
    ['two algorithms, the last of which is the right one', '{"alg":"none","alg":"HS256"}'],
    ['a name twice, once with an escape', '{"alg":"HS256","\\u0061lg":"HS256"}'],
    ['a name twice on a lower level', '{"alg":"HS256","x":[{"a":1,"a":1}]}'],
    ['bytes that are no UTF-8', Buffer.from('7b22616c67223a224853323536222c2278223a22ff227d', 'hex')],
    ['a byte order mark', '\ufeff{"alg":"HS256"}'],
    ['an unencoded payload that nothing says to understand', { alg: 'HS256', b64: false }],
    ['compression', { alg: 'HS256', zip: 'DEF' }],
    ['encryption', { alg: 'HS256', enc: 'A128GCM' }],
  ])('B50 B182 makes the token VALIDATION_FAILED with %s', async (_what, header) => {
    expect(await present(forgeToken({ header }))).toEqual(refusedWith('VALIDATION_FAILED'));
  });

  it.each<[string, TokenPart]>([
    ['another type', { alg: 'HS256', typ: 'at+jwt' }],
    ['no type', { alg: 'HS256' }],
    ['colons and quotes in text', { alg: 'HS256', x: 'a":"b\\', y: { 'k":': [{}, { z: ':' }] } }],
  ])('lets the claims decide with %s', async (_what, header) => {
    const sub = freshUserId();
    const good = forgeToken({ header, payload: claimsWith({ sub }) });
    expect(await present(good, { inTurn: true })).toEqual(acceptedAs(sub));
    const service = forgeToken({ header, payload: claimsWith({ sub, token_use: 'service' }) });
    expect(await present(service)).toEqual(refusedWith('VALIDATION_FAILED'));
  });
});

describe('a token of the algorithm none', () => {
  it.each(['none', 'None', 'NONE', 'nOnE', 'none ', ' none', 'no\u006ee', 'ⁿone', '', 'null', 'HS256,none'])(
    'B50 B120 is refused, with a signature or without: %j',
    async (alg) => {
      const header = { alg, typ: 'JWT' };
      // With an empty third part it is not a token; with a signature, the signature is invalid.
      expect(await present(forgeToken({ header, sign: none }))).toEqual(refusedWith('INVALID_FORMAT'));
      for (const sign of [hs256(), () => '\0']) {
        expect(await present(forgeToken({ header, sign }))).toEqual(refusedWith('VALIDATION_FAILED'));
      }
    },
  );
});

describe('a token that was changed', () => {
  it.each<[string, Record<string, unknown>]>([
    ['the plan', { plan: 'developer' }],
    ['the user', { sub: 'user_of_somebody_else' }],
    ['the end', { exp: 4_000_000_000 }],
    ['the permissions', { permissions: ['*'] }],
    ['the roles', { roles: ['admin'] }],
    ['the use', { token_use: 'service', sub: 'service:billing', scope: 'admin' }],
    ['a space', { email: ' ' }],
  ])('B50 B120 in %s keeps no signature that fits', async (_what, changes) => {
    const claims = claimsWith({ plan: 'free' });
    const [header, , signature] = segments(forgeToken({ payload: claims }));
    const payload = base64url(JSON.stringify({ ...claims, ...changes }));
    expect(await present(`${header}.${payload}.${signature}`)).toEqual(refusedWith('VALIDATION_FAILED'));
  });

  it('B120 in its header, or put together of two, keeps none either', async () => {
    const [one, other] = [segments(forgeToken()), segments(forgeToken())];
    const header = base64url('{"alg":"HS256","typ":"JWT","x":1}');
    for (const mixed of [
      [header, one[1], one[2]],
      [one[0], one[1], other[2]],
      [one[0], other[1], one[2]],
      [one[1], one[0], one[2]],
      [one[0], one[1], one[1]],
    ]) {
      expect(await present(mixed.join('.'))).toEqual(refusedWith('VALIDATION_FAILED'));
    }
  });

  it('B120 in a single bit of its signature is refused, those that decode to nothing as well', async () => {
    const [header, payload, signature] = segments(forgeToken());
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
    // 43 characters hold 258 bits, of which a signature has 256: the last two are not part of it and must be zero.
    const last = alphabet.indexOf(signature.at(-1) ?? '');
    for (const flipped of [last ^ 1, last ^ 2, last ^ 3, last ^ 4, last ^ 32]) {
      const changed = signature.slice(0, -1) + alphabet[flipped];
      expect(await present(`${header}.${payload}.${changed}`)).toEqual(refusedWith('VALIDATION_FAILED'));
    }
  });
});

describe('text that is not the form of a token', () => {
  const good = () => forgeToken();
  it.each<[string, (token: string) => string]>([
    ['without its signature', (token) => token.slice(0, token.lastIndexOf('.') + 1)],
    ['without its signature and the dot', (token) => token.slice(0, token.lastIndexOf('.'))],
    ['with a dot behind', (token) => `${token}.`],
    ['with a dot in front', (token) => `.${token}`],
    ['with an empty payload', (token) => `${segments(token)[0]}..${segments(token)[2]}`],
    ['with a fourth part', (token) => `${token}.e30`],
    ['of five parts, as an encrypted one', (token) => `${base64url('{"alg":"dir","enc":"A128GCM"}')}..${token}`],
    ['of five parts, with a token inside', (token) => `${token}.${base64url(token)}.AAAA`],
    ['with a payload that is signed but not encoded', unencoded],
    ['with garbage behind', (token) => `${token}!`],
    ['with a comma and another', (token) => `${token},${token}`],
    ['with padding', (token) => `${token}=`],
    ['in the other base64', (token) => `${token.slice(0, -2)}+/`],
    ['in quotes', (token) => `"${token}"`],
    ['with a URL’s escape', (token) => token.replace('.', '%2E')],
  ])('B50 B180 is INVALID_FORMAT: %s', async (_what, change) => {
    expect(await present(change(good()))).toEqual(refusedWith('INVALID_FORMAT'));
  });

  // A header cannot contain these, or its parser removes them.
  it.each<[string, (token: string) => string]>([
    ['a space in front', (token) => ` ${token}`],
    ['a space behind', (token) => `${token} `],
    ['a space inside', (token) => token.replace('.', '. ')],
    ['a line break behind', (token) => `${token}\n`],
    ['a line break and a header', (token) => `${token}\r\nX-Service-ID: billing`],
    ['a null byte behind', (token) => `${token}\0`],
    ['a dot that only looks alike', (token) => token.replace('.', '\u2024')],
    ['a letter that only looks alike', (token) => token.replace(/^e/, '\u0435')],
    ['full-width letters', (token) => token.replace(/^ey/, '\uff45\uff59')],
    ['an invisible letter', (token) => token.replace('.', '.\u200b')],
    ['a byte order mark', (token) => `\ufeff${token}`],
  ])('B50 B180 is INVALID_FORMAT: %s', async (_what, change) => {
    const ways = ['message', 'socketio', 'subprotocol'] as const;
    expect(await present(change(good()), { ways })).toEqual(refusedWith('INVALID_FORMAT', ways));
  });
});

describe('a token that is too long', () => {
  const ways = ['header', 'subprotocol', 'socketio', 'ticket', 'mcp'] as const;
  const long = (bytes: number) => forgeToken({ payload: claimsWith({ email: 'x'.repeat((bytes * 3) / 4) }) });

  it('B50 is INVALID_FORMAT above 8 KiB, although its signature fits', async () => {
    expect(await present(long(8_192), { ways })).toEqual(refusedWith('INVALID_FORMAT', ways));
  });

  it('B50 of 20 kB does not get past the bound on the head of a request', async () => {
    expect(await present(long(20_000), { ways })).toEqual({
      header: 'HTTP 431',
      subprotocol: 'HTTP 431',
      ticket: '431 MESSAGE_TOO_LARGE',
      mcp: '431',
      socketio: '1005 INVALID_FORMAT',
    });
  });

  it('B17 in a message makes the message too large: it is not looked at, and the connection stays', async () => {
    const raw = openRawSocket({ url: nodeUrl(0), path: '/ws' });
    await until(() => raw.frames[0]);
    raw.sendFrame(JSON.stringify({ type: 'auth', token: long(20_000) }));
    const { payload } = await until(() => raw.frames[1]);
    expect(JSON.parse(`${payload}`)).toMatchObject({ type: 'error', code: 'MESSAGE_TOO_LARGE' });
    expect(raw.closeFrame).toBeUndefined();
  });
});

describe('the token of a service', () => {
  const sub = 'service:forged';
  const claims = () => claimsWith({ sub, token_use: 'service', scope: 'admin' });

  it('is no user’s, whatever else is in it', async () => {
    expect(await present(forgeToken({ payload: claims() }))).toEqual(refusedWith('VALIDATION_FAILED'));
    for (const changes of [{ token_use: 'access' }, { token_use: undefined }]) {
      const payload = claimsWith({ sub, ...changes });
      expect(await present(forgeToken({ payload }))).toEqual(refusedWith('VALIDATION_FAILED'));
    }
  });

  it.each<[string, Record<string, unknown>]>([
    ['a user’s token', { sub: 'user_1', token_use: 'access' }],
    ['a user’s token that says to be a service’s', { sub: 'user_1', token_use: 'service' }],
    ['no use', { token_use: undefined }],
    ['a use of both', { token_use: ['service', 'access'] }],
    ['a service with a path in its name', { sub: 'service:../admin' }],
    ['a service with a colon in its name', { sub: 'service:forged:admin' }],
    ['a service without a name', { sub: 'service:' }],
    ['scopes as a list', { scope: ['admin'] }],
    ['another audience', { aud: 'billing' }],
  ])('B112 is not forged by %s', async (_what, changes) => {
    const claim = { ...claims(), ...changes };
    const token = forgeToken({ payload: JSON.parse(JSON.stringify(claim)) });
    const id = String(claim.sub).replace('service:', '');
    const headers = { Authorization: `Service-Token ${token}`, 'X-Service-ID': id, 'X-User-Context': `service:${id}` };
    const raw = openRawSocket({ url: nodeUrl(0), path: '/ws/secure', headers });
    expect(await until(() => raw.closeFrame)).toEqual({
      code: 1008,
      reason: id === '' ? 'INVALID_FORMAT' : 'VALIDATION_FAILED',
    });
    const response = await fetch(new URL('/v1/usage/records', nodeUrl(0)), {
      headers: { authorization: `Bearer ${token}` },
    });
    expect(response.status).toBe(401);
  });
});

it('B261 a forged token takes no place and leaves nothing in Redis, where a good one does', async () => {
  const { redis, keys } = await openLeases();
  const sub = freshUserId();
  const payload = claimsWith({ sub });
  const stored = () => keysOf(redis, `*${sub}*`);
  expect(await present(forgeToken({ payload, sign: hs256('attacker') }))).toEqual(refusedWith('VALIDATION_FAILED'));
  expect(await stored()).toEqual([]);
  expect(await present(forgeToken({ payload }), { ways: ['header'] })).toEqual({ header: `user ${sub}` });
  expect(await stored()).toContain(keys.user(sub).connections);
});
