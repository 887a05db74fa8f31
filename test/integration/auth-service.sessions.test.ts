import { beforeAll, describe, expect, it } from '@jest/globals';
import { keysOf } from '../support/keys-of.ts';
import { type Answer, basic, claimsOf, type Fixture, randomSecret, startFixture } from './auth-service.fixture.ts';

const DAY_MS = 86_400_000;

let auth: Fixture;
beforeAll(async () => {
  auth = await startFixture();
});

const refresh = (token: string, extra: Record<string, string> = {}, headers?: Record<string, string>) =>
  auth.token({ grant_type: 'refresh_token', refresh_token: token, ...extra }, headers);
const newSession = async (form?: Record<string, string>): Promise<string> =>
  (await auth.login('free', form)).body.refresh_token;
const expectRefused = ({ status, body }: Answer) => expect([status, body.error]).toEqual([400, 'invalid_grant']);

describe('a refresh token', () => {
  it('gives the next access token of the same session and a successor of its own', async () => {
    const { body: first } = await auth.login('pro');
    const { status, body } = await refresh(first.refresh_token);
    expect(status).toBe(200);
    expect(body).toMatchObject({ token_type: 'Bearer', expires_in: 60 });
    expect(body.refresh_token).not.toBe(first.refresh_token);
    const [before, after] = [claimsOf(first.access_token), claimsOf(body.access_token)];
    expect(after.sid).toBe(before.sid);
    expect(after.jti).not.toBe(before.jti);
  });

  it('gives the same successor to two refreshes in parallel', async () => {
    const token = await newSession();
    const answers = await Promise.all(Array.from({ length: 8 }, () => refresh(token)));
    expect(answers.map(({ status }) => status)).toEqual(Array(8).fill(200));
    expect(new Set(answers.map(({ body }) => body.refresh_token)).size).toBe(1);
    expect((await refresh(answers[0]?.body.refresh_token)).status).toBe(200);
  });

  it('gives the same successor for 30 seconds, also when the successor was used meanwhile', async () => {
    const token = await newSession();
    const { refresh_token: successor } = (await refresh(token)).body;
    auth.clock.advance(10_000);
    const { refresh_token: third } = (await refresh(successor)).body;
    auth.clock.advance(20_000);
    expect((await refresh(token)).body.refresh_token).toBe(successor);
    expect((await refresh(successor)).body.refresh_token).toBe(third);
    expect((await refresh(third)).status).toBe(200);
  });

  it('B247 ends the session when it is used again after 30 seconds', async () => {
    const token = await newSession();
    const { body } = await refresh(token);
    auth.clock.advance(30_001);
    const reused = await refresh(token);
    expectRefused(reused);
    expect(reused.body.code).toBe('TOKEN_REVOKED');
    expectRefused(await refresh(body.refresh_token));
    const { body: valid } = await auth.call('/auth/validate', { json: { token: body.access_token } });
    expect(valid.valid).toBe(false);
  });

  it('ends the session when it is used again after the clock was set back by more than that', async () => {
    const token = await newSession();
    expect((await refresh(token)).status).toBe(200);
    auth.clock.set(-60_000);
    const reused = await refresh(token);
    auth.clock.set(60_000);
    expect(reused.body.code).toBe('TOKEN_REVOKED');
  });

  it('ends the session when it is used again much later, after many refreshes', async () => {
    const first = await newSession();
    let live = first;
    for (let i = 0; i < 5; i += 1) {
      live = (await refresh(live)).body.refresh_token;
      auth.clock.advance(45_000);
    }
    expectRefused(await refresh(first));
    expectRefused(await refresh(live));
  });

  it('belongs to the client it was issued to', async () => {
    const token = await newSession({ client_id: 'console' });
    expectRefused(await refresh(token));
    expectRefused(await refresh(token, { client_id: 'other' }));
    expectRefused(await refresh(token, {}, basic('console', auth.secrets.service)));
    expect((await refresh(token, { client_id: 'console' })).status).toBe(200);
  });

  it('ends the session when another client repeats its use, within the 30 seconds too', async () => {
    const token = await newSession({ client_id: 'console' });
    const { body } = await refresh(token, { client_id: 'console' });
    expectRefused(await refresh(token, { client_id: 'thief' }));
    expectRefused(await refresh(body.refresh_token, { client_id: 'console' }));
  });

  it('needs the secret again when the client that got it had proved itself by one', async () => {
    const proof = { client_id: 'portal', client_secret: auth.secrets.service };
    const token = await newSession(proof);
    expectRefused(await refresh(token, { client_id: 'portal' }));
    const wrong = await refresh(token, { client_id: 'portal', client_secret: randomSecret() });
    expect([wrong.status, wrong.body.error]).toEqual([401, 'invalid_client']);
    expect((await refresh(token, proof)).status).toBe(200);
  });

  it('lasts seven days from the last refresh', async () => {
    const token = await newSession();
    auth.clock.advance(7 * DAY_MS - 1_000);
    const { body } = await refresh(token);
    auth.clock.advance(7 * DAY_MS - 1_000);
    const again = await refresh(body.refresh_token);
    expect(again.status).toBe(200);
    auth.clock.advance(7 * DAY_MS);
    expectRefused(await refresh(again.body.refresh_token));
  });

  it('that is forged is refused and cannot end the session it names', async () => {
    const token = await newSession();
    const [session, nonce, mac = ''] = token.split('.');
    const flipped = `${mac[0] === 'A' ? 'B' : 'A'}${mac.slice(1)}`;
    for (const forged of [`${session}.${nonce}.${flipped}`, `${session}.${'A'.repeat(24)}.${mac}`, `${token}x`, 'x']) {
      expectRefused(await refresh(forged));
    }
    expect((await refresh(token)).status).toBe(200);
  });

  it('B247 continues while the signing key is replaced', async () => {
    const token = await newSession();
    const env = { REDIS_KEY_PREFIX: auth.prefix, JWT_SECRET_KEY_PREVIOUS: auth.secrets.jwt };
    const replaced = await startFixture({ ...env, DEMO_PASSWORD: auth.secrets.password }, auth);
    const form = { grant_type: 'refresh_token', refresh_token: token };
    const { status, body } = await replaced.token(form);
    expect(status).toBe(200);
    const { body: valid } = await replaced.call('/auth/validate', { json: { token: body.access_token } });
    expect(valid.valid).toBe(true);
  });

  it('is nowhere stored in clear, and everything stored of a session expires', async () => {
    const token = await newSession();
    const { refresh_token: successor } = (await refresh(token)).body;
    const keys = await keysOf(auth.redis, `${auth.prefix}:*session:*`);
    expect(keys.length).toBeGreaterThan(0);
    for (const key of keys) {
      expect(await auth.redis.pttl(key)).toBeGreaterThan(0);
      const stored = JSON.stringify(await auth.redis.hgetall(key));
      for (const secret of [token, successor]) expect(stored).not.toContain(secret.split('.')[1]);
    }
  });
});

