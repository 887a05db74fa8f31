import { createHmac } from 'node:crypto';
import { readIntrospection, readRefusal, readToken } from '../../src/auth/client/answers.ts';
import { Fault } from '../../src/auth/client/fault.ts';
import { Metadata } from '../../src/auth/client/metadata.ts';
import { TokenIntrospection } from '../../src/auth/introspection.ts';
import { defaultProvider } from '../../src/auth/providers/identity-provider.ts';
import { readKeySet } from '../../src/auth/providers/jwks.ts';
import { RunTokens } from '../../src/auth/run-tokens.ts';
import { type EndedSession, SessionEvents } from '../../src/auth/session-events.ts';
import { TokenVerifier } from '../../src/auth/tokens.ts';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { RequestStates } from '../../src/mcp/request-states.ts';
import { isTableError, require, type Target } from '../lib/target.ts';

/** Of the fuzzer alone; nothing else accepts it. */
const SECRET = 'secret of the identity targets, which no process uses';
const ISSUER = 'https://auth.example.test';
const NOW = 1_800_000_000_000;
const clock: Clock = { ...systemClock, now: () => NOW };
const quiet = { error() {}, info() {}, warn() {} };
const provider = defaultProvider({
  ...{ issuer: ISSUER, audience: 'tollgate', secrets: [SECRET], jwksUrl: undefined, acceptedTypes: ['at+jwt', 'JWT'] },
});

/** The JSON of a document; undefined for any other text, as the HTTP clients pass it on. */
function jsonOf(input: Buffer): unknown {
  try {
    return JSON.parse(input.toString('utf8'));
  } catch {
    return undefined;
  }
}

const EC = {
  ...{ kty: 'EC', crv: 'P-256', kid: '1', use: 'sig', alg: 'ES256' },
  // The example key of RFC 7517 appendix A.1.
  ...{ x: 'MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4', y: '4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM' },
};

const keySet: Target = {
  name: 'key-set',
  seeds: [
    JSON.stringify({ keys: [EC, { kty: 'oct', k: 'x' }, null] }),
    JSON.stringify({
      keys: [
        { ...EC, alg: null, use: 'enc' },
        { kty: 'RSA', n: '0vx7', e: 'AQAB' },
      ],
    }),
  ],
  words: [...Object.keys(EC), 'keys', 'RSA', 'n', 'e', 'AQAB', 'd', 'P-384', 'RS256', 'HS256', 'x5c', 'key_ops'],
  maxBytes: 8_192,
  isRefusal: (error) => error instanceof Error && error.message.startsWith('not a key set'),
  run(input) {
    const document = jsonOf(input);
    const { keys, ignored } = readKeySet(document);
    const listed = Object(document).keys.length;
    require(keys.length <= 100 && keys.length + ignored === listed, 'each row is a key or ignored');
    for (const { key, algorithms } of keys) {
      require(key.type === 'public' && algorithms.length > 0, 'a key is public');
      require(algorithms.every((name) => /^(RS|PS|ES)\d{3}$/.test(name)), 'no key verifies HMAC');
    }
  },
};

const metadata: Target = {
  name: 'metadata',
  seeds: [
    JSON.stringify({ issuer: ISSUER, token_endpoint: `${ISSUER}/token`, introspection_endpoint: 'http://auth:8081/i' }),
    JSON.stringify({ issuer: ISSUER, token_endpoint: 'https://other.test/token', grant_types_supported: ['x'] }),
  ],
  words: ['issuer', 'token_endpoint', 'introspection_endpoint', 'http://auth:8081/', ISSUER, '@', '\\', '//', 'https:'],
  maxBytes: 4_096,
  async run(input) {
    const json = jsonOf(input);
    const fetch = async (_url: URL, read: (answer: never) => unknown) => read({ status: 200, ok: true, json } as never);
    const service = new Metadata({ clock, logger: quiet, fetch } as never, { url: 'http://auth:8081', issuer: ISSUER });
    const { token, introspection } = await service.endpoints();
    require(Object(json).issuer === ISSUER, 'the metadata are those of the issuer');
    for (const url of [token, introspection ?? token]) {
      require(['http://auth:8081', ISSUER].includes(url.origin), 'the secret goes to the auth service only');
      require(url.username === '' && url.password === '', 'an endpoint has no credentials');
    }
  },
};

