import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import {
  answeredProtocol,
  findCredential,
  findTicket,
  requestedProtocols,
  serviceCredential,
  unpaddedProtocols,
} from '../../src/auth/credentials.ts';
import { parseTraceParent } from '../../src/lib/tracing.ts';
import { acceptedTypes } from '../../src/mcp/accepted-types.ts';
import { clientAddress, groupedAddress } from '../../src/transports/client-address.ts';
import { checkQuery, sessionId } from '../../src/transports/engine-requests.ts';
import {
  handedOverToken,
  presentedCredentials,
  requestTarget,
  requestUrl,
  resumePoint,
} from '../../src/transports/handshake-request.ts';
import { Origins } from '../../src/transports/origins.ts';
import { checkUpgradeForm } from '../../src/transports/upgrade-form.ts';
import { require, requireSame, type Target } from '../lib/target.ts';

/** Node reads header values as Latin-1 and bounds a head to 16 KiB. */
const MAX_HEAD_BYTES = 16_384;
const PEER = '192.0.2.200';
const TOKEN = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c2VyXzEifQ.c2lnbmF0dXJl';

/** A request as Node presents it. */
function requestOf(parts: {
  readonly url?: string;
  readonly headers?: Readonly<Record<string, string>>;
}): IncomingMessage {
  const headers = parts.headers ?? {};
  const headersDistinct = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, [value]]));
  const socket = { remoteAddress: PEER };
  return {
    method: 'GET',
    httpVersion: '1.1',
    url: parts.url ?? '/',
    headers,
    headersDistinct,
    socket,
    rawHeaders: [],
  } as unknown as IncomingMessage;
}

const clientAddressTarget: Target = {
  name: 'x-forwarded-for',
  seeds: [
    '192.0.2.1',
    '192.0.2.1:4711, [2001:db8::1]:443',
    '::ffff:192.0.2.1',
    '2001:db8:7:1::1,10.0.0.1',
    '1.2.3.4,,5.6.7.8',
  ],
  words: ['::', ':', ',', '[', ']', '::ffff:', '%eth0', '.0', 'unknown', '_hidden', 'for='],
  maxBytes: MAX_HEAD_BYTES,
  run(input) {
    const header = input.toString('latin1');
    for (const hops of [0, 1, 2, 7]) {
      const address = clientAddress(requestOf({ headers: { 'x-forwarded-for': header } }), hops);
      const network = address.endsWith('::/64');
      require(isIP(network ? address.replace('/64', '') : address) !== 0, `"${address}" is an address or a /64`);
      require(network || isIP(address) === 4, `"${address}" is no single IPv6 address`);
      if (hops === 0) require(address === PEER, 'without trusted proxies the address is that of the socket');
    }
    const entry = header.trim();
    if (isIP(entry) !== 6) return;
    const grouped = groupedAddress(entry);
    require(grouped === groupedAddress(entry.toUpperCase()), 'spellings of one address are counted together');
    const canonical = new URL(`http://[${entry.split('%')[0]}]`).hostname.slice(1, -1);
    require(grouped === groupedAddress(canonical), `${entry} is counted as ${canonical}`);
  },
};

const ALLOWED = 'https://app.example.test';
const PUBLIC = 'https://gateway.example.test';

