import type { IncomingHttpHeaders } from 'node:http';
import { withoutTrailing } from '../lib/text.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { AuthMethod } from '../protocol/identity.ts';

/** A user's token as it was presented, and where. It is never logged and never echoed. */
export interface TokenCredential {
  readonly method: Extract<AuthMethod, 'header' | 'subprotocol' | 'handshake' | 'message'>;
  readonly token: string;
}

/** A service's token, and who its bearer says to be: all three must name the same service. */
export interface ServiceCredential {
  readonly method: 'service';
  readonly token: string;
  readonly serviceId: string;
  /** `service:<id>`: a service speaks for itself, never for a user. */
  readonly context: string;
}

export type Credential = TokenCredential | ServiceCredential;

/** What a message presents: `auth` a user's token, `service_auth` a service's. */
export type InBandCredential =
  | { readonly kind: 'user'; readonly token: string | undefined }
  | ({ readonly kind: 'service'; readonly token: string | undefined } & ServiceNames);

interface ServiceNames {
  readonly serviceId: unknown;
  readonly context: unknown;
}

/** A token longer than this is not read: the longest of ours is a tenth of it. */
export const MAX_TOKEN_BYTES = 8_192;

/** An `Authorization` header: the longest token, its scheme, and space between them. */
const MAX_AUTHORIZATION_LENGTH = MAX_TOKEN_BYTES + 256;
/** A `Sec-WebSocket-Protocol` header: the longest token as base64url (10,923 characters), and 1 KiB for other entries. */
const MAX_PROTOCOLS_LENGTH = 12_288;
/** Entries of a `Sec-WebSocket-Protocol` header. */
const MAX_PROTOCOLS = 128;
/** RFC 9110 section 5.6.2. */
const HEADER_TOKEN = /^[\w!#$%&'*+.^`|~-]+$/;

/** Three base64url parts: the compact form of RFC 7515 section 7.1. */
export const JWT_FORM = /^[\w-]+\.[\w-]+\.[\w-]+$/;
/** Any token that can stand in a header: `b64token` of RFC 6750 section 2.1. */
export const BEARER_FORM = /^[\w.~+/-]+=*$/;

/** What the user id of a service begins with, and that of a user never does. */
export const SERVICE_PREFIX = 'service:';

/** 32 bytes as base64url, in their one spelling: the two spare bits of the last character are zero. */
const TICKET = /^[\w-]{42}[AEIMQUYcgkosw048]$/;

/** What a sub-protocol begins with that bears a token; such an entry is never answered. */
const TOKEN_PREFIXES = ['jwt-auth.', 'jwt.'];

/**
 * The entries of `Sec-WebSocket-Protocol`, in the client's order. RFC 6455 section 11.3.4.
 * @throws TollgateError INVALID_FORMAT above MAX_PROTOCOLS_LENGTH or MAX_PROTOCOLS
 */
export function requestedProtocols(headers: IncomingHttpHeaders): string[] {
  return protocolItems(headers['sec-websocket-protocol']).filter(Boolean);
}

/** The items of the header between its commas, empty ones included. */
function protocolItems(header: string | undefined): string[] {
  if (header === undefined) return [];
  if (header.length > MAX_PROTOCOLS_LENGTH) throw new TollgateError('INVALID_FORMAT');
  const items = header.split(',', MAX_PROTOCOLS + 1);
  if (items.length > MAX_PROTOCOLS) throw new TollgateError('INVALID_FORMAT');
  return items.map((item) => item.trim());
}

/**
 * `Sec-WebSocket-Protocol` without the base64 padding of its entries: `=` is no character of a token (RFC 9110 section
 * 5.6.2), so `ws` refuses a padded entry. Undefined for a header that is not sent.
 * @throws TollgateError INVALID_FORMAT for a header that `ws` would refuse: an entry that is no token, or is repeated
 */
export function unpaddedProtocols(headers: IncomingHttpHeaders): string | undefined {
  const header = headers['sec-websocket-protocol'];
  if (header === undefined) return undefined;
  const entries = protocolItems(header).map((item) => withoutTrailing(item, '='));
  const sound = new Set(entries).size === entries.length && entries.every((entry) => HEADER_TOKEN.test(entry));
  if (!sound) throw new TollgateError('INVALID_FORMAT');
  return entries.join(', ');
}

/**
 * The credential of a handshake, undefined when there is none. Tokens in a URL are not looked at, since URLs end up
 * in logs; only a ticket may stand in one, which is spent by then (`findTicket`).
 * @param handshakeToken the token of Socket.IO's `auth` payload
 * @param form what a user's token may look like; a service's is a JWT always
 * @throws TollgateError INVALID_FORMAT, NO_TOKEN for an empty one, CONFLICTING_CREDENTIALS when two disagree
 */
export function findCredential(
  headers: IncomingHttpHeaders,
  handshakeToken?: unknown,
  form = JWT_FORM,
): Credential | undefined {
  const found = [
    fromAuthorization(headers, form),
    ...fromProtocols(requestedProtocols(headers), form),
    fromHandshakeToken(handshakeToken, form),
  ].filter((credential) => credential !== undefined);
  const [first] = found;
  if (found.some(({ token }) => token !== first?.token)) throw new TollgateError('CONFLICTING_CREDENTIALS');
  return first;
}

/** RFC 6750 section 2.1; the scheme's case does not matter (RFC 9110 section 11.1). */
function fromAuthorization(headers: IncomingHttpHeaders, form: RegExp): Credential | undefined {
  if (headers.authorization === undefined) return undefined;
  if (headers.authorization.length > MAX_AUTHORIZATION_LENGTH) throw new TollgateError('INVALID_FORMAT');
  const [scheme = '', token, ...rest] = headers.authorization.trim().split(/\s+/, 3);
  if (scheme === '') throw new TollgateError('NO_TOKEN');
  if (token === undefined || rest.length > 0) throw new TollgateError('INVALID_FORMAT');
  if (scheme.toLowerCase() === 'bearer') return { method: 'header', token: checked(token, form) };
  if (scheme.toLowerCase() !== 'service-token') throw new TollgateError('INVALID_FORMAT');
  return serviceCredential({ token, serviceId: headers['x-service-id'], context: headers['x-user-context'] });
}

/** @throws TollgateError NO_TOKEN, INVALID_FORMAT for a token of a wrong form, or one without both of the names */
export function serviceCredential({
  token,
  ...names
}: { readonly token: string | undefined } & ServiceNames): ServiceCredential {
  if (token === undefined || token === '') {
    throw new TollgateError('NO_TOKEN', { text: 'Service authentication required: no credential was presented.' });
  }
  return {
    method: 'service',
    token: checked(token.replace(/^(Bearer|Service-Token)\s+/i, ''), JWT_FORM),
    ...serviceNames(names),
  };
}

/** @throws TollgateError INVALID_FORMAT: a service that does not say who it is has presented half a credential */
function serviceNames({ serviceId, context }: ServiceNames): { readonly serviceId: string; readonly context: string } {
  if (typeof serviceId !== 'string' || serviceId === '' || typeof context !== 'string' || context === '') {
    const text = 'Service authentication failed: the id of the service and its user context must come with it.';
    throw new TollgateError('INVALID_FORMAT', { text });
  }
  return { serviceId, context };
}

/** Whether the bearer says to be the service that was verified. @throws TollgateError INVALID_FORMAT, USER_MISMATCH */
export function checkServiceNames(names: ServiceNames, userId: string): void {
  const { serviceId, context } = serviceNames(names);
  if (`${SERVICE_PREFIX}${serviceId}` === userId && context === userId) return;
  const text = 'Service authentication failed: the credential belongs to another service (mismatch).';
  throw new TollgateError('USER_MISMATCH', { text });
}

function fromProtocols(requested: readonly string[], form: RegExp): TokenCredential[] {
  return requested.flatMap((entry) => {
    const prefix = TOKEN_PREFIXES.find((candidate) => entry.startsWith(candidate));
    if (prefix === undefined) return [];
    return [{ method: 'subprotocol' as const, token: decoded(entry.slice(prefix.length), form) }];
  });
}

function fromHandshakeToken(token: unknown, form: RegExp): TokenCredential | undefined {
  if (token === undefined || token === null) return undefined;
  if (typeof token !== 'string') throw new TollgateError('INVALID_FORMAT');
  return { method: 'handshake', token: checked(withoutScheme(token), form) };
}

/** The token of an in-band `auth` message. @throws TollgateError NO_TOKEN, INVALID_FORMAT */
export function messageCredential(token: string | undefined, form = JWT_FORM): TokenCredential {
  if (token === undefined) throw new TollgateError('NO_TOKEN');
  return { method: 'message', token: checked(withoutScheme(token), form) };
}

/** RFC 4648 section 5, padding optional. Decoding is checked by encoding again: Node skips what it does not know. */
function decoded(encoded: string, form: RegExp): string {
  const bare = withoutTrailing(encoded, '=');
  const text = Buffer.from(bare, 'base64url').toString('utf8');
  if (bare === '') throw new TollgateError('NO_TOKEN');
  if (Buffer.from(text, 'utf8').toString('base64url') !== bare) throw new TollgateError('INVALID_FORMAT');
  return checked(withoutScheme(text), form);
}

function withoutScheme(text: string): string {
  return text.replace(/^Bearer\s+/i, '');
}

/**
 * The one-time ticket of a URL's `ticket` parameters, undefined when there is none.
 * @throws TollgateError NO_TOKEN, INVALID_FORMAT, CONFLICTING_CREDENTIALS
 */
export function findTicket(parameters: readonly string[]): string | undefined {
  const [ticket, ...others] = new Set(parameters);
  if (others.length > 0) throw new TollgateError('CONFLICTING_CREDENTIALS');
  if (ticket === '') throw new TollgateError('NO_TOKEN');
  if (ticket !== undefined && !TICKET.test(ticket)) throw new TollgateError('INVALID_FORMAT');
  return ticket;
}

function checked(token: string, form: RegExp): string {
  if (token === '') throw new TollgateError('NO_TOKEN');
  if (token.length > MAX_TOKEN_BYTES || !form.test(token)) throw new TollgateError('INVALID_FORMAT');
  return token;
}

/**
 * The sub-protocol to answer: ours if it was offered, else none. One that the client did not offer fails the handshake
 * in browsers, and one that bears a token would echo it.
 */
export function answeredProtocol(requested: ReadonlySet<string>, accepted: readonly string[]): string | false {
  return accepted.find((name) => requested.has(name)) ?? false;
}
