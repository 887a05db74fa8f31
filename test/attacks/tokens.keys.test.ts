import { createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { freePort } from '../../scripts/lib/ports.ts';
import { gateway, httpUrl } from '../../scripts/lib/tollgate-processes.ts';
import { type DecoyServer, startDecoyServer } from '../support/decoy-server.ts';
import { base64url, claimsWith, forgeToken, hs256 } from '../support/forged-tokens.ts';
import { closeAfter } from '../support/open-resources.ts';
import { acceptedAs, present, refusedWith } from '../support/presentations.ts';
import { stack } from '../support/stack.ts';
import { StackProcess } from '../support/stack-processes.ts';
import { freshUserId } from '../support/tokens.ts';

const rsa = generateKeyPairSync('rsa', { modulusLength: 2_048 });
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const attacker = generateKeyPairSync('rsa', { modulusLength: 2_048 });
const jwk = (key: KeyObject, kid: string, alg: string) => ({ ...key.export({ format: 'jwk' }), kid, use: 'sig', alg });

/** The issuer's keys, and a server of the attacker. */
let issuer: DecoyServer;
let lair: DecoyServer;
/** Gateways that verify by public keys only, by both, and by the secret only. */
const urls = { keys: '', both: '', secret: '' };

beforeAll(async () => {
  const published = [jwk(rsa.publicKey, 'rsa-1', 'RS256'), jwk(ec.publicKey, 'ec-1', 'ES256')];
  issuer = await startDecoyServer({ keys: published });
  lair = await startDecoyServer({ keys: [jwk(attacker.publicKey, 'rsa-1', 'RS256')] });
  urls.secret = stack().gateways[0]?.url ?? '';
  [urls.keys, urls.both] = await Promise.all([startGateway({}), startGateway({ JWT_SECRET_KEY: stack().secrets.jwt })]);
});

async function startGateway(env: Record<string, string>, probe = '/health/ready'): Promise<string> {
  const port = await freePort();
  const settings = {
    PATH: process.env.PATH,
    ENVIRONMENT: 'test',
    HOST: '127.0.0.1',
    LOG_LEVEL: 'warn',
    REDIS_URL: stack().redisUrl,
    REDIS_KEY_PREFIX: stack().keyPrefix,
    AUTH_SERVICE_URL: stack().authUrl,
    SERVICE_SECRET: stack().secrets.service,
    JWKS_URL: `${issuer.url}/jwks.json`,
    AUTH_FAILURES_PER_MINUTE: '1000000',
    PENDING_CONNECTIONS_PER_ADDRESS: '1000000',
    DRAIN_SECONDS: '0',
    ...env,
  };
  const startable = gateway({ name: `jwks-${port}`, port, env: settings });
  const isReady = () =>
    fetch(`${httpUrl(port)}${probe}`).then(
      ({ ok }) => ok,
      () => false,
    );
  const node = new StackProcess({ ...startable, isReady }, httpUrl(port));
  closeAfter('file', () => node.stop());
  await node.start();
  return node.url;
}

const rs256 = (key: KeyObject) => (text: string) => sign('sha256', Buffer.from(text), key);
const es256 = (key: KeyObject) => (text: string) =>
  sign('sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' });

/** Expects a refusal in every place of the gateways that verify this way. */
async function expectRefused(token: string, nodes: readonly (keyof typeof urls)[]): Promise<void> {
  const outcomes = await Promise.all(nodes.map(async (node) => [node, await present(token, { url: urls[node] })]));
  expect(outcomes).toEqual(nodes.map((node) => [node, refusedWith('VALIDATION_FAILED')]));
}

const EVERY = ['keys', 'both', 'secret'] as const;