const originTarget: Target = {
  name: 'origin',
  seeds: [
    ALLOWED,
    PUBLIC,
    'http://127.0.0.1:8000\n127.0.0.1:8000',
    'http://[::1]:1\n[::1]:1',
    'null',
    'http://localhost\nlocalhost',
  ],
  words: [
    'https://',
    'http://',
    'localhost',
    '127.0.0.1',
    '[::1]',
    ':443',
    ':80',
    '@',
    '/',
    '\n',
    '.evil.test',
    ALLOWED,
  ],
  maxBytes: MAX_HEAD_BYTES,
  run(input) {
    const [origin = '', host = '', proto = ''] = input.toString('latin1').split('\n');
    const origins = new Origins({ allowed: [ALLOWED], publicUrl: `${PUBLIC}/path`, trustedProxyHops: 1 });
    const headers = { origin, host, 'x-forwarded-proto': proto };
    if (!origins.allow(requestOf({ headers })) || origin === ALLOWED || origin === PUBLIC) return;
    const [scheme, authority = ''] = origin.split('://');
    require(scheme === 'http' || scheme === 'https', 'an own origin is one of HTTP');
    const name = authority.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
    require(name === 'localhost' || isIP(name) !== 0, `${origin} has a host that DNS cannot change`);
    require(host.trim().toLowerCase().includes(name) || isIP(name) !== 0, `${origin} is that of the Host ${host}`);
  },
};

const credentialTarget: Target = {
  name: 'credentials',
  seeds: [
    `Bearer ${TOKEN}`,
    `jwt-auth, jwt.${Buffer.from(TOKEN).toString('base64url')}==`,
    `jwt-auth.${TOKEN}`,
    'DPoP x',
    'Service-Token a.b.c',
  ],
  words: ['Bearer ', 'jwt.', 'jwt-auth', ', ', '=', 'Service-Token ', TOKEN, 'x-service-id'],
  maxBytes: MAX_HEAD_BYTES,
  run(input) {
    const text = input.toString('latin1');
    const readers = [
      () => findCredential({ authorization: text }),
      () => findCredential({ 'sec-websocket-protocol': text }),
      () => findCredential({}, text),
      () => findCredential({ authorization: text, 'sec-websocket-protocol': text }, text),
      () => serviceCredential({ token: text, serviceId: 'a', context: 'service:a' }),
    ];
    const outcomes = readers.map(settled);
    for (const { value } of outcomes) {
      if (value)
        require(/^[\w-]+\.[\w-]+\.[\w-]+$/.test(value.token) && value.token.length <= 8_192, 'a token is a JWT');
    }
    const requested = settled(() => requestedProtocols({ 'sec-websocket-protocol': text })).value ?? [];
    const answered = answeredProtocol(new Set(requested), ['jwt-auth']);
    require(answered === false || requested.includes(answered), 'the answer is one of the offered protocols');
    const unpadded = settled(() => unpaddedProtocols({ 'sec-websocket-protocol': text })).value;
    if (unpadded !== undefined) {
      require(unpaddedProtocols({ 'sec-websocket-protocol': unpadded }) === unpadded, 'padding is removed once');
    }
    const ticket = settled(() => findTicket([text])).value;
    if (ticket !== undefined) {
      require(Buffer.from(ticket, 'base64url').toString('base64url') === ticket, 'a ticket has one spelling');
    }
    settled(() => handedOverToken(text));
    const failed = outcomes.find(({ error }) => error !== undefined);
    if (failed) throw failed.error;
  },
};

/** The result of a reader; its refusal is rethrown at the end, so that each reader sees the input. */
function settled<T>(read: () => T): { readonly value?: T; readonly error?: unknown } {
  try {
    return { value: read() };
  } catch (error) {
    return { error };
  }
}

const targetTarget: Target = {
  name: 'request-target',
  seeds: [
    '/ws/secure?ticket=abc',
    '/socket.io/?EIO=4&transport=websocket&sid=x',
    'http://a.test/ws?x=1',
    '/ws/user%20_1',
    '//ws',
  ],
  words: [
    '?',
    '&',
    '=',
    '%',
    'sid=',
    'ticket=',
    'EIO=4',
    'transport=websocket',
    'j=0',
    'http://',
    '//',
    '#',
    '@',
    '\\',
    '/../',
    '/%2e',
  ],
  maxBytes: MAX_HEAD_BYTES,
  run(input) {
    const url = input.toString('latin1');
    const request = requestOf({ url });
    const target = requestTarget(request);
    require(target.length <= url.length, 'a target is not longer than what was sent');
    const path = requestUrl(request)?.pathname;
    const segments = path === undefined ? [] : target.split('?', 1).flatMap((sent) => sent.split('/'));
    require(path === undefined || path.split('/').length === segments.length, 'a path keeps its segments');
    const sid = sessionId(request);
    require(sid !== '', 'an empty session id counts as absent');
    const { tickets } = presentedCredentials(request);
    require(tickets.every((ticket) => typeof ticket === 'string'), 'tickets are texts');
    settled(() => findTicket(tickets));
    settled(() => checkQuery(request, false));
    checkQuery(request, true);
  },
};

