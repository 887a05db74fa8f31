import { beforeAll, describe, expect, it } from '@jest/globals';
import { PASSWORD_COST } from '../../auth-service/passwords.ts';
import { keysOf } from '../support/keys-of.ts';
import { type Fixture, randomSecret, startFixture } from './auth-service.fixture.ts';

let auth: Fixture;
beforeAll(async () => {
  auth = await startFixture();
});

const login = (email: string, password: string) => auth.call('/auth/login', { json: { email, password } });
const fail = async (email: string, times: number) => {
  for (let i = 0; i < times; i += 1) expect((await login(email, 'wrong')).status).toBe(401);
};

describe('B245 ten wrong passwords', () => {
  it('lock an account for a time that grows, against the right password too, until a right one starts anew', async () => {
    const email = 'free@demo.local';
    await fail(email, 10);
    const locked = await login(email, auth.secrets.password);
    expect(locked.status).toBe(429);
    expect(locked.headers.get('retry-after')).toBe('30');
    expect(locked.body.error).toMatchObject({ code: 'AUTH_RATE_LIMITED', retryable: true, retry_after_ms: 30_000 });

    for (const seconds of [60, 120]) {
      auth.clock.advance(seconds * 500);
      await fail(email, 1);
      expect((await login(email, 'wrong')).headers.get('retry-after')).toBe(String(seconds));
    }

    auth.clock.advance(119_999);
    expect((await login(email, auth.secrets.password)).status).toBe(429);
    auth.clock.advance(1);
    expect((await login(email, auth.secrets.password)).status).toBe(200);
    await fail(email, 1);
    expect((await login(email, auth.secrets.password)).status).toBe(200);
  });

  it('lock it for no longer than any lock when the clock is set back', async () => {
    const email = 'enterprise@demo.local';
    auth.clock.set(86_400_000);
    await fail(email, 10);
    auth.clock.set(-86_400_000);
    expect((await login(email, auth.secrets.password)).status).toBe(200);
  });

  it('lock the account for both kinds of login, whatever the case of the address', async () => {
    await fail('Pro@Demo.Local', 10);
    const { status, body, headers } = await auth.login('pro');
    expect([status, body.error, body.code]).toEqual([429, 'temporarily_unavailable', 'AUTH_RATE_LIMITED']);
    expect(headers.get('retry-after')).toBe('30');
    expect((await auth.login('enterprise')).status).toBe(200);
  });

  it('lock an unknown address too, so that a lock reveals nothing', async () => {
    await fail('nobody@demo.local', 10);
    expect((await login('nobody@demo.local', 'wrong')).status).toBe(429);
  });

  it('lock for an hour at most, and are forgotten a day after the last', async () => {
    const email = 'forever@demo.local';
    await fail(email, 10);
    for (let i = 0; i < 10; i += 1) {
      auth.clock.advance(3_600_000);
      await fail(email, 1);
    }
    expect((await login(email, 'wrong')).headers.get('retry-after')).toBe('3600');
    for (const key of await keysOf(auth.redis, `${auth.prefix}:*attempts:*`)) {
      expect(await auth.redis.ttl(key)).toBeGreaterThan(86_000);
    }
  });

  it('are counted exactly when they come in parallel, over several instances of the service', async () => {
    const env = { REDIS_KEY_PREFIX: auth.prefix, DEMO_PASSWORD: auth.secrets.password };
    const second = await startFixture(env, auth);
    const json = { email: 'spread@demo.local', password: 'wrong' };
    const calls = Array.from({ length: 20 }, (_, i) => (i % 2 ? auth : second).call('/auth/login', { json }));
    const statuses = (await Promise.all(calls)).map(({ status }) => status);
    expect(statuses.filter((status) => status === 401)).toHaveLength(10);
    expect(statuses.filter((status) => status === 429)).toHaveLength(10);
  });
});

describe('a login', () => {
  it('does not count a burst of right passwords as an attack', async () => {
    const answers = await Promise.all(Array.from({ length: 15 }, () => auth.login('developer')));
    expect(answers.map(({ status }) => status)).toEqual(Array(15).fill(200));
  });

  it('costs an unknown account what a wrong password costs', async () => {
    const real = await startFixture({}, { passwordCost: PASSWORD_COST });
    const times: Record<string, number[]> = { free: [], ghost: [] };
    // Alternating, so that a busy machine slows both alike.
    for (const user of ['free', 'ghost', 'free', 'ghost', 'free', 'ghost']) {
      const start = performance.now();
      await real.login(user, { password: 'wrong' });
      times[user]?.push(performance.now() - start);
    }
    const [wrong, unknown] = [Math.min(...(times.free ?? [])), Math.min(...(times.ghost ?? []))];
    expect(wrong).toBeGreaterThan(20);
    expect(unknown).toBeGreaterThan(wrong / 4);
    expect(wrong).toBeGreaterThan(unknown / 4);
  });

  it('B136 is refused with 503 rather than kept waiting when too many wait', async () => {
    const calls = Array.from({ length: 100 }, () => login('enterprise@demo.local', auth.secrets.password));
    const statuses = (await Promise.all(calls)).map(({ status }) => status);
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(65);
    expect(statuses.every((status) => status === 200 || status === 503)).toBe(true);
  });
});

describe('the demo accounts', () => {
  it('get a changed DEMO_PASSWORD at the next start, and keep their hash when it has not changed', async () => {
    const first = await startFixture();
    const hash = () => first.redis.hget(`${first.prefix}:{auth}:user:free@demo.local`, 'password_hash');
    const before = await hash();
    expect(before).toMatch(/^\$scrypt\$ln=\d+,r=8,p=5\$/);
    const env = { REDIS_KEY_PREFIX: first.prefix, JWT_SECRET_KEY: first.secrets.jwt };
    await startFixture({ ...env, DEMO_PASSWORD: first.secrets.password });
    expect(await hash()).toBe(before);
    const changed = await startFixture({ ...env, DEMO_PASSWORD: randomSecret() });
    expect(await hash()).not.toBe(before);
    expect((await first.login()).body.error).toBe('invalid_grant');
    expect((await changed.login()).status).toBe(200);
  });

  it('do not exist without a DEMO_PASSWORD', async () => {
    const bare = await startFixture({ DEMO_PASSWORD: '' });
    expect((await bare.login('free', { password: 'undefined' })).body.error).toBe('invalid_grant');
    expect(await keysOf(bare.redis, `${bare.prefix}:*user:*`)).toEqual([]);
  });
});