const answers: Target = {
  name: 'auth-answers',
  seeds: [
    JSON.stringify({ access_token: 'a', token_type: 'Bearer', expires_in: 60, refresh_token: 'r', active: true }),
    JSON.stringify({ active: true, sub: 'user_1', exp: 1.9e9, iss: ISSUER, aud: ['tollgate'], plan: 'pro', jti: 'j' }),
    '{"error":"invalid_grant","code":"TOKEN_REVOKED"}',
    '{"error":"temporarily_unavailable"}',
  ],
  words: [
    'active',
    'error',
    'code',
    'expires_in',
    'token_type',
    'sub',
    'exp',
    'iss',
    'aud',
    'jti',
    'sid',
    'scope',
    'typ',
  ],
  maxBytes: 4_096,
  isRefusal: (error) => error instanceof Fault || isTableError(error),
  async run(input) {
    const json = jsonOf(input);
    for (const status of [400, 401, 403]) {
      const refused = readRefusal({ status, json } as never);
      require(refused.code !== 'INTERNAL_ERROR', 'a refusal has a code of the table');
      require(!refused.message.includes(input.toString('utf8')) || input.length < 8, 'a refusal repeats no answer');
    }
    const failures: unknown[] = [];
    try {
      const { accessToken, expiresAt } = readToken(json, NOW);
      require(accessToken.length <= 8_192 && Number.isSafeInteger(expiresAt) && expiresAt > NOW, 'a token ends later');
    } catch (error) {
      failures.push(error);
    }
    try {
      const authService = { introspect: async () => readIntrospection(json) };
      const deps = { authService, clock, metrics: new Metrics() } as never;
      const introspection = new TokenIntrospection(deps, { mode: 'always', provider } as never);
      const { userId, tokenId, plan } = await introspection.identify('opaque', 'header');
      require(Object(json).active === true, 'an inactive token has no user');
      require(!userId.startsWith('service:') && tokenId.length <= 128 && plan.length <= 64, 'an identity is bounded');
    } catch (error) {
      failures.push(error);
    }
    if (failures.length > 0) throw failures.find((error) => !isTableError(error)) ?? failures[0];
  },
};

const REVOKED = 'https://schemas.openid.net/secevent/caep/event-type/session-revoked';
const LOGOUT = 'http://schemas.openid.net/event/backchannel-logout';
const EVENT = { iss: ISSUER, aud: 'tollgate', iat: NOW / 1_000, jti: 'j' };
const ended: EndedSession[] = [];
const tokens = new TokenVerifier({ clock, logger: quiet, metrics: new Metrics() }, [provider]);

const sessionEvent: Target = {
  name: 'session-event',
  seeds: [
    JSON.stringify({ ...EVENT, sub: 'user_1', sid: 's', events: { [LOGOUT]: {} } }),
    JSON.stringify({ ...EVENT, sub_id: { format: 'iss_sub', iss: ISSUER, sub: 'u' }, events: { [REVOKED]: {} } }),
    JSON.stringify({ ...EVENT, events: { [REVOKED]: { subject: { session: { id: 's' }, user: { sub: 'u' } } } } }),
  ],
  words: [LOGOUT, REVOKED, 'events', 'sub_id', 'subject', 'session', 'user', 'id', 'sub', 'sid', 'nonce', 'iat', 'jti'],
  maxBytes: 4_096,
  async run(input) {
    const parts = ['{"alg":"HS256"}', input].map((part) => Buffer.from(part).toString('base64url')).join('.');
    const token = `${parts}.${createHmac('sha256', SECRET).update(parts).digest('base64url')}`;
    const events = new SessionEvents({ tokens, end: async (one) => void ended.push(one) });
    const outcomes = await Promise.allSettled([events.logout(token), events.securityEvent(token)]);
    for (const one of ended.splice(0)) {
      if (one.kind === 'session') require(one.sessionId !== '' && one.sessionId.length <= 128, 'a session has an id');
      else require(one.userId !== '' && one.before <= NOW + 10_000, 'an event revokes no token of the future');
      require(Object(jsonOf(input)).iss === ISSUER, 'only the issuer ends sessions');
    }
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  },
};

const runTokens = new RunTokens({ clock }, SECRET);
const runToken = runTokens.issue({ userId: 'user_1', runId: 'run_1', expiresAt: NOW + 60_000 });
const states = new RequestStates({ clock }, { secret: SECRET, keptMs: 60_000 });
const request = { userId: 'user_1', method: 'tools/call', name: 't', args: {}, idempotencyKey: undefined } as const;
const state = states.seal(request, { server: 's', asked: 1 });

const sealed: Target = {
  name: 'sealed',
  seeds: [runToken, state, `${state.slice(0, -4)}AAAA`, `${runToken}A`, 'tgrun_', ''],
  words: ['tgrun_', '=', '/', '+', '-', '_', 'AAAA', runToken, state],
  maxBytes: 1_024,
  run(input) {
    const text = input.toString('latin1');
    const outcomes = [() => runTokens.read(`Bearer ${text}`), () => states.open(request, text)].map((open) => {
      try {
        return { opened: open() };
      } catch (error) {
        return { error };
      }
    });
    const [token, opened] = outcomes;
    // The scheme is compared without regard to case, the prefix with it.
    if (token?.opened) require(text.slice(6) === runToken.slice(6), 'only the issued token is one');
    if (opened?.opened) require(text === state, 'only the sealed state is one, in one spelling');
    for (const { error } of outcomes) if (error !== undefined) throw error;
  },
};

export const IDENTITY_TARGETS: readonly Target[] = [keySet, metadata, answers, sessionEvent, sealed];
