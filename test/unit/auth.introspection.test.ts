import { describe, expect, it } from '@jest/globals';
import { AuthServiceClient } from '../../src/auth/client/auth-service-client.ts';
import { type IntrospectionMode, TokenIntrospection } from '../../src/auth/introspection.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { TollgateError } from '../../src/protocol/errors.ts';
import { silentLogger } from '../support/core.ts';
import { FAULTS, json, startFaultyAuthServer } from '../support/faulty-auth-server.ts';
import { providerOf } from '../support/identity-providers.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { closeAfter } from '../support/open-resources.ts';
import { CLIENT_TOKENS, NO_BEARER_TOKENS, USER_TOKENS } from '../support/token-kinds.ts';
import { until } from '../support/until.ts';

async function start(mode: IntrospectionMode = 'opaque') {
  const server = await startFaultyAuthServer();
  const clock = new ManualClock();
  const metrics = new Metrics();
  const options = { url: server.url, issuer: server.url, serviceSecret: 'service-secret' };
  const authService = new AuthServiceClient({ clock, metrics, logger: silentLogger, tracing: NO_TRACING }, options);
  closeAfter('test', () => authService.close());
  const context = { mode, provider: providerOf({ issuer: server.url }) };
  const introspection = new TokenIntrospection({ authService, clock, metrics }, context);
  const seconds = () => Math.floor(clock.now() / 1000);
  const claims = (changes: Record<string, unknown> = {}) => ({
    active: true,
    sub: 'user_1',
    exp: seconds() + 600,
    iat: seconds(),
    jti: 'jti_1',
    sid: 'sid_1',
    plan: 'pro',
    permissions: ['basic', 'analytics'],
    token_type: 'Bearer',
    ...changes,
  });
  server.behaviour = json(claims());
  return { server, clock, metrics, authService, introspection, claims, seconds };
}

async function codeOf(call: Promise<unknown>): Promise<string> {
  return call.then(
    (value) => `came to ${JSON.stringify(value)}`,
    (error: unknown) => {
      if (error instanceof TollgateError) return error.code;
      throw error;
    },
  );
}

describe('an opaque token', () => {
  it('B95 B99 is the user that the auth service says, with what it says', async () => {
    const { introspection, claims } = await start();
    expect(await introspection.identify('opaque-token', 'header')).toEqual({
      provider: 'default',
      userId: 'user_1',
      email: undefined,
      plan: 'pro',
      permissions: ['basic', 'analytics'],
      roles: [],
      featureFlags: {},
      sessionId: 'sid_1',
      tokenId: 'jti_1',
      tokenIssuedAt: claims().iat * 1000,
      tokenExpiresAt: claims().exp * 1000,
      method: 'header',
    });
  });

  it('gets an id of its own when it has none, which says nothing of it, and the plan free', async () => {
    const { server, introspection, seconds } = await start();
    server.behaviour = json({ active: true, sub: 'user_1', exp: seconds() + 60, scope: 'admin developer_tools' });
    const identity = await introspection.identify('opaque-token', 'header');
    expect(identity).toMatchObject({ plan: 'free', permissions: [], sessionId: undefined });
    expect(identity.tokenId).toMatch(/^[\w-]{43}$/);
    expect((await introspection.identify('another', 'header')).tokenId).not.toBe(identity.tokenId);
  });

  it.each([
    ['not active', { active: false }],
    ['without a subject', { sub: undefined }],
    ['without an end', { exp: undefined }],
    ['of another issuer', { iss: 'https://other.example.test' }],
    ['for another audience', { aud: 'other' }],
    ['for several other audiences', { aud: ['other', 'third'] }],
    ['a service’s', { sub: 'service:billing', token_use: 'service' }],
    ['a service’s that calls itself a user', { token_use: 'service' }],
    ['a user’s that calls itself a service', { sub: 'service:spoofed' }],
    ['a refresh token', { token_use: 'refresh' }],
    ...NO_BEARER_TOKENS,
    ...CLIENT_TOKENS.map(([how, changes]) => [`a client’s own ${how}`, changes('user_1')] as const),
    ['not good yet', { nbf: 4_000_000_000 }],
    ['issued in the future', { iat: 4_000_000_000 }],
    ['of a subject above 255 characters', { sub: 'u'.repeat(256) }],
  ])('is VALIDATION_FAILED when it is %s, and the breaker stays closed', async (_what, changes) => {
    const { server, introspection, authService, claims } = await start();
    server.behaviour = json(claims(changes));
    for (let i = 0; i < 6; i++)
      expect(await codeOf(introspection.identify(`token-${i}`, 'header'))).toBe('VALIDATION_FAILED');
    expect(authService.breaker).toBe('closed');
  });

  // An introspection response has no header that declares an access token.
  const described = USER_TOKENS.filter(([, header]) => header.typ !== 'at+jwt');
  it.each(described)('is its user’s as %s describes it', async (_issuer, _header, changes) => {
    const { server, introspection, claims } = await start();
    server.behaviour = json(claims(changes));
    expect(await introspection.identify('opaque-token', 'header')).toMatchObject({ userId: 'user_1' });
  });

  it('is taken for its audience among several', async () => {
    const { server, introspection, claims } = await start();
    server.behaviour = json(claims({ aud: ['other', 'tollgate'], iss: server.url }));
    expect(await introspection.identify('opaque', 'header')).toMatchObject({ userId: 'user_1' });
  });

  it('is TOKEN_EXPIRED when its end has passed by more than clocks may differ', async () => {
    const { server, introspection, claims, seconds } = await start();
    server.behaviour = json(claims({ exp: seconds() - 6 }));
    expect(await codeOf(introspection.identify('old', 'header'))).toBe('TOKEN_EXPIRED');
    server.behaviour = json(claims({ exp: seconds() - 3 }));
    expect(await introspection.identify('nearly', 'header')).toMatchObject({ userId: 'user_1' });
  });

  it('B175 B177 B178 B186 is refused with the reason while the auth service fails', async () => {
    const { server, introspection, clock } = await start();
    server.behaviour = FAULTS.html;
    expect(await codeOf(introspection.identify('opaque', 'header'))).toBe('INVALID_RESPONSE_FORMAT');
    server.behaviour = FAULTS.tooMany;
    expect(await codeOf(introspection.identify('opaque', 'header'))).toBe('AUTH_SERVICE_UNAVAILABLE');
    server.behaviour = FAULTS.hang;
    const late = codeOf(introspection.identify('opaque', 'header'));
    await until(() => server.requests.length === 3);
    clock.advance(2_000);
    expect(await late).toBe('AUTH_SERVICE_TIMEOUT');
  });
});

