import { createHmac, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import jwt from 'jsonwebtoken';
import { TokenVerifier } from '../../src/auth/tokens.ts';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { TollgateError } from '../../src/protocol/errors.ts';
import { silentLogger } from '../support/core.ts';
import { providerOf } from '../support/identity-providers.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { closeAfter } from '../support/open-resources.ts';
import { until } from '../support/until.ts';

const rsa = generateKeyPairSync('rsa', { modulusLength: 2_048 });
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const stranger = generateKeyPairSync('rsa', { modulusLength: 2_048 });

const RSA_1 = { ...rsa.publicKey.export({ format: 'jwk' }), kid: 'rsa-1', use: 'sig', alg: 'RS256' };
const EC_1 = { ...ec.publicKey.export({ format: 'jwk' }), kid: 'ec-1', use: 'sig', alg: 'ES256' };

let server: Server;
let jwksUrl: string;
let requests = 0;
/** The published keys; undefined for an outage. */
let published: readonly object[] | undefined;

/** Replaces the response. */
let fault: ((response: ServerResponse) => void) | undefined;

beforeEach(() => {
  fault = undefined;
  published = [RSA_1, EC_1];
});
beforeAll(async () => {
  server = createServer((_request, response) => {
    requests += 1;
    if (fault) return fault(response);
    response.statusCode = published ? 200 : 503;
    response.setHeader('content-type', 'application/json').end(JSON.stringify({ keys: published ?? [] }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  jwksUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks.json`;
});
afterAll(() => {
  server.closeAllConnections();
  return new Promise((resolve) => server.close(resolve));
});

const CLAIMS = { iss: 'https://issuer.test', aud: 'tollgate', sub: 'user_1', jti: 'j' };

function verifier(url = jwksUrl, clock: Clock = systemClock): TokenVerifier {
  const deps = { clock, logger: silentLogger, metrics: new Metrics() };
  return new TokenVerifier(deps, [providerOf({ issuer: CLAIMS.iss, jwksUrl: url })]);
}

function* endless(): Generator<string> {
  for (;;) yield ' '.repeat(65_536);
}

function signed(key: KeyObject, algorithm: 'RS256' | 'ES256', keyid?: string): string {
  return jwt.sign(CLAIMS, key, { algorithm, expiresIn: 3_600, ...(keyid === undefined ? {} : { keyid }) });
}

async function codeOf(token: string, tokens = verifier()): Promise<string> {
  try {
    return `accepted ${(await tokens.verifyAccess(token, 'header')).userId}`;
  } catch (error) {
    if (error instanceof TollgateError) return error.code;
    throw error;
  }
}

describe('a token signed with a published key', () => {
  it('is taken, and its key asked for once', async () => {
    const tokens = verifier();
    const before = requests;
    for (let i = 0; i < 5; i++)
      expect(await codeOf(signed(rsa.privateKey, 'RS256', 'rsa-1'), tokens)).toMatch('accepted');
    expect(requests - before).toBe(1);
    expect(await codeOf(signed(ec.privateKey, 'ES256', 'ec-1'), tokens)).toBe('accepted user_1');
  });

  it('is VALIDATION_FAILED when its key is not the named one', async () => {
    expect(await codeOf(signed(stranger.privateKey, 'RS256', 'rsa-1'))).toBe('VALIDATION_FAILED');
    expect(await codeOf(signed(ec.privateKey, 'ES256', 'rsa-1'))).toBe('VALIDATION_FAILED');
    expect(await codeOf(signed(stranger.privateKey, 'RS256'))).toBe('VALIDATION_FAILED');
  });

  it('is accepted without kid, and with a kid when the only key has none', async () => {
    expect(await codeOf(signed(rsa.privateKey, 'RS256'))).toBe('accepted user_1');
    const { kid: _, ...unnamed } = RSA_1;
    published = [unnamed];
    expect(await codeOf(signed(rsa.privateKey, 'RS256'))).toBe('accepted user_1');
    expect(await codeOf(signed(rsa.privateKey, 'RS256', 'rsa-1'))).toBe('accepted user_1');
  });

  it('is accepted when an RSA and an EC key have the same kid', async () => {
    published = [RSA_1, { ...EC_1, kid: 'rsa-1' }];
    const tokens = verifier();
    expect(await codeOf(signed(rsa.privateKey, 'RS256', 'rsa-1'), tokens)).toBe('accepted user_1');
    expect(await codeOf(signed(ec.privateKey, 'ES256', 'rsa-1'), tokens)).toBe('accepted user_1');
  });

  it('is accepted although other rows of the set cannot be used', async () => {
    const encryption = { ...RSA_1, kid: 'enc', use: 'enc' };
    published = [
      null,
      7,
      {},
      { kty: 'RSA' },
      { kty: 'EC', crv: 'P-256' },
      { kty: 'oct', k: 'AA' },
      encryption,
      RSA_1,
    ] as object[];
    const tokens = verifier();
    expect(await codeOf(signed(rsa.privateKey, 'RS256', 'rsa-1'), tokens)).toBe('accepted user_1');
    expect(await codeOf(signed(rsa.privateKey, 'RS256', 'enc'), tokens)).toBe('AUTH_SERVICE_UNAVAILABLE');
  });

  it('is accepted with a new key under an old kid after the cool-down', async () => {
    const clock = new ManualClock();
    const tokens = verifier(jwksUrl, clock);
    expect(await codeOf(signed(rsa.privateKey, 'RS256', 'rsa-1'), tokens)).toBe('accepted user_1');
    published = [{ ...stranger.publicKey.export({ format: 'jwk' }), kid: 'rsa-1', use: 'sig', alg: 'RS256' }];
    clock.advance(10_000);
    expect(await codeOf(signed(stranger.privateKey, 'RS256', 'rsa-1'), tokens)).toBe('accepted user_1');
  });

  it('is VALIDATION_FAILED when the set has changed, but none of its new keys has signed it', async () => {
    const clock = new ManualClock();
    const tokens = verifier(jwksUrl, clock);
    expect(await codeOf(signed(rsa.privateKey, 'RS256', 'rsa-1'), tokens)).toBe('accepted user_1');
    const other = generateKeyPairSync('rsa', { modulusLength: 2_048 });
    published = [{ ...other.publicKey.export({ format: 'jwk' }), kid: 'rsa-1', use: 'sig', alg: 'RS256' }];
    clock.advance(10_000);
    expect(await codeOf(signed(stranger.privateKey, 'RS256', 'rsa-1'), tokens)).toBe('VALIDATION_FAILED');
    expect(await codeOf(signed(rsa.privateKey, 'RS256', 'rsa-1'), tokens)).toBe('VALIDATION_FAILED');
    expect(await codeOf(signed(other.privateKey, 'RS256', 'rsa-1'), tokens)).toBe('accepted user_1');
  });

  it('cannot be imitated with the public key as an HS256 secret', async () => {
    const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url');
    const now = Math.floor(Date.now() / 1000);
    const text = `${encode({ alg: 'HS256', kid: 'rsa-1' })}.${encode({ ...CLAIMS, iat: now, exp: now + 60 })}`;
    const secret = rsa.publicKey.export({ format: 'pem', type: 'spki' });
    const token = `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
    expect(await codeOf(token)).toBe('VALIDATION_FAILED');
  });

  it('is AUTH_SERVICE_UNAVAILABLE, not invalid, while the keys cannot be fetched', async () => {
    const tokens = verifier('http://127.0.0.1:1/jwks.json');
    expect(await codeOf(signed(rsa.privateKey, 'RS256', 'rsa-1'), tokens)).toBe('AUTH_SERVICE_UNAVAILABLE');
  });
});

describe('the set of published keys', () => {
  it('is fetched at the start, before the first token, and again every 10 s while there are no keys', async () => {
    const clock = new ManualClock();
    const tokens = verifier(jwksUrl, clock);
    fault = (response) => response.writeHead(500).end();
    const before = requests;
    closeAfter('test', tokens.start());
    await until(() => requests === before + 1);
    expect([tokens.ready, tokens.withoutKeys]).toEqual([false, ['default']]);
    fault = undefined;
    await until(() => {
      clock.advance(10_000);
      return tokens.ready;
    });
    expect(tokens.withoutKeys).toEqual([]);
  });

  const good = () => signed(rsa.privateKey, 'RS256', 'rsa-1');
  const unknown = (kid: string) => signed(stranger.privateKey, 'RS256', kid);

  const begun = (response: ServerResponse) => response.writeHead(200, { 'content-length': '5000' }).write('{"keys":[');
  it.each<[string, (response: ServerResponse) => void]>([
    ['breaks off', (response) => begun(response) && setTimeout(() => response.destroy(), 50)],
    ['stops in the middle', (response) => begun(response)],
    [
      'comes a byte at a time',
      (response) => {
        begun(response);
        const timer = setInterval(() => response.write(' '), 100);
        response.once('close', () => clearInterval(timer));
      },
    ],
    ['is no JSON', (response) => response.end('<html>')],
    ['is no set', (response) => response.end('null')],
    ['is a 404', (response) => response.writeHead(404).end('{"keys":[]}')],
    ['has no usable key', (response) => response.end('{"keys":[null]}')],
    ['has no end', (response) => void Readable.from(endless()).pipe(response)],
  ])('is fetched again when an answer %s', async (_what, answer) => {
    const clock = { ...systemClock, now: () => Date.now() + ahead };
    let ahead = 0;
    const tokens = verifier(jwksUrl, clock);
    fault = answer;
    expect(await codeOf(good(), tokens)).toBe('AUTH_SERVICE_UNAVAILABLE');
    fault = undefined;
    ahead = 10_000;
    expect(await codeOf(good(), tokens)).toBe('accepted user_1');
  });

  it('is fetched for a new key although the clock was set back', async () => {
    const clock = new ManualClock();
    const tokens = verifier(jwksUrl, clock);
    published = [EC_1];
    expect(await codeOf(good(), tokens)).toBe('AUTH_SERVICE_UNAVAILABLE');
    published = [EC_1, RSA_1];
    clock.set(-3_000);
    expect(await codeOf(good(), tokens)).toBe('accepted user_1');
  });

  it('is fetched once for any number of made-up keys, and they keep no good token out', async () => {
    const tokens = verifier();
    const before = requests;
    // The first few may belong to a rotation; further ones are refused, so that they count as failures.
    const codes: string[] = [];
    for (let i = 0; i < 50; i++) codes.push(await codeOf(unknown(`made-up-${i}`), tokens));
    expect(codes.slice(16)).toEqual(Array.from({ length: 34 }, () => 'VALIDATION_FAILED'));
    expect(await codeOf(good(), tokens)).toBe('accepted user_1');
    expect(requests - before).toBe(1);
  });

  it('is fetched once by all who ask at the same time', async () => {
    const tokens = verifier();
    const before = requests;
    const codes = await Promise.all(Array.from({ length: 20 }, () => codeOf(good(), tokens)));
    expect(new Set(codes)).toEqual(new Set(['accepted user_1']));
    expect(requests - before).toBe(1);
  });

  it('has a rotated key after the cool-down at the latest', async () => {
    const clock = new ManualClock();
    const tokens = verifier(jwksUrl, clock);
    expect(await codeOf(unknown('rsa-2'), tokens)).toBe('AUTH_SERVICE_UNAVAILABLE');
    published = [EC_1, { ...stranger.publicKey.export({ format: 'jwk' }), kid: 'rsa-2', use: 'sig', alg: 'RS256' }];
    const refused = await tokens.verifyAccess(unknown('rsa-2'), 'header').catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: 'AUTH_SERVICE_UNAVAILABLE', retryAfterMs: 10_000 });
    clock.advance(10_000);
    expect(await codeOf(unknown('rsa-2'), tokens)).toBe('accepted user_1');
    expect(await codeOf(good(), tokens)).toBe('AUTH_SERVICE_UNAVAILABLE');
  });

  it('makes a key that stays unknown for a minute VALIDATION_FAILED', async () => {
    const clock = new ManualClock();
    const tokens = verifier(jwksUrl, clock);
    expect(await codeOf(unknown('rsa-2'), tokens)).toBe('AUTH_SERVICE_UNAVAILABLE');
    clock.advance(60_000);
    expect(await codeOf(unknown('rsa-2'), tokens)).toBe('VALIDATION_FAILED');
  });

  it('keeps serving while the issuer is unavailable, and reports unknown keys as undecidable', async () => {
    const clock = new ManualClock();
    const tokens = verifier(jwksUrl, clock);
    expect(await codeOf(good(), tokens)).toBe('accepted user_1');
    published = undefined;
    clock.advance(11 * 60_000);
    expect(await codeOf(good(), tokens)).toBe('accepted user_1');
    expect(await codeOf(unknown('rsa-2'), tokens)).toBe('AUTH_SERVICE_UNAVAILABLE');
    expect(await codeOf(good(), tokens)).toBe('accepted user_1');
  });
});
