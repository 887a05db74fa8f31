import { beforeAll, describe, expect, it } from '@jest/globals';
import jwt from 'jsonwebtoken';
import { Accounts } from '../../src/accounts/accounts.ts';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { basic, bearer, claimsOf, type Fixture, randomSecret, startFixture } from './auth-service.fixture.ts';

let auth: Fixture;
let admin: Record<string, string>;
beforeAll(async () => {
  auth = await startFixture();
  admin = bearer(await auth.serviceToken('admin'));
});

const introspect = (token: string, headers: Record<string, string> = basic('gateway', auth.secrets.service)) =>
  auth.call('/oauth/introspect', { form: { token }, headers });
const validate = (token: string) => auth.call('/auth/validate', { json: { token } });
const refresh = (token: string) => auth.token({ grant_type: 'refresh_token', refresh_token: token });

describe('introspection', () => {
  it('describes a live access token, service token and refresh token to a service', async () => {
    const { access_token, refresh_token } = (await auth.login('pro')).body;
    const claims = claimsOf(access_token);
    expect((await introspect(access_token)).body).toEqual({
      active: true,
      token_type: 'Bearer',
      username: 'pro@demo.local',
      ...claims,
    });
    const service = await auth.serviceToken('usage:read admin');
    expect((await introspect(service)).body).toMatchObject({
      active: true,
      client_id: 'test-service',
      scope: 'usage:read admin',
    });
    const { sid } = claims;
    expect((await introspect(refresh_token)).body).toMatchObject({ active: true, sub: 'user_pro', sid });
  });

  it('says only that a token is not active when it expired, was forged, used, revoked or is no token', async () => {
    const { access_token, refresh_token } = (await auth.login()).body;
    await refresh(refresh_token);
    const claims = claimsOf(access_token);
    const tokens = [
      refresh_token,
      'x',
      'a.b.c',
      jwt.sign(claims, randomSecret()),
      jwt.sign(claims, auth.secrets.jwt, { algorithm: 'HS384' }),
      jwt.sign({ ...claims, iss: 'http://elsewhere.test' }, auth.secrets.jwt),
      jwt.sign({ ...claims, aud: 'elsewhere' }, auth.secrets.jwt),
      `${Buffer.from('{"alg":"none"}').toString('base64url')}.${access_token.split('.')[1]}.`,
      jwt.sign({ ...claims, exp: claims.iat - 1 }, auth.secrets.jwt),
      jwt.sign({ ...claims, sid: 'sess_AAAAAAAAAAAAAAAAAAAA' }, auth.secrets.jwt),
    ];
    for (const token of tokens) expect((await introspect(token)).text).toBe('{"active":false}');
    expect((await introspect(access_token)).body.active).toBe(true);
    auth.clock.advance(60_000);
    expect((await introspect(access_token)).text).toBe('{"active":false}');
  });

  it('answers only services', async () => {
    const { access_token } = (await auth.login()).body;
    for (const headers of [{}, bearer(access_token), basic('gateway', randomSecret())] as Record<string, string>[]) {
      const { status, body } = await introspect(access_token, headers);
      expect([status, body.error]).toEqual([401, 'invalid_client']);
      expect((await auth.call('/oauth/revoke', { form: { token: access_token }, headers })).status).toBe(401);
    }
    expect((await introspect(access_token, bearer(await auth.serviceToken('usage:read')))).body.active).toBe(true);
  });
});

describe('revocation', () => {
  const revoke = (token: string) =>
    auth.call('/oauth/revoke', { form: { token }, headers: basic('gateway', auth.secrets.service) });

  it('of an access token ends the token and its session', async () => {
    const { access_token, refresh_token } = (await auth.login()).body;
    expect((await revoke(access_token)).status).toBe(200);
    expect((await introspect(access_token)).body.active).toBe(false);
    expect((await refresh(refresh_token)).body.error).toBe('invalid_grant');
  });

  it('of a refresh token, a used one too, ends the session with all its tokens', async () => {
    const { access_token, refresh_token } = (await auth.login()).body;
    const next = (await refresh(refresh_token)).body;
    expect((await revoke(refresh_token)).status).toBe(200);
    for (const token of [access_token, next.access_token, next.refresh_token]) {
      expect((await introspect(token)).body.active).toBe(false);
    }
  });

  it('of a service token ends it everywhere, and is forgotten when the token would have expired', async () => {
    const token = await auth.serviceToken('admin');
    await revoke(token);
    expect((await introspect(token)).body.active).toBe(false);
    const plan = await auth.call('/auth/users/u1/plan', {
      method: 'PUT',
      json: { plan: 'pro' },
      headers: bearer(token),
    });
    expect([plan.status, plan.body.error.code]).toEqual([401, 'TOKEN_REVOKED']);
    const until = await auth.redis.zscore(new Keys(auth.prefix).revocations, `jti:${claimsOf(token).jti}`);
    const seconds = (Number(until) - Date.now()) / 1000;
    expect(seconds).toBeGreaterThan(3_500);
    expect(seconds).toBeLessThanOrEqual(3_600 + 180);
  });

  it('of a user’s tokens at a gateway ends the sessions that began before, and none that begins later', async () => {
    const { access_token, refresh_token } = (await auth.login('developer')).body;
    const accounts = new Accounts({ redis: auth.redis, keys: new Keys(auth.prefix) });
    await accounts.revokeTokens('user_developer', auth.clock.now() + 1);
    expect((await validate(access_token)).body).toEqual({ valid: false, error: 'TOKEN_REVOKED' });
    expect((await introspect(refresh_token)).text).toBe('{"active":false}');
    expect((await refresh(refresh_token)).body).toMatchObject({ error: 'invalid_grant', code: 'TOKEN_REVOKED' });
    auth.clock.advance(1_000);
    const later = (await auth.login('developer')).body;
    expect((await validate(later.access_token)).body.valid).toBe(true);
    expect((await refresh(later.refresh_token)).status).toBe(200);
  });

  it('answers alike for what is no token', async () => {
    const { status, text } = await revoke('no token at all');
    expect([status, text]).toEqual([200, '{}']);
  });
});

