import { createHash, createPublicKey, randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, it } from '@jest/globals';
import jwt from 'jsonwebtoken';
import { bearer, claimsOf, type Fixture, startFixture } from './auth-service.fixture.ts';

const REDIRECT = 'http://localhost:8000/console/callback';
const VERIFIER = randomBytes(32).toString('base64url');
const CHALLENGE = createHash('sha256').update(VERIFIER).digest('base64url');
const REQUEST = {
  response_type: 'code',
  client_id: 'tollgate-console',
  redirect_uri: REDIRECT,
  scope: 'openid admin:read admin',
  state: 'state-1',
  nonce: 'nonce-1',
  code_challenge: CHALLENGE,
  code_challenge_method: 'S256',
};

let auth: Fixture;
beforeAll(async () => {
  auth = await startFixture();
});

/** Sends a request without following its redirect. */
async function send(path: string, form?: Record<string, string>) {
  const body = form === undefined ? {} : { method: 'POST', body: new URLSearchParams(form) };
  const response = await fetch(`${auth.url}${path}`, { redirect: 'manual', ...body });
  const location = response.headers.get('location');
  const returned = location === null ? undefined : Object.fromEntries(new URL(location).searchParams);
  return { status: response.status, headers: response.headers, location, returned, text: await response.text() };
}
const authorize = (changes: Record<string, string> = {}) =>
  send(`/oauth/authorize?${new URLSearchParams({ ...REQUEST, ...changes })}`);
const signIn = (user: string, changes: Record<string, string> = {}) =>
  send('/oauth/authorize', { ...REQUEST, email: `${user}@demo.local`, password: auth.secrets.password, ...changes });
const redeem = (code: string, changes: Record<string, string> = {}) =>
  auth.token({
    grant_type: 'authorization_code',
    client_id: 'tollgate-console',
    redirect_uri: REDIRECT,
    code_verifier: VERIFIER,
    code,
    ...changes,
  });
async function session(user: string, changes: Record<string, string> = {}) {
  const { returned } = await signIn(user, changes);
  return (await redeem(returned?.code ?? '')).body;
}
const refresh = (token: string) =>
  auth.token({ grant_type: 'refresh_token', refresh_token: token, client_id: 'tollgate-console' });

describe('the authorization endpoint', () => {
  it('shows a sign-in page that no other site can frame, script or submit elsewhere', async () => {
    const { status, headers, text } = await authorize({ state: '"><script>alert(1)</script>', login_hint: "'<b>" });
    expect(status).toBe(200);
    const policy = headers.get('content-security-policy');
    expect(policy).toBe(
      "default-src 'none'; style-src 'self'; form-action 'self' http://localhost:8000; base-uri 'none'; frame-ancestors 'none'",
    );
    expect(text).not.toMatch(/<script|<b>/);
    expect(headers.get('set-cookie')).toBeNull();
    expect((await send('/oauth/sign-in.css')).headers.get('content-type')).toContain('text/css');
  });

  it('returns a code, the state and the issuer after the right password only', async () => {
    const wrong = await signIn('admin', { password: 'wrong' });
    expect([wrong.status, wrong.location]).toEqual([401, null]);
    expect(wrong.text).toContain('E-mail or password is wrong.');
    const { status, location, returned } = await signIn('admin');
    expect([status, location?.split('?')[0]]).toEqual([303, REDIRECT]);
    expect(returned).toEqual({ code: expect.any(String), state: 'state-1', iss: 'http://auth.test' });
  });

  it.each([
    ['another client', { client_id: 'other' }],
    ['no redirect URI', { redirect_uri: '' }],
    ['another path', { redirect_uri: 'http://localhost:8000/console/' }],
    ['another host', { redirect_uri: 'http://localhost.example.com/console/callback' }],
    ['a user part', { redirect_uri: 'http://localhost@example.com/console/callback' }],
    ['a query', { redirect_uri: `${REDIRECT}?a=1` }],
    ['a fragment', { redirect_uri: `${REDIRECT}#a` }],
    ['https on a loopback address', { redirect_uri: 'https://localhost:8000/console/callback' }],
  ])('does not redirect a request with %s', async (_name, changes) => {
    for (const answer of [await authorize(changes), await signIn('admin', changes)]) {
      expect([answer.status, answer.location]).toEqual([400, null]);
    }
  });

  it.each([
    ['no challenge', { code_challenge: '' }, 'invalid_request'],
    ['a plain challenge', { code_challenge_method: 'plain' }, 'invalid_request'],
    ['an implicit response', { response_type: 'token' }, 'unsupported_response_type'],
    ['a fragment response', { response_mode: 'fragment' }, 'invalid_request'],
    ['a silent request', { prompt: 'none' }, 'login_required'],
  ])('returns %s to the client as an error, with state and issuer', async (_name, changes, error) => {
    for (const answer of [await authorize(changes), await signIn('admin', changes)]) {
      expect(answer.status).toBe(303);
      expect(answer.returned).toMatchObject({ error, state: 'state-1', iss: 'http://auth.test' });
      expect(answer.returned).not.toHaveProperty('code');
    }
  });

  it('accepts exactly the listed redirect URIs, and requests of their pages, where there is a list', async () => {
    const listed = await startFixture({ CONSOLE_REDIRECT_URIS: 'https://gate.example.com/console/callback' });
    const status = async (uri: string) => {
      const query = new URLSearchParams({ ...REQUEST, redirect_uri: uri });
      return (await fetch(`${listed.url}/oauth/authorize?${query}`, { redirect: 'manual' })).status;
    };
    expect(await status('https://gate.example.com/console/callback')).toBe(200);
    expect(await status(REDIRECT)).toBe(400);
    expect(await status('https://gate.example.com/console/callback/')).toBe(400);
    const allowedFor = async (origin: string) => {
      const { headers } = await listed.call('/oauth/token', { form: {}, headers: { origin } });
      return headers.get('access-control-allow-origin');
    };
    expect(await allowedFor('https://gate.example.com')).toBe('https://gate.example.com');
    expect(await allowedFor('https://other.example.com')).toBeNull();
  });

  it('does not exist without accounts', async () => {
    const production = await startFixture({ ENVIRONMENT: 'staging' });
    const response = await fetch(`${production.url}/oauth/authorize?${new URLSearchParams(REQUEST)}`);
    expect(response.status).toBe(404);
    const { body } = await production.call('/.well-known/openid-configuration');
    expect(body).not.toHaveProperty('authorization_endpoint');
    expect(body.grant_types_supported).not.toContain('authorization_code');
  });
});