describe('a gateway with JWKS_URL', () => {
  it('takes what the issuer has signed, so that refusals below mean something', async () => {
    for (const [alg, kid, by] of [
      ['RS256', 'rsa-1', rs256(rsa.privateKey)],
      ['ES256', 'ec-1', es256(ec.privateKey)],
    ] as const) {
      const sub = freshUserId();
      const token = forgeToken({ header: { alg, kid }, payload: claimsWith({ sub }), sign: by });
      for (const url of [urls.keys, urls.both]) {
        expect(await present(token, { url, inTurn: true })).toEqual(acceptedAs(sub));
      }
    }
    const sub = freshUserId();
    const token = forgeToken({ payload: claimsWith({ sub }) });
    expect(await present(token, { url: urls.both, inTurn: true })).toEqual(acceptedAs(sub));
  });

  const spki = rsa.publicKey.export({ format: 'pem', type: 'spki' });
  const pkcs1 = rsa.publicKey.export({ format: 'pem', type: 'pkcs1' });
  const published = jwk(rsa.publicKey, 'rsa-1', 'RS256');

  it.each<[string, string | Buffer]>([
    ['as PEM', spki],
    ['as PEM without its last line break', String(spki).trimEnd()],
    ['as PEM with CRLF', String(spki).replaceAll('\n', '\r\n')],
    ['as PKCS #1', pkcs1],
    ['as DER', rsa.publicKey.export({ format: 'der', type: 'spki' })],
    ['as its JWK', JSON.stringify(published)],
    ['as its modulus', Buffer.from(String(published.n), 'base64url')],
  ])('B50 is not taken in by HS256 with the public key %s for a secret', async (_form, secret) => {
    for (const kid of ['rsa-1', undefined]) {
      await expectRefused(forgeToken({ header: { alg: 'HS256', kid }, sign: hs256(secret) }), EVERY);
    }
  });

  it.each(['', '\0', 'undefined', 'null', 'secret', '[object Object]'])(
    'B50 that has no secret verifies HS256 by none, nor by %j',
    async (secret) => {
      await expectRefused(forgeToken({ header: { alg: 'HS256', kid: 'rsa-1' }, sign: hs256(secret) }), EVERY);
    },
  );

  it('B50 does not verify HS256 at all when it has public keys only, not even with the secret of the others', async () => {
    await expectRefused(forgeToken(), ['keys']);
  });

  it.each(['RS384', 'RS512', 'PS256', 'ES384', 'EdDSA', 'HS384', 'HS512', 'rs256', 'RS256 ', 'RSA-SHA256'])(
    'B50 takes no algorithm but those of its configuration, from the owner of the key either: %s',
    async (alg) => {
      await expectRefused(forgeToken({ header: { alg, kid: 'rsa-1' }, sign: rs256(rsa.privateKey) }), EVERY);
    },
  );

  it.each<[string, string, string, (text: string) => Buffer]>([
    ['RS256 for a key of ES256', 'RS256', 'ec-1', rs256(rsa.privateKey)],
    ['ES256 for a key of RS256', 'ES256', 'rsa-1', es256(ec.privateKey)],
    ['ES256 of zeros, which some verifiers took for everything', 'ES256', 'ec-1', () => Buffer.alloc(64)],
    ['ES256 in DER', 'ES256', 'ec-1', (text) => sign('sha256', Buffer.from(text), ec.privateKey)],
    ['RS256 of one byte', 'RS256', 'rsa-1', () => Buffer.from([1])],
    ['RS256 of zeros', 'RS256', 'rsa-1', () => Buffer.alloc(256)],
    ['the issuer’s signature of something else', 'RS256', 'rsa-1', (text) => rs256(rsa.privateKey)(`${text}.`)],
    ['the attacker’s own', 'RS256', 'rsa-1', rs256(attacker.privateKey)],
  ])('B50 B120 takes no signature that does not fit: %s', async (_what, alg, kid, by) => {
    await expectRefused(forgeToken({ header: { alg, kid }, sign: by }), EVERY);
  });
});

