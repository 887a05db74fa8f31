import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { IdentityProvider } from '../../src/auth/providers/identity-provider.ts';
import { PRESET_NAMES } from '../../src/auth/providers/presets.ts';
import { readProviders } from '../../src/auth/providers/provider-file.ts';
import { TokenFault } from '../../src/auth/token-fault.ts';
import { TokenVerifier } from '../../src/auth/tokens.ts';
import { CatalogueError } from '../../src/catalogue/catalogue-file.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { TollgateError } from '../../src/protocol/errors.ts';
import { silentLogger } from '../support/core.ts';
import { FakeIssuer } from '../support/fake-issuer.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { VENDOR_TOKENS } from '../support/provider-tokens.ts';

const folder = mkdtempSync(join(tmpdir(), 'tollgate-providers-'));
const issuer = new FakeIssuer();

beforeAll(() => issuer.start());
afterAll(async () => {
  rmSync(folder, { recursive: true });
  await issuer.close();
});

function read(rows: readonly object[], variables: Readonly<Record<string, string>> = {}): readonly IdentityProvider[] {
  const path = join(folder, 'providers.json');
  const named = rows.map((row, at) => ({ name: `provider-${at}`, ...row }));
  writeFileSync(path, JSON.stringify({ providers: named }, null, 2));
  return readProviders(path, { variable: (name) => variables[name], production: true });
}

const reference = (name: string) => `$${'{'}${name}}`;

function mistakesOf(rows: readonly object[]): readonly string[] {
  try {
    read(rows);
    return [];
  } catch (error) {
    if (!(error instanceof CatalogueError)) throw error;
    return error.mistakes.map(({ field, message }) => `${field}: ${message}`);
  }
}

/** Verifies with the keys of the fake issuer, at a time at which the fixtures are valid. */
function verifier(rows: readonly object[]): TokenVerifier {
  const clock = new ManualClock();
  clock.set(1_800_000_100_000 - clock.now());
  const providers = read(rows).map((provider) => ({ ...provider, keys: { url: issuer.keysUrl } }));
  return new TokenVerifier({ clock, logger: silentLogger, metrics: new Metrics() }, providers);
}

async function refusalOf(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof TollgateError)) return 'accepted';
  return error.cause instanceof TokenFault ? error.cause.claim : error.code;
}

it('has a fixture of every preset', () => {
  expect(VENDOR_TOKENS.map(({ row }) => row.preset).toSorted()).toEqual([...PRESET_NAMES].toSorted());
});

describe.each(VENDOR_TOKENS.map((token) => [token.row.preset, token] as const))('a token of %s', (_name, vendor) => {
  const { row, header, claims, expected, refused, derivesTokenId } = vendor;
  const signed = (changes: object) => issuer.sign({ ...claims, ...changes }, { ...header, kid: issuer.kid });

  it('is read with the preset, beside the other providers', async () => {
    const others = VENDOR_TOKENS.filter((other) => other !== vendor).map((other, at) => {
      return { ...other.row, user_prefix: `${at}:` };
    });
    const identity = await verifier([row, ...others]).verifyAccess(signed({}), 'header');
    expect(identity).toMatchObject({ ...expected, provider: 'provider-0' });
    expect(identity.tokenId).toMatch(derivesTokenId ? /^[\w-]{43}$/ : /./);
  });

  it.each(refused)('is refused when it is %s, and the log names the claim', async (_what, changes, claim) => {
    expect(await refusalOf(verifier([row]).verifyAccess(signed(changes), 'header'))).toBe(claim);
  });
});