describe('an answer about a token', () => {
  it('B240 is kept for half a minute, and then asked for again', async () => {
    const { server, introspection, clock } = await start();
    for (let i = 0; i < 10; i++) await introspection.identify('opaque', 'header');
    expect(server.requests).toHaveLength(1);
    clock.advance(29_999);
    await introspection.identify('opaque', 'header');
    expect(server.requests).toHaveLength(1);
    clock.advance(2);
    await introspection.identify('opaque', 'header');
    expect(server.requests).toHaveLength(2);
  });

  it('B240 costs less than half of the first when it is known', async () => {
    const { introspection } = await start();
    const timed = async () => {
      const startedAt = performance.now();
      await introspection.identify('opaque', 'header');
      return performance.now() - startedAt;
    };
    const first = await timed();
    const later = await Promise.all(Array.from({ length: 20 }, timed));
    expect(Math.min(...later)).toBeLessThan(first / 2);
  });

  it('B241 is never another token’s', async () => {
    const { server, introspection, claims } = await start();
    server.behaviour = (response, { form }) => json(claims({ sub: `user_${form.token}` }))(response, {} as never);
    const identities = await Promise.all(['a', 'b', 'a', 'c'].map((token) => introspection.identify(token, 'header')));
    expect(identities.map(({ userId }) => userId)).toEqual(['user_a', 'user_b', 'user_a', 'user_c']);
  });

  it('is kept no longer because the clock was set back', async () => {
    const { server, clock, introspection } = await start();
    await introspection.identify('opaque-token', 'header');
    server.behaviour = json({ active: false });
    clock.set(-3_600_000);
    expect(await codeOf(introspection.identify('opaque-token', 'header'))).toBe('VALIDATION_FAILED');
  });

  it('is not kept beyond the end of its token', async () => {
    const { server, introspection, clock, claims, seconds } = await start();
    server.behaviour = json(claims({ exp: seconds() + 10 }));
    await introspection.identify('opaque', 'header');
    clock.advance(10_001);
    await introspection.identify('opaque', 'header');
    expect(server.requests).toHaveLength(2);
  });

  it('is one request however many ask at once, and a failure is not cached', async () => {
    const { server, introspection } = await start();
    await Promise.all(Array.from({ length: 50 }, () => introspection.identify('opaque', 'header')));
    expect(server.requests).toHaveLength(1);
    server.behaviour = FAULTS.html;
    await Promise.all(Array.from({ length: 50 }, () => codeOf(introspection.identify('other', 'header'))));
    await codeOf(introspection.identify('other', 'header'));
    expect(server.requests).toHaveLength(3);
  });

  it('is kept for ten thousand tokens at most', async () => {
    let requests = 0;
    const authService = {
      introspect: async (token: string) => {
        requests += 1;
        return { sub: `user_${token}`, exp: 4_000_000_000 };
      },
    };
    const clock = new ManualClock();
    const options = { mode: 'opaque', provider: providerOf() } as const;
    const introspection = new TokenIntrospection({ authService, clock, metrics: new Metrics() }, options);
    for (let i = 0; i < 10_001; i++) await introspection.identify(`${i}`, 'header');
    await introspection.identify('10000', 'header');
    expect(requests).toBe(10_001);
    await introspection.identify('0', 'header');
    expect(requests).toBe(10_002);
  });

  it.each([{ userId: 'user_1' }, { tokenId: 'jti_1' }, { sessionId: 'sid_1' }])(
    'is forgotten with %j',
    async (revoked) => {
      const { server, introspection } = await start();
      await introspection.identify('opaque', 'header');
      introspection.invalidate({ userId: 'user_2', tokenId: 'jti_2', sessionId: 'sid_2' });
      await introspection.identify('opaque', 'header');
      expect(server.requests).toHaveLength(1);
      introspection.invalidate(revoked);
      server.behaviour = json({ active: false });
      expect(await codeOf(introspection.identify('opaque', 'header'))).toBe('VALIDATION_FAILED');
    },
  );

  it('is forgotten with all others when this node may have missed a revocation', async () => {
    const { server, introspection } = await start();
    for (const token of ['a', 'b']) await introspection.identify(token, 'header');
    introspection.forget();
    server.behaviour = json({ active: false });
    for (const token of ['a', 'b']) {
      expect(await codeOf(introspection.identify(token, 'header'))).toBe('VALIDATION_FAILED');
    }
  });

  it('is not kept when a revocation overtook it', async () => {
    const { server, introspection, claims } = await start();
    server.behaviour = FAULTS.hang;
    const { promise, resolve } = Promise.withResolvers<() => void>();
    server.behaviour = (response, requests) => resolve(() => json(claims())(response, requests));
    const identity = introspection.identify('opaque', 'header');
    const answer = await promise;
    introspection.invalidate({ userId: 'user_1' });
    answer();
    await identity;
    server.behaviour = json({ active: false });
    expect(await codeOf(introspection.identify('opaque', 'header'))).toBe('VALIDATION_FAILED');
  });
});