const upgradeTarget: Target = {
  name: 'upgrade-form',
  seeds: ['gateway:8000\n13\ndGhlIHNhbXBsZSBub25jZQ==\n', 'a\n8\nx\n', '[::1]:80\n13\ndGhlIHNhbXBsZSBub25jZQ==\n0'],
  words: ['\n', '13', '==', 'localhost', '[::1]', ':65536', '0', 'chunked'],
  maxBytes: MAX_HEAD_BYTES,
  run(input) {
    const [host = '', version = '', key = '', length = ''] = input.toString('latin1').split('\n');
    const named = { host, 'sec-websocket-version': version, 'sec-websocket-key': key, 'content-length': length };
    const headers = Object.fromEntries(Object.entries(named).filter(([, value]) => value !== ''));
    const request = Object.assign(requestOf({ headers }), { rawHeaders: ['Host', host] });
    checkUpgradeForm(request, Buffer.alloc(0));
    require(version === '13' && Buffer.from(key, 'base64').length === 16, 'an accepted handshake is one of RFC 6455');
  },
};

const traceTarget: Target = {
  name: 'traceparent',
  seeds: [
    '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    'cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x',
  ],
  words: ['-', '00', 'ff', '01', '0'.repeat(32), '0'.repeat(16)],
  run(input) {
    const text = input.toString('latin1');
    const read = parseTraceParent(text);
    if (read === undefined) return;
    require(/^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/.test(read), 'an accepted parent has the form of version 00');
    require(parseTraceParent(read) === read, 'an accepted parent is accepted again');
    require(text.includes(read.slice(3)), 'an accepted parent is part of the header');
  },
};

const acceptTarget: Target = {
  name: 'accept',
  seeds: ['application/json, text/event-stream', '*/*;q=0.1', 'text/*;q=0, application/json;q=1.000', 'text/html'],
  words: ['application/json', 'text/event-stream', '*/*', ';q=', '0', '1', ',', 'text/*'],
  run(input) {
    const text = input.toString('latin1');
    const types = acceptedTypes(text);
    requireSame(acceptedTypes(text.toUpperCase()), types, 'the case of a media type does not matter');
    if (!/json|\*/i.test(text) && text.trim() !== '') require(!types.json, 'JSON is accepted only if it is named');
  },
};

const positionTarget: Target = {
  name: 'resume-point',
  seeds: ['12\nepoch_1', '0\ne', '-1\ne', '9007199254740993\ne'],
  words: ['\n', '0', '9007199254740991', '1e3', ' 1'],
  run(input) {
    const [after, epoch] = input.toString('utf8').split('\n');
    for (const value of [after, Number(after), null]) {
      const { value: point } = settled(() => resumePoint(value, epoch));
      if (!point) continue;
      require(Number.isSafeInteger(point.after) && point.after >= 0, 'a position is a whole number');
      requireSame(resumePoint(String(point.after), point.epoch), point, 'a position is read from its text');
    }
    resumePoint(after, epoch);
  },
};

export const HEAD_TARGETS: readonly Target[] = [
  clientAddressTarget,
  originTarget,
  credentialTarget,
  targetTarget,
  upgradeTarget,
  traceTarget,
  acceptTarget,
  positionTarget,
];
