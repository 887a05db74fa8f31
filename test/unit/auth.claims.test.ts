import { createHmac, randomBytes } from 'node:crypto';
import { describe, expect, it } from '@jest/globals';
import type { IdentityProvider } from '../../src/auth/providers/identity-provider.ts';
import { isJwt, TokenVerifier } from '../../src/auth/tokens.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { silentLogger } from '../support/core.ts';
import { providerOf } from '../support/identity-providers.ts';
import { ManualClock } from '../support/manual-clock.ts';

const SECRET = randomBytes(32).toString('base64url');
const ISSUER = 'https://auth.example.test';

interface Reported {
  readonly provider: string;
  readonly ignored: Readonly<Record<string, number>>;
}

function start(changes: Partial<IdentityProvider> = {}) {
  const clock = new ManualClock(1_800_000_000_000);
  const reports: unknown[] = [];
  const logger = { ...silentLogger, info: (fields: unknown) => void reports.push(fields) };
  const provider = { ...providerOf({ issuer: ISSUER, secrets: [SECRET] }), ...changes };
  const tokens = new TokenVerifier({ clock, logger, metrics: new Metrics() }, [provider]);
  const claims = { iss: ISSUER, aud: 'tollgate', sub: 'user_1', iat: 1_800_000_000, exp: 1_800_000_060 };
  const signed = (own: object = {}, header: object = {}) => {
    const parts = [
      { alg: 'HS256', typ: 'JWT', ...header },
      { ...claims, ...own },
    ].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'));
    const mac = createHmac('sha256', SECRET).update(parts.join('.')).digest('base64url');
    return [...parts, mac].join('.');
  };
  const identity = (own: object = {}) => tokens.verifyAccess(signed(own), 'header');
  return { clock, tokens, signed, identity, reports: reports as Reported[] };
}

describe('the claims of a token', () => {
  it.each<[string, object, Record<string, number>]>([
    ['a plan that is too long', { plan: 'p'.repeat(65) }, { plan: 1 }],
    ['the second of two plans', { plan: ['pro', 'free'] }, { plan: 1 }],
    ['two plans that are too long', { plan: ['p'.repeat(65), 'q'.repeat(65)] }, { plan: 2 }],
    ['a role that is too long', { roles: ['r'.repeat(65), 'a'] }, { roles: 1 }],
    ['the 65th permission', { permissions: Array.from({ length: 66 }, (_, at) => `p${at}`) }, { permissions: 2 }],
    ['a flag that is a text', { feature_flags: { a: 'yes', b: true } }, { feature_flags: 1 }],
    ['an address that is too long', { email: 'e'.repeat(321) }, { email: 1 }],
    ['a session that is no id', { sid: {} }, { sid: 1 }],
    ['two values', { jti: [], plan: [1] }, { plan: 1, jti: 1 }],
  ])('are reported with their number when they are not used: %s', async (_what, own, ignored) => {
    const { identity, reports } = start();
    await identity(own);
    expect(reports).toEqual([{ provider: 'default', ignored }]);
  });

  it('are not reported when all of them are used, at the bounds too', async () => {
    const { identity, reports } = start();
    const names = Array.from({ length: 64 }, (_, at) => `${at}`.padEnd(64, 'n'));
    const used = {
      plan: 'p'.repeat(64),
      permissions: names,
      roles: names,
      email: 'e'.repeat(320),
      jti: 'j'.repeat(129),
    };
    const flags = Object.fromEntries(names.map((name) => [name, false]));
    const read = await identity({ ...used, feature_flags: flags, sid: 's'.repeat(128) });
    const { jti: _, ...expected } = used;
    expect(read).toMatchObject({ ...expected, featureFlags: flags, sessionId: 's'.repeat(128) });
    expect(read.tokenId).toMatch(/^[\w-]{43}$/);
    expect(reports).toEqual([]);
  });

  it('that name nothing cost no memory: all such identities share one list and one record', async () => {
    const { identity } = start();
    const [one, other] = [await identity(), await identity({ sub: 'user_2' })];
    expect(one.permissions).toBe(other.permissions);
    expect(one.featureFlags).toBe(other.featureFlags);
  });

  it('are those of the year 5138 at most, because later times are milliseconds', async () => {
    const { identity } = start();
    expect(await identity({ exp: 1e11 })).toMatchObject({ tokenExpiresAt: 1e14 });
    for (const exp of [1e11 + 1, '1', '1800000060', [1_800_000_060]]) {
      await expect(identity({ exp })).rejects.toMatchObject({ code: 'VALIDATION_FAILED' });
    }
  });
});