describe('an authorization code', () => {
  it.each([
    ['admin', 'openid admin:read admin', { scope: 'openid admin:read admin' }],
    ['viewer', 'openid admin:read', { scope: 'openid admin:read admin' }],
    ['free', 'openid', { scope: 'openid admin:read admin token:exchange usage:write' }],
    ['admin', 'admin:read', { scope: 'admin:read' }],
  ])('gives %s the scopes "%s" of those requested', async (user, scope, changes) => {
    const body = await session(user, changes);
    expect(body).toMatchObject({ token_type: 'Bearer', expires_in: 60, scope });
    const claims = claimsOf(body.access_token);
    expect(claims).toMatchObject({ sub: `user_${user}`, aud: 'tollgate', token_use: 'access', scope });
    expect(claims.client_id).toBe('tollgate-console');
  });

  it('comes with an ID token that the published key verifies', async () => {
    const { id_token: idToken, access_token: token } = await session('admin');
    const { body } = await auth.call('/.well-known/jwks.json');
    const key = createPublicKey({ key: body.keys[0], format: 'jwk' });
    const clockTimestamp = Math.floor(auth.clock.now() / 1000);
    const expected = { algorithms: ['ES256' as const], issuer: 'http://auth.test', audience: 'tollgate-console' };
    const claims = jwt.verify(idToken, key, { ...expected, nonce: 'nonce-1', clockTimestamp });
    expect(claims).toMatchObject({ sub: 'user_admin', email: 'admin@demo.local', sid: claimsOf(token).sid });
    expect((await session('admin', { scope: 'admin' })).id_token).toBeUndefined();
  });

  it.each([
    ['another verifier', { code_verifier: 'v'.repeat(43) }, 'invalid_grant'],
    ['no verifier', { code_verifier: '' }, 'invalid_request'],
    ['another redirect URI', { redirect_uri: 'http://localhost:9/console/callback' }, 'invalid_grant'],
    ['another client', { client_id: 'other' }, 'invalid_client'],
    ['a client with the service secret', { client_secret: 'set below' }, 'invalid_client'],
  ])('is not redeemed with %s', async (_name, changes: Record<string, string>, error) => {
    const { returned } = await signIn('admin');
    const secret: Record<string, string> = 'client_secret' in changes ? { client_secret: auth.secrets.service } : {};
    expect((await redeem(returned?.code ?? '', { ...changes, ...secret })).body.error).toBe(error);
  });

  it('is used up by a wrong verifier', async () => {
    const { returned } = await signIn('admin');
    await redeem(returned?.code ?? '', { code_verifier: 'v'.repeat(43) });
    expect((await redeem(returned?.code ?? '')).body.error).toBe('invalid_grant');
  });

  it('ends its session if it is used twice', async () => {
    const { returned } = await signIn('admin');
    const code = returned?.code ?? '';
    const first = await redeem(code);
    expect(first.status).toBe(200);
    expect((await redeem(code)).body.error).toBe('invalid_grant');
    expect((await refresh(first.body.refresh_token)).status).toBe(400);
  });

  it('expires after a minute, and starts one session of several at once', async () => {
    const { returned } = await signIn('admin');
    const code = returned?.code ?? '';
    const [key = ''] = await auth.redis.keys(`${auth.prefix}:{auth}:code:*`);
    expect(key).not.toContain(code);
    const others = await auth.redis.keys(`${auth.prefix}:{auth}:code:*`);
    const lives = await Promise.all(others.map((one) => auth.redis.pttl(one)));
    for (const life of lives) expect(life).toBeLessThanOrEqual(600_000);
    const all = await Promise.all(Array.from({ length: 10 }, () => redeem(code)));
    expect(all.filter(({ status }) => status === 200).length).toBe(1);
  });
});