describe('a session', () => {
  it('is shared by all instances of the service', async () => {
    const token = await newSession();
    const env = { REDIS_KEY_PREFIX: auth.prefix, JWT_SECRET_KEY: auth.secrets.jwt };
    const second = await startFixture({ ...env, DEMO_PASSWORD: auth.secrets.password }, auth);
    const form = { grant_type: 'refresh_token', refresh_token: token };
    const [here, there] = await Promise.all([auth.token(form), second.token(form)]);
    expect(here.body.refresh_token).toBe(there.body.refresh_token);
    expect(here.status).toBe(200);
  });

  it('gives no access token that outlives it', async () => {
    const long = await startFixture({ ACCESS_TOKEN_SECONDS: '3600', TOKEN_DEGRADED_TIMEOUT_SECONDS: '86400' });
    let { access_token: token } = (await long.login()).body;
    const exchange = async () => {
      const subject = { subject_token: token, subject_token_type: 'urn:ietf:params:oauth:token-type:access_token' };
      const grant = { grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange', ...subject };
      return long.token(grant, basic('worker', long.secrets.service));
    };
    // Exchanged daily, and never refreshed by the user.
    for (let day = 1; day < 7; day += 1) {
      long.clock.advance(DAY_MS);
      token = (await exchange()).body.access_token;
    }
    long.clock.advance(DAY_MS - 20_000);
    expect((await exchange()).body.expires_in).toBe(20);
    long.clock.advance(20_000);
    expect((await exchange()).body.code).toBe('TOKEN_REVOKED');
  });
});