describe('the spelling of a signature', () => {
  const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

  it.each([
    ['RS256', 'rsa-1', rs256(rsa.privateKey)],
    ['ES256', 'ec-1', es256(ec.privateKey)],
  ] as const)(
    'B120 is one of sixteen that decode alike, and the others are refused before verification: %s',
    async (alg, kid, by) => {
      const sub = freshUserId();
      const token = forgeToken({ header: { alg, kid }, payload: claimsWith({ sub }), sign: by });
      const last = ALPHABET.indexOf(token.at(-1) ?? '');
      expect(last % 16).toBe(0);
      const bytesOf = (text: string) => Buffer.from(text.split('.')[2] ?? '', 'base64url');
      for (let bits = 1; bits < 16; bits++) {
        const spelling = `${token.slice(0, -1)}${ALPHABET[last + bits]}`;
        expect(bytesOf(spelling).equals(bytesOf(token))).toBe(true);
        await expectRefused(spelling, ['keys', 'both']);
      }
      expect(await present(token, { url: urls.keys, inTurn: true })).toEqual(acceptedAs(sub));
    },
  );

  it('B120 is judged in each part: one that the issuer signed with spare bits is refused too', async () => {
    const text = forgeToken({ header: { alg: 'RS256', kid: 'rsa-1' } }).split('.');
    const padded = [0, 1, 2].map((spaces) => base64url(`${JSON.stringify(claimsWith())}${' '.repeat(spaces)}`));
    const payload = padded.find((part) => part.length % 4 === 2) ?? '';
    const second = payload.slice(0, -1) + ALPHABET[ALPHABET.indexOf(payload.at(-1) ?? '') + 1];
    for (const [spelling, taken] of [
      [payload, true],
      [second, false],
    ] as const) {
      const signed = `${text[0]}.${spelling}`;
      const token = `${signed}.${base64url(rs256(rsa.privateKey)(signed))}`;
      const { header } = await present(token, { url: urls.keys, ways: ['header'] });
      expect(header).toMatch(taken ? /^user / : /^1008 VALIDATION_FAILED$/);
    }
  });
});

describe('a gateway that cannot reach the keys of its issuer', () => {
  it('B28 B96 B148 is not ready, says why, and reports its own fault', async () => {
    const url = await startGateway({ JWKS_URL: `${httpUrl(await freePort())}/jwks.json` }, '/health/live');
    const ready = await fetch(`${url}/health/ready`);
    expect([ready.status, await ready.json()]).toMatchObject([
      503,
      { status: 'not_ready', checks: { identity_keys: false, providers_without_keys: ['default'] } },
    ]);
    expect(await (await fetch(`${url}/metrics`)).text()).toContain('tollgate_identity_keys{provider="default"} 0');
    const code = 'AUTH_SERVICE_UNAVAILABLE';
    const closed = `1013 ${code}`;
    expect(await present(forgeToken({ header: { alg: 'RS256', kid: 'rsa-1' } }), { url })).toEqual({
      header: closed,
      subprotocol: closed,
      message: closed,
      socketio: `1005 ${code}`,
      ticket: `503 ${code}`,
      mcp: `503 ${code}`,
    });
    expect(await present(forgeToken(), { url })).toEqual(refusedWith('VALIDATION_FAILED'));
  });
});