describe('a session of the console', () => {
  it('keeps its scopes through refreshes, and ends when a refresh token is reused', async () => {
    const { refresh_token: first } = await session('viewer');
    const second = await refresh(first);
    expect(second.body.scope).toBe('openid admin:read');
    expect(claimsOf(second.body.access_token).scope).toBe('openid admin:read');
    await auth.clock.advance(31_000);
    expect((await refresh(first)).body).toMatchObject({ error: 'invalid_grant', code: 'TOKEN_REVOKED' });
    expect((await refresh(second.body.refresh_token)).status).toBe(400);
  });

  it('gives a worker that exchanges its token no admin scope', async () => {
    const { access_token: token } = await session('admin');
    const exchanged = await auth.token(
      {
        grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
        subject_token: token,
        subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      },
      bearer(await auth.serviceToken('token:exchange')),
    );
    expect(exchanged.status).toBe(200);
    expect(claimsOf(exchanged.body.access_token)).not.toHaveProperty('scope');
  });

  it('is no admin session after a password grant in the name of the console', async () => {
    const { body } = await auth.login('admin', { client_id: 'tollgate-console' });
    expect(claimsOf(body.access_token)).not.toHaveProperty('scope');
    const refreshed = await refresh(body.refresh_token);
    expect(claimsOf(refreshed.body.access_token).scope).toBe('');
  });

  it('is revoked by its refresh token, and by no token of another client', async () => {
    const { refresh_token: token } = await session('admin');
    const { body: other } = await auth.login('admin', { client_id: 'another' });
    const revoke = (value: string, client: string) =>
      auth.call('/oauth/revoke', { form: { token: value, client_id: client } });
    expect((await revoke(token, 'another')).body.error).toBe('invalid_client');
    expect((await revoke(other.refresh_token, 'tollgate-console')).status).toBe(200);
    expect(
      (await auth.token({ grant_type: 'refresh_token', refresh_token: other.refresh_token, client_id: 'another' }))
        .status,
    ).toBe(200);
    expect((await revoke(token, 'tollgate-console')).status).toBe(200);
    expect((await refresh(token)).status).toBe(400);
  });

  it.each(['GET', 'POST'])(
    'ends at the end-session endpoint by %s, which returns only to a console',
    async (method) => {
      const { id_token: hint, refresh_token: token } = await session('admin');
      const form = { id_token_hint: hint, post_logout_redirect_uri: 'http://localhost:8000/console/', state: 's' };
      const path = '/oauth/end-session';
      const end = (fields: Record<string, string>) =>
        method === 'GET' ? send(`${path}?${new URLSearchParams(fields)}`) : send(path, fields);
      const ended = await end(form);
      expect([ended.status, ended.location]).toEqual([303, 'http://localhost:8000/console/?state=s']);
      expect((await refresh(token)).status).toBe(400);
      const elsewhere = await end({ ...form, post_logout_redirect_uri: 'https://example.com/' });
      expect([elsewhere.status, elsewhere.location]).toEqual([200, null]);
      expect((await end({ id_token_hint: `${hint}x` })).status).toBe(200);
    },
  );
});