describe('a provider whose users log in through certain clients', () => {
  it('has a user in each token that names one of these clients', async () => {
    const { identity } = start({ userClients: ['app', 'console'] });
    for (const own of [{ azp: 'app' }, { client_id: 'console' }, { azp: 'app', client_id: 'other' }]) {
      expect(await identity(own)).toMatchObject({ userId: 'user_1' });
    }
  });

  it('has none in a token that names another client, or no client', async () => {
    const { identity } = start({ userClients: ['app', 'console'] });
    for (const own of [{}, { azp: 'other' }, { azp: null }, { azp: ['app'] }, { azp: 'app2' }, { client: 'app' }]) {
      await expect(identity(own)).rejects.toMatchObject({ code: 'VALIDATION_FAILED' });
    }
  });
});

describe('a provider with a secret', () => {
  it('is ready at the start, because its tokens need no keys', () => {
    const { tokens } = start();
    expect([tokens.ready, tokens.withoutKeys]).toEqual([true, []]);
  });
});

describe('the token of an event', () => {
  const header = { typ: 'logout+jwt' };

  it('is accepted for the audience of access tokens and for each client of the provider', async () => {
    const client = { id: 'tollgate-client', secret: 's' };
    const { tokens, signed } = start({ userClients: ['app', 'console'], client });
    for (const aud of ['tollgate', 'app', 'console', 'tollgate-client']) {
      expect(await tokens.verifyEvent(signed({ aud }, header), 'logout+jwt')).toMatchObject({ claims: { aud } });
    }
    for (const aud of ['other', undefined]) {
      const refused = tokens.verifyEvent(signed({ aud }, header), 'logout+jwt');
      await expect(refused).rejects.toMatchObject({ code: 'VALIDATION_FAILED' });
    }
  });

  it('needs no audience if the provider has none', async () => {
    const { tokens, signed } = start({ audiences: undefined });
    const accepted = await tokens.verifyEvent(signed({ aud: undefined }, header), 'logout+jwt');
    expect(accepted).toMatchObject({ provider: { name: 'default' }, claims: { sub: 'user_1' } });
  });

  it('has its own type, JWT or none, whatever types the access tokens have', async () => {
    const { tokens, signed } = start({ acceptedTypes: ['at+jwt'] });
    for (const typ of ['logout+jwt', 'JWT', undefined]) {
      expect(await tokens.verifyEvent(signed({}, { typ }), 'logout+jwt')).toBeDefined();
    }
    for (const typ of ['at+jwt', 'secevent+jwt', 'none', '']) {
      const refused = tokens.verifyEvent(signed({}, { typ }), 'logout+jwt');
      await expect(refused).rejects.toMatchObject({ code: 'VALIDATION_FAILED' });
    }
  });

  it('is refused without a valid signature, of another issuer, and after its expiry', async () => {
    const { tokens, signed, clock } = start();
    const token = signed({}, header);
    const changed = `${token.slice(0, -43)}${'A'.repeat(43)}`;
    for (const wrong of [changed, signed({ iss: 'https://other.test' }, header)]) {
      await expect(tokens.verifyEvent(wrong, 'logout+jwt')).rejects.toMatchObject({ code: 'VALIDATION_FAILED' });
    }
    clock.advance(65_000);
    await expect(tokens.verifyEvent(token, 'logout+jwt')).rejects.toMatchObject({ code: 'TOKEN_EXPIRED' });
  });
});

describe('a bearer token', () => {
  it('is a JWT if it has three parts and a JOSE header; the issuer reads any other', () => {
    const header = Buffer.from('{"alg":"HS256"}').toString('base64url');
    expect(isJwt(`${header}.e30.AAAA`)).toBe(true);
    for (const opaque of ['opaque', 'a.b.c', header, `${header}.e30`, `${header}.e30.AAAA.AAAA`, '..']) {
      expect(isJwt(opaque)).toBe(false);
    }
  });
});