describe('/auth/validate', () => {
  it('says who a good token belongs to, from the body or as bearer', async () => {
    const { access_token } = (await auth.login('pro')).body;
    const expected = {
      valid: true,
      user_id: 'user_pro',
      email: 'pro@demo.local',
      permissions: ['basic', 'analytics', 'data_management', 'monitoring'],
      plan: 'pro',
      expires_at: new Date(claimsOf(access_token).exp * 1000).toISOString(),
    };
    expect((await validate(access_token)).body).toEqual(expected);
    const asBearer = await auth.call('/auth/validate', { method: 'POST', headers: bearer(access_token) });
    expect(asBearer.body).toEqual(expected);
  });

  it('says why a token is not good', async () => {
    const { access_token, refresh_token } = (await auth.login()).body;
    expect((await auth.call('/auth/validate', { method: 'POST' })).body).toEqual({ valid: false, error: 'NO_TOKEN' });
    expect((await validate('x')).body).toEqual({ valid: false, error: 'VALIDATION_FAILED' });
    await auth.call('/auth/logout', { json: { refresh_token } });
    expect((await validate(access_token)).body).toEqual({ valid: false, error: 'TOKEN_REVOKED' });
    auth.clock.advance(60_000);
    expect((await validate(access_token)).body).toEqual({ valid: false, error: 'TOKEN_EXPIRED' });
  });
});

describe('/auth/logout', () => {
  it('ends the session by either token, by an expired one too, and can be repeated', async () => {
    for (const use of ['access_token', 'refresh_token']) {
      const { body } = await auth.login();
      auth.clock.advance(61_000);
      const call =
        use === 'access_token'
          ? { method: 'POST', headers: { ...bearer(body.access_token), 'content-type': 'application/json' } }
          : { json: { refresh_token: body.refresh_token } };
      expect((await auth.call('/auth/logout', call)).body).toEqual({ success: true });
      expect((await auth.call('/auth/logout', call)).body).toEqual({ success: true });
      expect((await refresh(body.refresh_token)).body.error).toBe('invalid_grant');
    }
    expect((await auth.call('/auth/logout', { method: 'POST' })).status).toBe(401);
  });
});

