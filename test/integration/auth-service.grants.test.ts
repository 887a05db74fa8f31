import { beforeAll, describe, expect, it } from '@jest/globals';
import jwt from 'jsonwebtoken';
import { basic, bearer, claimsOf, type Fixture, randomSecret, startFixture } from './auth-service.fixture.ts';

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';

let auth: Fixture;
beforeAll(async () => {
  auth = await startFixture();
});

describe('the client_credentials grant', () => {
  const ask = (extra: Record<string, string> = {}, headers?: Record<string, string>) =>
    auth.token({ grant_type: 'client_credentials', ...extra }, headers);

  it.each([
    ['billing-job_2.eu', 'as it is'],
    ['billing%2Djob%5F2%2Eeu', 'with all punctuation encoded'],
    ['billing%2djob_2.eu', 'partly encoded'],
  ])('authenticates a service whose id is sent as %s: %s (RFC 6749 section 2.3.1)', async (sent) => {
    const { status, body } = await ask({}, basic(sent, auth.secrets.service));
    expect([status, claimsOf(body.access_token).sub]).toEqual([200, 'service:billing-job_2.eu']);
  });

  it('gives a service that proves itself by Basic an hour of the scopes it asked for', async () => {
    const { status, body, headers } = await ask({ scope: 'admin usage:read' }, basic('billing', auth.secrets.service));
    expect(status).toBe(200);
    expect(body).toMatchObject({ token_type: 'Bearer', expires_in: 3600, scope: 'usage:read admin' });
    expect(body).not.toHaveProperty('refresh_token');
    expect(headers.get('cache-control')).toBe('no-store');
    const claims = claimsOf(body.access_token);
    expect(claims).toMatchObject({ sub: 'service:billing', token_use: 'service', scope: 'usage:read admin' });
    expect(claims).toMatchObject({ iss: 'http://auth.test', aud: 'tollgate' });
    expect(claims.exp - claims.iat).toBe(3600);
    expect(jwt.verify(body.access_token, auth.secrets.jwt, { algorithms: ['HS256'] })).toBeDefined();
  });

  it('accepts the secret in a form or a JSON body, and grants the smallest scope by default', async () => {
    const client = { client_id: 'billing', client_secret: auth.secrets.service };
    const form = await ask(client);
    const json = await auth.call('/oauth/token', { json: { grant_type: 'client_credentials', ...client } });
    for (const { status, body } of [form, json]) {
      expect(status).toBe(200);
      expect(body.scope).toBe('usage:read');
    }
  });

  it('takes secrets with any character, form-encoded in Basic or as they are', async () => {
    const secret = `a+b %41/=:${randomSecret()}`;
    const other = await startFixture({ SERVICE_SECRET: secret });
    const encoded = encodeURIComponent(secret);
    for (const presented of [secret, encoded]) {
      const answer = await other.token({ grant_type: 'client_credentials' }, basic('billing', presented));
      expect(answer.status).toBe(200);
    }
  });

  it('refuses a wrong, empty or missing secret with invalid_client and a challenge', async () => {
    const refused = [
      await ask({ client_id: 'billing' }),
      await ask({ client_id: 'billing', client_secret: randomSecret() }),
      await ask({}, basic('billing', randomSecret())),
      await ask({}, basic('billing', '')),
      await ask({}, { authorization: 'Basic !!!' }),
      await ask({}),
    ];
    for (const { status, body, headers } of refused) {
      expect(status).toBe(401);
      expect(body.error).toBe('invalid_client');
      expect(headers.get('www-authenticate')).toBe('Basic realm="tollgate"');
    }
  });

  it('refuses a client id that is no service name', async () => {
    for (const id of ['', '../x', 'service:x', 'a b', 'x'.repeat(65)]) {
      expect((await ask({}, basic(id, auth.secrets.service))).body.error).toBe('invalid_client');
    }
  });

  it('refuses two ways of authentication at once, and a client_id that is another client', async () => {
    const proof = basic('billing', auth.secrets.service);
    const twice = await ask({ client_id: 'billing', client_secret: auth.secrets.service }, proof);
    expect([twice.status, twice.body.error]).toEqual([400, 'invalid_request']);
    const other = await ask({ client_id: 'worker' }, proof);
    expect([other.status, other.body.error]).toEqual([400, 'invalid_request']);
  });

  it('refuses an unknown scope instead of leaving it out', async () => {
    const { status, body } = await ask({ scope: 'usage:read root' }, basic('billing', auth.secrets.service));
    expect([status, body.error]).toEqual([400, 'invalid_scope']);
  });

  it('does not widen or prolong a service token', async () => {
    const { status, body } = await ask({ scope: 'admin' }, bearer(await auth.serviceToken('usage:read')));
    expect([status, body.error]).toEqual([401, 'invalid_client']);
  });
});