describe('a provider of the file', () => {
  const ROW = { issuer: 'https://issuer.example.com', audiences: ['tollgate'] };
  const CLAIMS = { iss: ROW.issuer, aud: 'tollgate', sub: 'ada', iat: 1_800_000_000, exp: 1_800_000_600 };
  const accept = (row: object, claims: object) => {
    return verifier([{ ...ROW, ...row }]).verifyAccess(issuer.sign({ ...CLAIMS, ...claims }), 'header');
  };

  it('maps claims by JSON Pointer, with the first match of a literal map and a default', async () => {
    const plan = { from: ['/https:~1~1example.com/tier', 'groups'], map: { gold: 'enterprise', silver: 'pro' } };
    const row = { claims: { plan: { ...plan, default: 'free' }, tenant: '/org/id' } };
    expect(await accept(row, { groups: ['silver', 'gold'], org: { id: 'acme' } })).toMatchObject({
      plan: 'enterprise',
      tenant: 'acme',
    });
    expect(await accept(row, { 'https://example.com': { tier: 'silver' } })).toMatchObject({ plan: 'pro' });
    expect(await accept(row, {})).toMatchObject({ plan: 'free', tenant: undefined });
  });

  it('cannot reach the prototype with a path of its mapping', async () => {
    const row = { claims: { tenant: '/__proto__/constructor/name', display_name: '/constructor/name' } };
    expect(await accept(row, {})).toMatchObject({ tenant: undefined, displayName: undefined });
  });

  it('requires the claims that it names, with one of the values', async () => {
    const row = { required: [{ claim: 'email_verified', values: [true] }, { claim: '/org/id' }] };
    expect(await refusalOf(accept(row, { org: { id: 1 } }))).toBe('email_verified');
    expect(await refusalOf(accept(row, { email_verified: true, org: { id: null } }))).toBe('/org/id');
    expect(await refusalOf(accept(row, { email_verified: true, org: { id: 1 } }))).toBe('accepted');
  });

  it('separates its users from those of another provider by its prefix', async () => {
    expect(await accept({ user_prefix: 'acme:' }, {})).toMatchObject({ userId: 'acme:ada' });
    expect(await refusalOf(accept({ user_prefix: 'service:' }, {}))).toBe('sub');
  });

  it('accepts tokens with at_hash only if its ID tokens are access tokens', async () => {
    expect(await refusalOf(accept({}, { at_hash: 'h' }))).toBe('at_hash');
    expect(await refusalOf(accept({ id_tokens: true }, { at_hash: 'h' }))).toBe('accepted');
  });

  it('tolerates the clock skew of its row', async () => {
    expect(await refusalOf(accept({}, { nbf: 1_800_000_110 }))).toBe('nbf');
    expect(await refusalOf(accept({ clock_skew_seconds: 10 }, { nbf: 1_800_000_110 }))).toBe('accepted');
    expect(await refusalOf(accept({ clock_skew_seconds: 10 }, { exp: 1_800_000_091 }))).toBe('accepted');
  });

  it('makes the own token of a client a service with mapped scopes, and never a user', async () => {
    const services = [
      { client: 'billing-job', service_id: 'billing', scopes: [], scope_map: { 'usage.read': 'usage:read' } },
    ];
    const tokens = verifier([{ ...ROW, services }]);
    const own = { ...CLAIMS, sub: 'billing-job', azp: 'billing-job', scope: 'usage.read other' };
    const service = await tokens.verifyService(issuer.sign(own));
    expect(service).toMatchObject({ serviceId: 'billing', scopes: ['usage:read'] });
    expect(await refusalOf(tokens.verifyAccess(issuer.sign(own), 'header'))).toBe('sub');
    // A user who logged in through the client of the service is a user.
    const users = issuer.sign({ ...own, sub: 'ada' });
    expect(await refusalOf(tokens.verifyService(users))).toBe('sub');
    expect(await refusalOf(tokens.verifyAccess(users, 'header'))).toBe('accepted');
    const other = issuer.sign({ ...own, sub: 'other', azp: 'other' });
    expect(await refusalOf(tokens.verifyService(other))).toBe('client_id or azp or sub');
  });

  it('never makes a subject that looks like that of a service one', async () => {
    const token = issuer.sign({ ...CLAIMS, sub: 'service:billing', token_use: 'service', scope: 'admin' });
    expect(await refusalOf(verifier([ROW]).verifyService(token))).toBe('client_id or azp or sub');
    const other = issuer.sign({ ...CLAIMS, sub: 'service:billing', token_use: 'access', scope: 'admin' });
    expect(await refusalOf(verifier([ROW]).verifyService(other))).toBe('sub');
  });

  it.each<[string, readonly object[], string]>([
    ['no audience', [{ issuer: ROW.issuer }], 'needs audiences'],
    ['a plain http issuer in production', [{ ...ROW, issuer: 'http://issuer.example.com' }], 'plain http'],
    ['an issuer that is no URL', [{ ...ROW, issuer: 'issuer' }], 'must be an absolute'],
    ['WorkOS without the keys of the client', [{ preset: 'workos', issuer: ROW.issuer }], 'keys_url'],
    ['refresh tokens without their client', [{ ...ROW, refresh: 'refresh_token' }], 'needs the client'],
    ['an unknown field', [{ ...ROW, audience: 'x' }], 'is not a field'],
    ['an unknown mapped field', [{ ...ROW, claims: { role: 'x' } }], 'claims'],
    ['a secret in the file', [{ ...ROW, client: { id: 'a', secret: 'hunter2' } }], 'client.secret'],
    ['a missing secret', [{ ...ROW, client: { id: 'a', secret: reference('IDP_SECRET') } }], 'is not set'],
    [
      'a secret of Tollgate',
      [{ ...ROW, client: { id: 'a', secret: reference('SERVICE_SECRET') } }],
      'must not be sent',
    ],
    ['two providers of one issuer', [ROW, { ...ROW, user_prefix: 'b:' }], 'another provider'],
    ['two providers without prefixes', [ROW, { ...ROW, issuer: 'https://b.example.com' }], 'prefix of another'],
  ])('is reported with its field for %s', (_what, rows, text) => {
    expect(mistakesOf(rows).join('\n')).toContain(text);
  });

  it('may share its users with another one if both say so', () => {
    const shared = { ...ROW, shared_users: true };
    expect(mistakesOf([shared, { ...shared, issuer: 'https://b.example.com' }])).toEqual([]);
  });
});