describe('an operator', () => {
  const setPlan = (user: string, plan: unknown, headers = admin) =>
    auth.call(`/auth/users/${user}/plan`, { method: 'PUT', json: { plan }, headers });
  const block = (user: string, json?: object) =>
    auth.call(`/auth/users/${user}/block`, { method: 'POST', json, headers: admin });

  it('changes the plan that later tokens name, with its permissions and feature flags', async () => {
    const { refresh_token } = (await auth.login('enterprise')).body;
    expect((await setPlan('user_enterprise', 'free')).body).toEqual({ user_id: 'user_enterprise', plan: 'free' });
    const { body } = await refresh(refresh_token);
    expect(claimsOf(body.access_token)).toMatchObject({ plan: 'free', permissions: ['basic'], feature_flags: {} });
    await setPlan('user_enterprise', 'enterprise');
    expect(claimsOf((await auth.login('enterprise')).body.access_token).plan).toBe('enterprise');
  });

  it('blocks a user: sessions end, tokens die, and no login is possible until the block is lifted', async () => {
    const { access_token, refresh_token } = (await auth.login('developer')).body;
    expect((await block('user_developer')).body).toEqual({ user_id: 'user_developer', blocked: true });
    expect((await refresh(refresh_token)).body).toMatchObject({ error: 'invalid_grant', code: 'USER_BLOCKED' });
    expect((await validate(access_token)).body).toEqual({ valid: false, error: 'USER_BLOCKED' });
    expect((await introspect(access_token)).body.active).toBe(false);
    const login = await auth.call('/auth/login', {
      json: { email: 'developer@demo.local', password: auth.secrets.password },
    });
    expect([login.status, login.body.error.code]).toEqual([403, 'USER_BLOCKED']);

    const lifted = await auth.call('/auth/users/user_developer/unblock', { method: 'POST', headers: admin });
    expect(lifted.body).toEqual({ user_id: 'user_developer', blocked: false });
    expect((await auth.login('developer')).status).toBe(200);
  });

  it('who lifts a block does not bring ended sessions back', async () => {
    const { access_token, refresh_token } = (await auth.login('pro')).body;
    await block('user_pro', { blocked: true });
    await block('user_pro', { blocked: false });
    expect((await refresh(refresh_token)).body.error).toBe('invalid_grant');
    expect((await validate(access_token)).body).toEqual({ valid: false, error: 'TOKEN_REVOKED' });
    const again = (await auth.login('pro')).body;
    expect((await refresh(again.refresh_token)).status).toBe(200);
  });

  it('reaches the gateways, and follows decisions made at a gateway', async () => {
    const [keys, wakeUps]: [Keys, string[]] = [new Keys(auth.prefix), []];
    const subscriber = await connectRedis(auth.redisUrl, 'subscriber', auth.logger);
    subscriber.on('smessage', (_channel: string, message: string) => wakeUps.push(message));
    await subscriber.ssubscribe(keys.invalidationChannel);
    const position = (await auth.redis.xrevrange(keys.invalidations, '+', '-', 'COUNT', 1))[0]?.[0] ?? '0';
    await setPlan('user_free', 'pro');
    await block('user_free');
    await block('user_free', { blocked: false });
    // The messages were published before the responses above. A later reply on the subscriber's connection follows
    // them.
    await subscriber.ping();
    expect(wakeUps).toEqual(['account', 'account', 'account']);
    await disconnectRedis(subscriber);
    const invalidated = await auth.redis.xrange(keys.invalidations, `(${position}`, '+');
    expect(invalidated.map(([, fields]) => fields)).toEqual(Array(3).fill(['kind', 'account', 'user', 'user_free']));

    const { refresh_token } = (await auth.login('free')).body;
    const gateway = new Accounts({ redis: auth.redis, keys: new Keys(auth.prefix) });
    await gateway.setPlan('user_free', 'developer');
    const { body } = await refresh(refresh_token);
    expect(claimsOf(body.access_token).plan).toBe('developer');
    await gateway.setBlocked('user_free', true);
    expect((await refresh(body.refresh_token)).body.code).toBe('USER_BLOCKED');
    await gateway.setBlocked('user_free', false);
    expect((await refresh(body.refresh_token)).body.error).toBe('invalid_grant');
  });

  it('needs a service token with the scope admin', async () => {
    const user = (await auth.login('enterprise')).body.access_token;
    const cases = [
      [{}, 401, 'NO_TOKEN'],
      [basic('billing', auth.secrets.service), 401, 'NO_TOKEN'],
      [bearer('x'), 401, 'VALIDATION_FAILED'],
      [bearer(user), 401, 'VALIDATION_FAILED'],
      [bearer(await auth.serviceToken('usage:read usage:write token:exchange')), 403, 'PERMISSION_DENIED'],
    ] as const;
    for (const [headers, status, code] of cases) {
      for (const [method, path] of [
        ['PUT', 'plan'],
        ['POST', 'block'],
        ['POST', 'unblock'],
      ] as const) {
        const answer = await auth.call(`/auth/users/user_pro/${path}`, { method, json: { plan: 'pro' }, headers });
        expect([answer.status, answer.body.error.code]).toEqual([status, code]);
      }
    }
    const scheme = { authorization: `Service-Token ${await auth.serviceToken('admin')}` };
    expect((await setPlan('user_pro', 'pro', scheme)).status).toBe(200);
    auth.clock.advance(3_600_000);
    expect((await setPlan('user_pro', 'pro')).body.error.code).toBe('TOKEN_EXPIRED');
    admin = bearer(await auth.serviceToken('admin'));
  });

  it('returns an error for unknown plans, users and words', async () => {
    for (const answer of [
      await setPlan('user_pro', 'platinum'),
      await setPlan('user_pro', 7),
      await setPlan('a b', 'pro'),
      await block('user_pro', { blocked: 'perhaps' }),
    ]) {
      expect([answer.status, answer.body.error.code]).toEqual([400, 'FORMAT_ERROR']);
    }
  });
});