describe('the password grant', () => {
  it('gives a demo account an access token with every claim of the contract and a refresh token', async () => {
    const { status, body } = await auth.login('pro');
    expect(status).toBe(200);
    expect(Object.keys(body).sort()).toEqual(['access_token', 'expires_in', 'refresh_token', 'token_type']);
    expect(body).toMatchObject({ token_type: 'Bearer', expires_in: 60 });
    const claims = claimsOf(body.access_token);
    expect(claims).toEqual({
      iss: 'http://auth.test',
      aud: 'tollgate',
      sub: 'user_pro',
      iat: Math.floor(auth.clock.now() / 1000),
      exp: claims.iat + 60,
      jti: expect.stringMatching(/^tok_/),
      sid: expect.stringMatching(/^sess_/),
      email: 'pro@demo.local',
      plan: 'pro',
      permissions: ['basic', 'analytics', 'data_management', 'monitoring'],
      roles: [],
      feature_flags: { data_operations: true, advanced_analytics: true },
      token_use: 'access',
    });
    expect(jwt.decode(body.access_token, { complete: true })?.header.alg).toBe('HS256');
  });

  it('gives the developer account its roles, and every account its own plan', async () => {
    for (const plan of ['free', 'enterprise', 'developer']) {
      const claims = claimsOf((await auth.login(plan)).body.access_token);
      expect(claims.plan).toBe(plan);
      expect(claims.roles).toEqual(plan === 'developer' ? ['admin', 'developer'] : []);
    }
  });

  it('refuses a wrong password and an unknown account with the same answer', async () => {
    const wrong = await auth.login('free', { password: 'wrong' });
    const unknown = await auth.login('nobody');
    expect([wrong.status, wrong.body.error]).toEqual([400, 'invalid_grant']);
    expect(unknown.text).toBe(wrong.text);
  });

  it.each(['staging', 'production'])(
    'does not exist in %s, nor do accounts that development left behind',
    async (name) => {
      const development = await startFixture();
      const { body: session } = await development.login();
      const strict = await startFixture({
        ENVIRONMENT: name,
        REDIS_KEY_PREFIX: development.prefix,
        JWT_SECRET_KEY: development.secrets.jwt,
        DEMO_PASSWORD: development.secrets.password,
      });
      expect((await strict.login()).body.error).toBe('unsupported_grant_type');
      const legacy = { email: 'free@demo.local', password: strict.secrets.password };
      expect((await strict.call('/auth/login', { json: legacy })).status).toBe(403);
      const refresh = await strict.token({ grant_type: 'refresh_token', refresh_token: session.refresh_token });
      expect(refresh.body.error).toBe('invalid_grant');
      const { body: metadata } = await strict.call('/.well-known/oauth-authorization-server');
      expect(metadata.grant_types_supported).not.toContain('password');
      const { body: config } = await strict.call('/auth/config');
      expect(config).toMatchObject({ password_login: false, demo_accounts: [], access_token_seconds: 900 });
    },
  );
});

