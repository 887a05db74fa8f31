import { createHmac } from 'node:crypto';
import { type Node, parseTree } from 'jsonc-parser';
import { defaultProvider } from '../../src/auth/providers/identity-provider.ts';
import { TokenVerifier } from '../../src/auth/tokens.ts';
import { userIdOf } from '../../src/auth/user-id.ts';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { hasJoseHeader, isCanonical, jsonObject } from '../../src/lib/jws.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { decodeCursor, encodeCursor } from '../../src/usage/ledger/feed-cursor.ts';
import { isTableError, require, requireSame, type Target } from '../lib/target.ts';

/** Of the fuzzer alone; nothing else accepts it. */
const KEY = 'key of the fuzz targets, which no process uses';
const NOW_SECONDS = 1_800_000_000;
const PROVIDER = {
  ...{ issuer: 'https://auth.example.test', audience: 'tollgate', secrets: [KEY], jwksUrl: undefined },
  acceptedTypes: ['at+jwt', 'JWT', 'none'],
};
const HEADER = '{"alg":"HS256","typ":"at+jwt"}';
const CLAIMS = {
  ...{ iss: PROVIDER.issuer, aud: PROVIDER.audience, sub: 'user_1', iat: NOW_SECONDS, exp: NOW_SECONDS + 60 },
  ...{ jti: 'j', sid: 's', email: 'a@b.test', plan: 'pro', permissions: ['basic'], roles: ['admin'] },
  ...{ feature_flags: { a: true }, token_use: 'access' },
};
const CLAIM_WORDS = [...Object.keys(CLAIMS), 'nbf', 'scope', 'cnf', 'nonce', 'client_id', 'service:', '1e11', '0.5'];

const clock: Clock = { ...systemClock, now: () => NOW_SECONDS * 1_000 };
const verifier = new TokenVerifier({ clock, logger: { error() {}, info() {}, warn() {} }, metrics: new Metrics() }, [
  defaultProvider(PROVIDER),
]);

function base64url(text: string | Buffer): string {
  return Buffer.from(text).toString('base64url');
}

function signed(header: string | Buffer, payload: string | Buffer): string {
  const text = `${base64url(header)}.${base64url(payload)}`;
  return `${text}.${createHmac('sha256', KEY).update(text).digest('base64url')}`;
}

const VALID = signed(HEADER, JSON.stringify(CLAIMS));

const token: Target = {
  name: 'token-text',
  seeds: [VALID, VALID.split('.').slice(0, 2).join('.'), `${base64url('{"alg":"none"}')}.${base64url('{}')}.`, 'a.b.c'],
  words: ['.', '=', '-', '_', 'eyJ', base64url('{"alg":"none"}'), base64url(HEADER)],
  maxBytes: 8_192,
  async run(input) {
    const text = input.toString('latin1');
    isCanonical(text);
    hasJoseHeader(text);
    const identity = await verifier.verifyAccess(text, 'header');
    // Any other text would need the key.
    require(text === VALID, `only the signed text is accepted: ${identity.userId}`);
  },
};

const claims: Target = {
  name: 'token-claims',
  seeds: [JSON.stringify(CLAIMS), JSON.stringify({ ...CLAIMS, aud: ['a', 'tollgate'], scope: 'a b', exp: 1.9e9 })],
  words: CLAIM_WORDS,
  maxBytes: 6_000,
  async run(input) {
    const identity = await verifier.verifyAccess(signed(HEADER, input), 'header');
    const { userId, permissions, roles, tokenExpiresAt, tokenId, sessionId = '', plan, email = '' } = identity;
    const { iss, sub, exp } = JSON.parse(input.toString('utf8')) as Record<string, unknown>;
    require(iss === PROVIDER.issuer && userId === userIdOf(String(sub)), 'the user is the subject of the issuer');
    require(!userId.startsWith('service:') && userId.length <= 255 * 12, 'a user is no service');
    require(tokenExpiresAt === Math.floor(Number(exp) * 1_000), 'the token ends when it says');
    require(tokenExpiresAt > clock.now() - 6_000, 'an ended token is refused');
    const names = [...permissions, ...roles, plan];
    require(names.every((name) => name.length <= 64) && names.length <= 129, 'lists are bounded');
    require(tokenId.length <= 128 && sessionId.length <= 128 && email.length <= 320, 'ids are bounded');
  },
};

