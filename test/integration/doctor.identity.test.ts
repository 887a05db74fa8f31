import { beforeAll, describe, expect, it } from '@jest/globals';
import { freePort } from '../../scripts/lib/ports.ts';
import { examine, jsonFile } from '../support/doctor.ts';
import { FakeIssuer } from '../support/fake-issuer.ts';
import { type OidcProvider, startOidcProvider } from '../support/oidc-provider.ts';
import { closeAfter } from '../support/open-resources.ts';
import { freshUserId, mintToken } from '../support/tokens.ts';

const issuer = new FakeIssuer();
let oidc: OidcProvider;

beforeAll(async () => {
  await issuer.start();
  closeAfter('file', () => issuer.close());
  oidc = await startOidcProvider();
});

/** Rows of the two providers, and further ones. */
function providers(...more: readonly object[]): { readonly IDENTITY_PROVIDERS: string } {
  const audiences = ['https://tollgate.example.com'];
  const rows = [
    { name: 'oidc', issuer: oidc.issuer, audiences, accepted_types: ['at+jwt'], user_prefix: 'o:' },
    { name: 'fake', issuer: issuer.url, audiences: ['tollgate'], keys_url: issuer.keysUrl, user_prefix: 'f:' },
    ...more,
  ];
  return { IDENTITY_PROVIDERS: jsonFile('providers.json', { providers: rows }) };
}

const withToken = (token: string) => ({ args: ['--json', '--token', '-'], input: token });

describe('the doctor, for identity providers', () => {
  it('checks each of several providers as the gateway reads it, by discovery or by URL', async () => {
    const { code, found, failed } = await examine(providers());
    expect([failed, code]).toEqual([[], 0]);
    expect(found.get('identity: providers')?.detail).toBe('default, oidc, fake');
    expect(found.get('identity default: secret')).toMatchObject({ status: 'ok' });
    expect(found.get('identity oidc: metadata')).toMatchObject({ status: 'ok' });
    expect(found.get('identity oidc: keys')?.detail).toBe('readable, for RS256');
    expect(found.has('identity fake: metadata')).toBe(false);
    expect(found.get('identity fake: keys')).toMatchObject({ status: 'ok' });
  });

  it('names the providers that fail, and checks the others', async () => {
    const audiences = ['tollgate'];
    const away = { name: 'away', issuer: `http://127.0.0.1:${await freePort()}`, audiences, user_prefix: 'g:' };
    const slash = { name: 'slash', issuer: `${oidc.issuer}/`, audiences, user_prefix: 's:' };
    const curve = {
      name: 'curve',
      issuer: 'http://127.0.0.1:9/c',
      keys_url: issuer.keysUrl,
      audiences,
      algorithms: ['ES256'],
      user_prefix: 'c:',
    };
    const { code, found, failed } = await examine(providers(away, slash, curve));
    expect(failed).toEqual(['identity away: metadata', 'identity slash: metadata', 'identity curve: keys']);
    expect(found.get('identity slash: metadata')?.detail).toContain('another issuer');
    expect(found.get('identity curve: keys')?.detail).toContain('ES256');
    expect(found.get('identity oidc: keys')).toMatchObject({ status: 'ok' });
    expect(code).toBe(1);
  });

  it('names every mistake of the file with its line and field, and checks the other areas', async () => {
    const { code, found, failed } = await examine(providers({ name: 'bare', issuer: 'http://127.0.0.1:9' }));
    expect([failed, code]).toEqual([['identity: providers'], 1]);
    expect(found.get('identity: providers')?.detail).toMatch(/providers\.json:\d+.*needs audiences/s);
    expect(found.get('redis: connection')).toMatchObject({ status: 'ok' });
  });
});

describe('a token that the doctor verifies', () => {
  it('is accepted by the provider whose issuer it names', async () => {
    const userId = freshUserId();
    const tokens = {
      oidc: await oidc.token(userId),
      fake: issuer.sign({ iss: issuer.url, aud: 'tollgate', sub: userId, exp: 4_000_000_000 }),
      default: mintToken({ sub: userId }).token,
    };
    for (const [name, token] of Object.entries(tokens)) {
      const { found, code, output } = await examine(providers(), withToken(token));
      const detail = `accepted; the issuer is that of provider ${name}`;
      expect(found.get('identity: token')).toMatchObject({ status: 'ok', detail });
      expect(code).toBe(0);
      for (const value of [token, userId]) expect(output).not.toContain(value);
    }
  });

  it.each([
    ['of another audience', { aud: 'other-service' }, {}, /: aud: .*provider fake$/, 'audiences'],
    [
      'of an issuer that no provider has',
      { iss: 'https://other.example.test' },
      {},
      /: iss: .*no configured/,
      'issuer',
    ],
    ['of a client', { client_id: 'other-client', sub: 'other-client' }, {}, /: sub: .*provider fake$/, 'client'],
    ['that is an ID token', { nonce: 'other-nonce' }, {}, /: nonce: /, 'access token'],
    ['with an unknown key', {}, { typ: 'JWT', kid: 'other-key' }, /AUTH_SERVICE_UNAVAILABLE: .*rotated/, 'keys'],
    ['of another type', {}, { typ: 'other+jwt', kid: issuer.kid }, /: header typ: /, 'accepted_types'],
  ])('%s is refused with the name of the claim, never its value', async (_what, claims, header, rule, advice) => {
    const given = { iss: issuer.url, aud: 'tollgate', sub: freshUserId(), exp: 4_000_000_000, ...claims };
    const token = issuer.sign(given, 'typ' in header ? header : undefined);
    const { found, code, output } = await examine(providers(), withToken(token));
    const finding = found.get('identity: token');
    expect(finding).toMatchObject({ status: 'failed', advice: expect.stringContaining(advice) });
    expect(finding?.detail).toMatch(rule);
    expect(code).toBe(1);
    for (const value of [token, given.sub, 'other-', 'other.example.test']) expect(output).not.toContain(value);
  });

  it.each([
    ['of another audience', { aud: 'other-service' }, /: aud: /, 'JWT_AUDIENCE'],
    ['of another issuer', { iss: 'https://other.example.test' }, /: iss: .*no configured provider/, 'JWT_ISSUER'],
    ['that has expired', { iat: 1_000, exp: 2_000 }, /^TOKEN_EXPIRED; .*provider default/, 'new token'],
    ['without an expiry', { exp: undefined }, /: exp: /, 'claims'],
    ['with a number as user id', { sub: 5 as never }, /: sub: /, 'claims'],
  ])('%s is refused by a named rule of the only provider', async (_what, claims, rule, advice) => {
    const { token } = mintToken(claims as never);
    const { found, code, output } = await examine({}, withToken(token));
    const finding = found.get('identity: token');
    expect(finding).toMatchObject({ status: 'failed', advice: expect.stringContaining(advice) });
    expect(finding?.detail).toMatch(rule);
    expect(code).toBe(1);
    for (const value of [token, 'other-service', 'other.example.test']) expect(output).not.toContain(value);
  });

  it('that is no JWT needs introspection, and is then introspected', async () => {
    const never = await examine({}, withToken('opaque-token-of-a-user'));
    expect(never.found.get('identity: token')).toMatchObject({ status: 'warning' });
    const opaque = await examine({ TOKEN_INTROSPECTION: 'opaque' }, withToken('opaque-token-of-a-user'));
    expect(opaque.found.get('auth service: introspection')).toMatchObject({ status: 'ok' });
    expect(opaque.found.get('identity: token')?.detail).toMatch(/^VALIDATION_FAILED: active: /);
  });
});
