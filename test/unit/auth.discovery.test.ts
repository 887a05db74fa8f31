import { afterAll, beforeAll, beforeEach, expect, it } from '@jest/globals';
import { KeySet } from '../../src/auth/key-set.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { silentLogger } from '../support/core.ts';
import { FakeIssuer } from '../support/fake-issuer.ts';
import { ManualClock } from '../support/manual-clock.ts';

const issuer = new FakeIssuer();
const OIDC = '/realms/main/.well-known/openid-configuration';
const RFC_8414 = '/.well-known/oauth-authorization-server/realms/main';

beforeAll(() => issuer.start());
afterAll(() => issuer.close());
beforeEach(() => {
  for (const path of [OIDC, RFC_8414]) issuer.routes.delete(path);
});

function serve(path: string, changes: object = {}): void {
  const document = { issuer: `${issuer.url}/realms/main`, jwks_uri: issuer.keysUrl, ...changes };
  issuer.routes.set(path, (_request, response) => response.end(JSON.stringify(document)));
}

async function discover(clock = new ManualClock()): Promise<{ keySet: KeySet; lines: unknown[] }> {
  const lines: unknown[] = [];
  const logger = {
    ...silentLogger,
    info: silentLogger.info,
    warn: silentLogger.warn,
    error: (line: unknown) => lines.push(line),
  };
  const source = { discover: `${issuer.url}/realms/main` };
  const keySet = new KeySet({ clock, logger, metrics: new Metrics() }, { name: 'main', source });
  await keySet.prefetch();
  return { keySet, lines };
}

it.each([OIDC, RFC_8414])('finds the keys of an issuer that serves %s only', async (path) => {
  serve(path);
  expect((await discover()).keySet.hasKeys).toBe(true);
});

it.each<[string, () => void]>([
  ['no metadata', () => undefined],
  ['metadata of another issuer', () => serve(OIDC, { issuer: 'https://evil.example.test' })],
  ['metadata without keys', () => serve(OIDC, { jwks_uri: undefined })],
  ['metadata with keys in a file', () => serve(OIDC, { jwks_uri: 'file:///etc/passwd' })],
  ['HTML', () => void issuer.routes.set(OIDC, (_request, response) => void response.end('<html>'))],
])('has no keys with %s, and logs it once per minute', async (_what, prepare) => {
  prepare();
  const clock = new ManualClock();
  const { keySet, lines } = await discover(clock);
  expect([keySet.hasKeys, lines.length]).toEqual([false, 1]);
  clock.advance(10_000);
  await keySet.prefetch();
  expect(lines).toHaveLength(1);
  clock.advance(60_000);
  await keySet.prefetch();
  expect(lines).toHaveLength(2);
});

it('has the keys as soon as an issuer that was away is back', async () => {
  const clock = new ManualClock();
  const { keySet } = await discover(clock);
  serve(OIDC);
  clock.advance(10_000);
  await keySet.prefetch();
  expect(keySet.hasKeys).toBe(true);
});
