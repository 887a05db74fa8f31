import type { IncomingHttpHeaders } from 'node:http';
import { withoutTrailing } from '../lib/text.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { AuthMethod } from '../protocol/identity.ts';

/** A user's token and the way it was presented. It is never logged and never echoed. */
export interface TokenCredential {
  readonly method: Extract<AuthMethod, 'header' | 'subprotocol' | 'handshake' | 'message'>;
  readonly token: string;
}

/** A service's token with the service id and context that were sent with it. All three must name the same service. */
export interface ServiceCredential {
  readonly method: 'service';
  readonly token: string;
  readonly serviceId: string;
  /** `service:<id>`. A service acts for itself, never for a user. */
  readonly context: string;
}

export type Credential = TokenCredential | ServiceCredential;

/** Credential of an in-band message: a user's token in `auth`, a service's in `service_auth`. */
export type InBandCredential =
  | { readonly kind: 'user'; readonly token: string | undefined; readonly refreshToken?: string | undefined }
  | ({ readonly kind: 'service'; readonly token: string | undefined } & ServiceNames);

interface ServiceNames {
  readonly serviceId: unknown;
  readonly context: unknown;
}

/** Maximum size of a token. Tollgate's own tokens have at most a tenth of it. */
export const MAX_TOKEN_BYTES = 8_192;

/** Maximum length of an `Authorization` header: the longest token, its scheme, and space between them. */
const MAX_AUTHORIZATION_LENGTH = MAX_TOKEN_BYTES + 256;
/**
 * Maximum length of a `Sec-WebSocket-Protocol` header: the longest token as base64url (10,923 characters) and 1 KiB.
 */
const MAX_PROTOCOLS_LENGTH = 12_288;
/** Maximum number of entries in a `Sec-WebSocket-Protocol` header. */
const MAX_PROTOCOLS = 128;
/** Syntax of a `token` in HTTP headers: RFC 9110 section 5.6.2. */
const HEADER_TOKEN = /^[\w!#$%&'*+.^`|~-]+$/;

/** Three base64url parts: the compact form of RFC 7515 section 7.1. */
export const JWT_FORM = /^[\w-]+\.[\w-]+\.[\w-]+$/;
/** Syntax of any bearer token in a header: `b64token` of RFC 6750 section 2.1. */
export const BEARER_FORM = /^[\w.~+/-]+=*$/;

/** Prefix of the user ids of services. The id of a real user never has it. */
export const SERVICE_PREFIX = 'service:';

/** 32 bytes as canonical base64url: the two unused bits of the last character are zero. */
const TICKET = /^[\w-]{42}[AEIMQUYcgkosw048]$/;

/** Prefixes of sub-protocol entries that contain a token. The response never selects such an entry. */
const TOKEN_PREFIXES = ['jwt-auth.', 'jwt.'];

/**
 * Returns the entries of `Sec-WebSocket-Protocol` in the client's order. RFC 6455 section 11.3.4.
 * @throws TollgateError INVALID_FORMAT above MAX_PROTOCOLS_LENGTH or MAX_PROTOCOLS
 */
export function requestedProtocols(headers: IncomingHttpHeaders): string[] {
  return protocolItems(headers['sec-websocket-protocol']).filter(Boolean);
}

/** Splits the header at its commas; empty items are kept. */
function protocolItems(header: string | undefined): string[] {
  if (header === undefined) return [];
  if (header.length > MAX_PROTOCOLS_LENGTH) throw new TollgateError('INVALID_FORMAT');
  const items = header.split(',', MAX_PROTOCOLS + 1);
  if (items.length > MAX_PROTOCOLS) throw new TollgateError('INVALID_FORMAT');
  return items.map((item) => item.trim());
}

/**
 * Removes the base64 padding from the entries of `Sec-WebSocket-Protocol`. A token may not contain `=` (RFC 9110
 * section 5.6.2), so `ws` rejects padded entries. Returns undefined if the request has no such header.
 * @throws TollgateError INVALID_FORMAT for a header that `ws` would reject: an invalid or repeated entry
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
 * Returns the credential of a handshake, or undefined if there is none. Tokens in the URL are ignored, because URLs are
 * written to logs. Only a ticket may be part of a URL (`findTicket`); it has been consumed by the time it is logged.
 * @param handshakeToken the token of Socket.IO's `auth` payload
 * @param form accepted syntax of a user's token; a service's token is always a JWT
 * @throws TollgateError INVALID_FORMAT, NO_TOKEN for an empty credential, CONFLICTING_CREDENTIALS for different ones
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

/** RFC 6750 section 2.1; the scheme is case-insensitive (RFC 9110 section 11.1). */
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

/** @throws TollgateError NO_TOKEN; INVALID_FORMAT for a malformed token, or if service id or context is missing */
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

/** @throws TollgateError INVALID_FORMAT if service id or context is missing; both are part of the credential */
function serviceNames({ serviceId, context }: ServiceNames): { readonly serviceId: string; readonly context: string } {
  if (typeof serviceId !== 'string' || serviceId === '' || typeof context !== 'string' || context === '') {
    const text =
      'Service authentication failed: the service id or its context is missing. Send both with the credential.';
    throw new TollgateError('INVALID_FORMAT', { text });
  }
  return { serviceId, context };
}

/**
 * Checks that the presented names belong to the authenticated service.
 * @throws TollgateError INVALID_FORMAT, USER_MISMATCH
 */
export function checkServiceNames(names: ServiceNames, userId: string): void {
  const { serviceId, context } = serviceNames(names);
  if (`${SERVICE_PREFIX}${serviceId}` === userId && context === userId) return;
  const text =
    'Service authentication failed: service mismatch. Send the id and context that belong to the credential.';
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

/** Returns the credential of an in-band `auth` message. @throws TollgateError NO_TOKEN, INVALID_FORMAT */
export function messageCredential(token: string | undefined, form = JWT_FORM): TokenCredential {
  if (token === undefined) throw new TollgateError('NO_TOKEN');
  return { method: 'message', token: checked(withoutScheme(token), form) };
}

/**
 * RFC 4648 section 5, padding optional. The result is encoded again and compared, because Node skips invalid
 * characters.
 */
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
 * Returns the ticket in the `ticket` parameters of a URL, or undefined if there is none.
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
 * Selects the sub-protocol of the response: the first accepted one that the client offered, else none. Browsers fail
 * the handshake if the response names a sub-protocol that they did not offer, and an entry with a token would echo
 * the token.
 */
export function answeredProtocol(requested: ReadonlySet<string>, accepted: readonly string[]): string | false {
  return accepted.find((name) => requested.has(name)) ?? false;
}
