import { beforeAll, describe, expect, it } from '@jest/globals';
import { AuthServiceClient, isRefusal } from '../../src/auth/client/auth-service-client.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { silentLogger } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { stack } from '../support/stack.ts';
import { login, mintToken, serviceToken } from '../support/tokens.ts';
import { claimsOf } from './auth-service.fixture.ts';

let auth: AuthServiceClient;

function client(serviceSecret = stack().secrets.service): AuthServiceClient {
  const deps = { clock: systemClock, metrics: new Metrics(), logger: silentLogger, tracing: NO_TRACING };
  const service = new AuthServiceClient(deps, { url: stack().authUrl, issuer: stack().authUrl, serviceSecret });
  closeAfter('file', () => service.close());
  return service;
}

beforeAll(() => {
  auth = client();
});

async function codeOf(call: Promise<unknown>): Promise<{ code: unknown; refusal: boolean }> {
  const error = await call.then(
    (value) => ({ code: `came to ${JSON.stringify(value)}` }),
    (thrown: unknown) => thrown,
  );
  return { code: (error as { code?: unknown }).code, refusal: isRefusal(error) };
}

/** Logs a demo user in as the client whose refresh tokens `auth` can use. */
async function session() {
  const form = { grant_type: 'password', username: 'pro@demo.local', password: stack().demoPassword };
  const authorization = `Basic ${Buffer.from(`tollgate:${stack().secrets.service}`).toString('base64')}`;
  const body = new URLSearchParams(form);
  const response = await fetch(`${stack().authUrl}/oauth/token`, { method: 'POST', body, headers: { authorization } });
  return (await response.json()) as { access_token: string; refresh_token: string };
}

async function revoke(token: string): Promise<void> {
  const authorization = `Bearer ${await serviceToken('admin')}`;
  const body = new URLSearchParams({ token });
  const response = await fetch(`${stack().authUrl}/oauth/revoke`, { method: 'POST', body, headers: { authorization } });
  expect(response.status).toBe(200);
}

describe('the client with the reference auth service', () => {
  it('exchanges an access token for the next one of its session', async () => {
    const { access_token } = await login('pro');
    const issued = await auth.exchange(access_token);
    const [before, after] = [claimsOf(access_token), claimsOf(issued.accessToken)];
    expect(after).toMatchObject({ sub: before.sub, sid: before.sid, token_use: 'access' });
    expect(after.jti).not.toBe(before.jti);
    expect(Math.abs(issued.expiresAt - after.exp * 1000)).toBeLessThan(5_000);
    expect(issued.refreshToken).toBeUndefined();
  });

  it('refreshes, and gets the same successor when the answer was lost', async () => {
    const { refresh_token } = await session();
    const first = await auth.refresh(refresh_token);
    const again = await auth.refresh(refresh_token);
    expect(first.refreshToken).toBeDefined();
    expect(again.refreshToken).toBe(first.refreshToken);
    expect(again.accessToken).not.toBe(refresh_token);
  });

  it('B95 introspects: whose an active token is and what it may do, and nothing of any other', async () => {
    const { access_token } = await login('pro');
    const claims = claimsOf(access_token);
    expect(await auth.introspect(access_token)).toMatchObject({ sub: claims.sub, permissions: claims.permissions });
    expect(await auth.introspect('gibberish')).toBeUndefined();
    await revoke(access_token);
    expect(await auth.introspect(access_token)).toBeUndefined();
  });

  it('tells a refusal by its reason', async () => {
    const { access_token } = await login('free');
    await revoke(access_token);
    expect(await codeOf(auth.exchange(access_token))).toEqual({ code: 'TOKEN_REVOKED', refusal: true });
    const old = mintToken({}, { expiresInSeconds: -600 }).token;
    expect(await codeOf(auth.exchange(old))).toEqual({ code: 'TOKEN_EXPIRED', refusal: true });
    expect(await codeOf(auth.exchange('a.b.c'))).toEqual({ code: 'VALIDATION_FAILED', refusal: true });
    expect(await codeOf(auth.refresh('rt_unknown'))).toEqual({ code: 'VALIDATION_FAILED', refusal: true });
  });

  it.each([3, 100])('B158 keeps working for all users after %d bad tokens', async (tokens) => {
    const refusals = await Promise.all(
      Array.from({ length: tokens }, (_, i) => codeOf(auth.exchange(`bad.token.${i}`))),
    );
    expect(refusals.every(({ refusal }) => refusal)).toBe(true);
    expect(auth.breaker).toBe('closed');
    await auth.exchange((await login('pro')).access_token);
  });

  it('takes a secret that is not the right one for an outage, not for a bad token', async () => {
    const stranger = client('x'.repeat(43));
    const { access_token } = await login('pro');
    for (let i = 0; i < 6; i++) {
      const expected = { code: 'AUTH_SERVICE_UNAVAILABLE', refusal: false };
      expect(await codeOf(stranger.exchange(access_token))).toEqual(expected);
    }
    expect(stranger.breaker).toBe('closed');
  });

  it('carries more at once than it has connections', async () => {
    const { access_token } = await login('pro');
    const answers = await Promise.all(Array.from({ length: 60 }, () => auth.introspect(access_token)));
    expect(answers.every((claims) => claims?.sub === claimsOf(access_token).sub)).toBe(true);
  });
});