describe('the token-exchange grant', () => {
  const worker = () => basic('worker', auth.secrets.service);
  const exchange = (subjectToken: string, extra: Record<string, string> = {}, headers = worker()) => {
    const subject = { subject_token: subjectToken, subject_token_type: ACCESS_TOKEN };
    return auth.token({ grant_type: EXCHANGE, ...subject, ...extra }, headers);
  };

  it('gives a service the next access token of a live session, and no refresh token', async () => {
    const first = (await auth.login()).body.access_token;
    auth.clock.advance(45_000);
    const { status, body } = await exchange(first);
    expect(status).toBe(200);
    expect(body).toMatchObject({ token_type: 'Bearer', expires_in: 60, issued_token_type: ACCESS_TOKEN });
    expect(body).not.toHaveProperty('refresh_token');
    const [before, after] = [claimsOf(first), claimsOf(body.access_token)];
    expect(after).toMatchObject({ sub: before.sub, sid: before.sid, exp: before.exp + 45 });
    expect(after.jti).not.toBe(before.jti);
  });

  it('takes a service token of scope token:exchange as proof, and none of another scope', async () => {
    const { access_token: subject } = (await auth.login()).body;
    const good = await exchange(subject, {}, bearer(await auth.serviceToken('token:exchange')));
    expect(good.status).toBe(200);
    const narrow = await exchange(subject, {}, bearer(await auth.serviceToken('admin usage:write')));
    expect([narrow.status, narrow.body.error]).toEqual([400, 'unauthorized_client']);
  });

  it('gives nothing to who is no service, not even to the user whose token it is', async () => {
    const { access_token: subject } = (await auth.login()).body;
    for (const headers of [{}, bearer(subject), basic('worker', randomSecret())]) {
      const { status, body } = await exchange(subject, {}, headers as { authorization: string });
      expect([status, body.error]).toEqual([401, 'invalid_client']);
    }
  });

  it('takes a token that expired during a degraded connection, and none that is older', async () => {
    const { access_token: subject } = (await auth.login()).body;
    auth.clock.advance(60_000 + 179_000);
    expect((await exchange(subject)).status).toBe(200);
    auth.clock.advance(2_000);
    expect((await exchange(subject)).body).toMatchObject({ error: 'invalid_request', code: 'TOKEN_EXPIRED' });
  });

  it('refuses the token of a session that has ended, and a forged one', async () => {
    const { access_token: subject, refresh_token } = (await auth.login()).body;
    await auth.call('/auth/logout', { json: { refresh_token } });
    expect((await exchange(subject)).body).toMatchObject({ error: 'invalid_request', code: 'TOKEN_REVOKED' });
    const forged = jwt.sign(claimsOf(subject), randomSecret());
    expect((await exchange(forged)).body).toMatchObject({ error: 'invalid_request', code: 'VALIDATION_FAILED' });
  });

  it('refuses service tokens, tokens without a session, other kinds of token, targets and actors', async () => {
    const { access_token: subject } = (await auth.login()).body;
    const { sid: _, ...claims } = claimsOf(subject);
    const service = await exchange(await auth.serviceToken('admin'));
    expect([service.status, service.body.error]).toEqual([400, 'invalid_request']);
    const sessionless = await exchange(jwt.sign(claims, auth.secrets.jwt));
    expect([sessionless.status, sessionless.body.error]).toEqual([400, 'invalid_request']);
    const saml = 'urn:ietf:params:oauth:token-type:saml2';
    for (const [extra, error] of [
      [{ subject_token_type: saml }, 'invalid_request'],
      [{ subject_token_type: '' }, 'invalid_request'],
      [{ subject_token: '' }, 'invalid_request'],
      [{ requested_token_type: saml }, 'invalid_request'],
      [{ actor_token: subject }, 'invalid_request'],
      [{ audience: 'elsewhere' }, 'invalid_target'],
      [{ resource: 'https://elsewhere.test' }, 'invalid_target'],
    ] as const) {
      expect((await exchange(subject, extra)).body.error).toBe(error);
    }
    expect((await exchange(subject, { audience: 'tollgate' })).status).toBe(200);
  });
});

describe('the token endpoint', () => {
  it('refuses unknown and missing grant types, and bodies it cannot read, in the form of RFC 6749', async () => {
    const json = { 'content-type': 'application/json' };
    const bad = [
      [await auth.token({ grant_type: 'implicit' }), 400, 'unsupported_grant_type'],
      [await auth.token({ grant_type: 'authorization_code' }), 400, 'invalid_request'],
      [await auth.token({}), 400, 'invalid_request'],
      [await auth.token({ grant_type: 'refresh_token' }), 400, 'invalid_request'],
      [await auth.token({ grant_type: 'password', username: 'free@demo.local' }), 400, 'invalid_request'],
      [await auth.call('/oauth/token', { json: [1] }), 400, 'invalid_request'],
      [await auth.call('/oauth/token', { json: { grant_type: 7 } }), 400, 'invalid_request'],
      [await auth.call('/oauth/token', { json: { grant_type: 'x'.repeat(70_000) } }), 413, 'invalid_request'],
      [await auth.call('/oauth/token', { method: 'POST', headers: json }), 400, 'invalid_request'],
      [await auth.call('/oauth/token', { method: 'POST' }), 400, 'invalid_request'],
    ] as const;
    for (const [{ status, body, headers }, expectedStatus, error] of bad) {
      expect([status, body.error]).toEqual([expectedStatus, error]);
      expect(typeof body.error_description).toBe('string');
      expect(headers.get('cache-control')).toBe('no-store');
    }
  });

  it('refuses a parameter that is sent twice', async () => {
    const form: [string, string][] = [
      ['grant_type', 'client_credentials'],
      ['scope', 'usage:read'],
      ['scope', 'admin'],
    ];
    const { status, body } = await auth.call('/oauth/token', { form, headers: basic('billing', auth.secrets.service) });
    expect([status, body.error]).toEqual([400, 'invalid_request']);
  });
});