const headers: Target = {
  name: 'token-header',
  seeds: [HEADER, '{"alg":"HS256"}', '{"alg":"RS256","kid":"1"}', '{"alg":"HS256","crit":["exp"],"b64":false}'],
  words: [
    'alg',
    'typ',
    'kid',
    'crit',
    'b64',
    'jku',
    'jwk',
    'x5u',
    'zip',
    'enc',
    'cty',
    'none',
    'HS256',
    'HS512',
    'JWT',
  ],
  maxBytes: 6_000,
  async run(input) {
    await verifier.verifyAccess(signed(input, JSON.stringify(CLAIMS)), 'header');
    const { alg, typ, crit } = JSON.parse(input.toString('utf8')) as Record<string, unknown>;
    require(alg === 'HS256' && crit === undefined, 'an accepted header has the algorithm of the configuration');
    const accepted = typ === undefined || typ === null || /^(application\/)?(at\+jwt|jwt)$/i.test(String(typ));
    require(accepted, `an accepted header has an accepted type: ${JSON.stringify(typ)}`);
  },
};

/** Whether an object in the text has two members of one name, by the tree of another parser. */
function hasDuplicates(node: Node): boolean {
  const names = node.type === 'object' ? (node.children ?? []).map(({ children = [] }) => children[0]?.value) : [];
  return new Set(names).size < names.length || (node.children ?? []).some(hasDuplicates);
}

const MAX_TREE_BYTES = 2_048;

const json: Target = {
  name: 'token-json',
  seeds: [
    JSON.stringify(CLAIMS),
    '{"a":1,"a":1}',
    '{"a":{"b":":","c":[{"d":"\\":"}]}}',
    '\ufeff{}',
    '{"\\u0061":1,"a":1}',
  ],
  words: ['"a":', '\\"', ':', '{', '}', '\\u0061'],
  maxBytes: MAX_TREE_BYTES,
  run(input) {
    const found = jsonObject(base64url(input));
    if (found === undefined) return;
    const text = input.toString('utf8');
    requireSame(found, JSON.parse(text), 'the object is that of the text');
    const tree = parseTree(text);
    require(tree !== undefined && !hasDuplicates(tree), 'an object with duplicate names is refused');
  },
};

const subject: Target = {
  name: 'subject',
  seeds: ['user_1', 'auth0|abc', 'service:billing', 'ä ö%20', 'user@example.test'],
  words: ['service:', '%', '%25', ' ', '{', '}'],
  maxBytes: 2_048,
  run(input) {
    const text = input.toString('utf8');
    const id = userIdOf(text);
    if (id === undefined) return;
    require(/^[\w.@:+|/=~,!$%-]+$/.test(id), 'a user id has safe characters only');
    require(decodeURIComponent(id) === text, 'different subjects have different ids');
  },
};

const cursor: Target = {
  name: 'usage-cursor',
  seeds: [
    '',
    '0',
    encodeCursor({ sequence: 7, hash: '0123456789abcdef' }),
    base64url('u1.9007199254740993.0123456789abcdef'),
  ],
  words: ['=', '-', base64url('u1.0.'), base64url('u1.')],
  maxBytes: 256,
  run(input) {
    const text = input.toString('latin1');
    const position = decodeCursor(text);
    if (!position || text === '' || text === '0') return;
    require(encodeCursor(position) === text, 'a cursor has one spelling');
    require(Number.isSafeInteger(position.sequence), 'the sequence of a cursor is exact');
  },
};

export const TOKEN_TARGETS: readonly Target[] = [token, claims, headers, json, subject, cursor].map((target) => ({
  isRefusal: isTableError,
  ...target,
}));