describe('a token that was verified here', () => {
  it('is not asked about unless all are', async () => {
    for (const mode of ['never', 'opaque'] as const) {
      const { server, introspection } = await start(mode);
      await introspection.confirm('a.b.c', 'user_1');
      expect(server.requests).toEqual([]);
    }
  });

  it('is TOKEN_REVOKED when it is not active, VALIDATION_FAILED when it is another’s', async () => {
    const { server, introspection } = await start('always');
    await introspection.confirm('a.b.c', 'user_1');
    expect(await codeOf(introspection.confirm('d.e.f', 'user_2'))).toBe('VALIDATION_FAILED');
    server.behaviour = json({ active: false });
    expect(await codeOf(introspection.confirm('g.h.i', 'user_1'))).toBe('TOKEN_REVOKED');
  });

  it.each(NO_BEARER_TOKENS)('is VALIDATION_FAILED when the answer says that it is %s', async (_what, changes) => {
    const { server, introspection, claims } = await start('always');
    server.behaviour = json(claims(changes));
    expect(await codeOf(introspection.confirm('a.b.c', 'user_1'))).toBe('VALIDATION_FAILED');
    server.behaviour = json(claims({ ...changes, sub: 'service:billing' }));
    expect(await codeOf(introspection.confirm('d.e.f', 'service:billing'))).toBe('VALIDATION_FAILED');
  });

  it('is VALIDATION_FAILED as a user’s when the answer says that a client got it, and good as a service’s', async () => {
    const { server, introspection, claims } = await start('always');
    server.behaviour = json(claims({ client_id: 'user_1' }));
    expect(await codeOf(introspection.confirm('a.b.c', 'user_1'))).toBe('VALIDATION_FAILED');
    server.behaviour = json(claims({ sub: 'service:billing', client_id: 'service:billing' }));
    await introspection.confirm('d.e.f', 'service:billing');
  });

  it('B40 B109 B141 is taken while the auth service fails, and while the breaker is open', async () => {
    const { server, introspection, authService, clock } = await start('always');
    server.behaviour = FAULTS.html;
    for (let i = 0; i < 20; i++) await introspection.confirm(`token.${i}.x`, 'user_1');
    expect(authService.breaker).toBe('open');
    expect(server.requests.length).toBeLessThanOrEqual(5);
    clock.advance(5_000);
    server.behaviour = json({ active: false });
    expect(await codeOf(introspection.confirm('a.b.c', 'user_1'))).toBe('TOKEN_REVOKED');
    expect(authService.breaker).toBe('closed');
  });
});