describe('a token that says where its key is', () => {
  it('B50 is ignored, and the server at that address gets no request', async () => {
    const x5c = [createPublicKey(attacker.privateKey).export({ format: 'der', type: 'spki' }).toString('base64')];
    const key = jwk(attacker.publicKey, 'rsa-1', 'RS256');
    const oct = { kty: 'oct', k: base64url('attacker'), kid: 'rsa-1', alg: 'HS256' };
    const pointers: Record<string, unknown>[] = [
      { jku: `${lair.url}/jwks.json` },
      { jku: `${issuer.url}@${lair.url.slice('http://'.length)}/jwks.json` },
      { x5u: `${lair.url}/cert.pem`, x5t: 'AAAA' },
      { jwk: key },
      { jwk: oct },
      { x5c },
      { iss: lair.url, jwks_uri: `${lair.url}/jwks.json` },
      { jku: `${lair.url}/jwks.json`, jwk: key, x5c, x5u: `${lair.url}/cert.pem` },
    ];
    for (const pointer of pointers) {
      const header = { kid: 'rsa-1', ...pointer };
      await expectRefused(forgeToken({ header: { ...header, alg: 'RS256' }, sign: rs256(attacker.privateKey) }), EVERY);
      await expectRefused(forgeToken({ header: { ...header, alg: 'HS256' }, sign: hs256('attacker') }), EVERY);
    }
    const payload = claimsWith({ iss: lair.url });
    await expectRefused(
      forgeToken({ header: { alg: 'RS256', kid: 'rsa-1' }, payload, sign: rs256(attacker.privateKey) }),
      EVERY,
    );
    expect(lair.connections).toBe(0);
    // Shows that the server would have counted a request.
    await fetch(lair.url);
    expect(lair.connections).toBe(1);
  });
});

describe('the id of a key', () => {
  const hostile: readonly (readonly [string, string])[] = [
    ['a path', '../../../../../../dev/null'],
    ['SQL', "x' UNION SELECT 'attacker"],
    ['a URL', 'http://127.0.0.1:1/jwks.json'],
    ['5 kB', 'k'.repeat(5_000)],
  ];
  const noText: readonly (readonly [string, unknown])[] = [
    ['a number', 7],
    ['an object', { kid: 'rsa-1' }],
    ['a list', ['rsa-1']],
    ['true', true],
  ];

  it.each([...hostile, ...noText, ['empty', ''], ['a command', '|id'], ['a null byte', '\0'], ['a name', '__proto__']])(
    'B50 chooses no secret when it is %s',
    async (_what, kid) => {
      for (const key of ['', 'attacker']) {
        await expectRefused(forgeToken({ header: { alg: 'HS256', kid }, sign: hs256(key) }), ['secret', 'both']);
      }
    },
  );

  it.each(noText)('B50 names no public key when it is %s', async (_what, kid) => {
    await expectRefused(forgeToken({ header: { alg: 'RS256', kid }, sign: rs256(rsa.privateKey) }), ['keys', 'both']);
  });

  it.each([
    ['missing', undefined],
    ['null', null],
  ])('is optional: %s', async (_what, kid) => {
    const sub = freshUserId();
    const token = forgeToken({
      header: { alg: 'RS256', kid },
      payload: claimsWith({ sub }),
      sign: rs256(rsa.privateKey),
    });
    expect(await present(token, { url: urls.keys, inTurn: true })).toEqual(acceptedAs(sub));
    await expectRefused(forgeToken({ header: { alg: 'RS256', kid }, sign: rs256(attacker.privateKey) }), ['keys']);
  });

  it('B50 that the issuer does not publish is refused, and asked for six times a minute at most', async () => {
    const ways = ['header'] as const;
    const tokenOf = (kid: string) => forgeToken({ header: { alg: 'RS256', kid }, sign: rs256(attacker.privateKey) });
    for (const [, kid] of hostile) {
      const { header } = await present(tokenOf(kid), { url: urls.keys, ways });
      // A short one may belong to a key that is published in a moment.
      expect([kid, header]).toEqual([
        kid,
        kid.length > 256 ? '1008 VALIDATION_FAILED' : '1013 AUTH_SERVICE_UNAVAILABLE',
      ]);
    }
    const before = issuer.requests;
    for (let at = 0; at < 60; at++) await present(tokenOf(`unknown-${at}`), { url: urls.both, ways });
    expect(issuer.requests - before).toBeLessThanOrEqual(12);
    // Clients with a cached key do not wait for the request.
    const sub = freshUserId();
    const good = forgeToken({
      header: { alg: 'RS256', kid: 'rsa-1' },
      payload: claimsWith({ sub }),
      sign: rs256(rsa.privateKey),
    });
    expect(await present(good, { url: urls.both, inTurn: true })).toEqual(acceptedAs(sub));
  });
});
