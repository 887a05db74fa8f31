import type { IncomingHttpHeaders } from 'node:http';
import { TollgateError } from '../protocol/errors.ts';
import type { AuthMethod } from '../protocol/identity.ts';

/** A token as it was presented, and where. It is never logged and never echoed. */
export interface Credential {
  readonly method: AuthMethod;
  readonly token: string;
}

/** A token longer than this is not read: the longest of ours is a tenth of it. */
export const MAX_TOKEN_BYTES = 8_192;

/** What a sub-protocol begins with that bears a token; such an entry is never answered. */
const TOKEN_PREFIXES = ['jwt-auth.', 'jwt.'];

/** The entries of `Sec-WebSocket-Protocol`, in the client's order. RFC 6455 section 11.3.4. */
export function offeredProtocols(headers: IncomingHttpHeaders): string[] {
  const header = headers['sec-websocket-protocol'];
  return header === undefined
    ? []
    : header
        .split(',')
        .map((entry) => entry.trim())
        .filter(Boolean);
}

/**
 * The credential of a handshake, undefined when there is none. Tokens in a URL are not looked at: URLs end up in logs.
 * @param handshakeToken the token of Socket.IO's `auth` payload
 * @throws TollgateError INVALID_FORMAT, NO_TOKEN for an empty one, CONFLICTING_CREDENTIALS when two disagree
 */
export function findCredential(headers: IncomingHttpHeaders, handshakeToken?: unknown): Credential | undefined {
  const found = [
    fromAuthorization(headers.authorization),
    ...fromProtocols(offeredProtocols(headers)),
    fromHandshake(handshakeToken),
  ].filter((credential) => credential !== undefined);
  const [first] = found;
  if (found.some(({ token }) => token !== first?.token)) throw new TollgateError('CONFLICTING_CREDENTIALS');
  return first;
}

/** RFC 6750 section 2.1; the scheme's case does not matter (RFC 9110 section 11.1). */
function fromAuthorization(header: string | undefined): Credential | undefined {
  if (header === undefined) return undefined;
  const [scheme, token, ...rest] = header.trim().split(/\s+/);
  if (scheme === '') throw new TollgateError('NO_TOKEN');
  if (scheme?.toLowerCase() !== 'bearer' || token === undefined || rest.length > 0) {
    throw new TollgateError('INVALID_FORMAT');
  }
  return { method: 'header', token: checked(token) };
}

function fromProtocols(offered: readonly string[]): Credential[] {
  return offered.flatMap((entry) => {
    const prefix = TOKEN_PREFIXES.find((candidate) => entry.startsWith(candidate));
    return prefix === undefined ? [] : [{ method: 'subprotocol' as const, token: decoded(entry.slice(prefix.length)) }];
  });
}

function fromHandshake(token: unknown): Credential | undefined {
  if (token === undefined || token === null) return undefined;
  if (typeof token !== 'string') throw new TollgateError('INVALID_FORMAT');
  return { method: 'handshake', token: checked(withoutScheme(token)) };
}

/** The token of an in-band `auth` message. @throws TollgateError NO_TOKEN, INVALID_FORMAT */
export function messageCredential(token: string | undefined): Credential {
  if (token === undefined) throw new TollgateError('NO_TOKEN');
  return { method: 'message', token: checked(withoutScheme(token)) };
}

/** RFC 4648 section 5, padding optional. Decoding is checked by encoding again: Node skips what it does not know. */
function decoded(encoded: string): string {
  const bare = encoded.replace(/=+$/, '');
  const text = Buffer.from(bare, 'base64url').toString('utf8');
  if (bare === '') throw new TollgateError('NO_TOKEN');
  if (Buffer.from(text, 'utf8').toString('base64url') !== bare) throw new TollgateError('INVALID_FORMAT');
  return checked(withoutScheme(text));
}

function withoutScheme(text: string): string {
  return text.replace(/^Bearer\s+/i, '');
}

/** Three base64url parts: the compact form of RFC 7515 section 7.1. */
function checked(token: string): string {
  if (token === '') throw new TollgateError('NO_TOKEN');
  if (token.length > MAX_TOKEN_BYTES || !/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token))
    throw new TollgateError('INVALID_FORMAT');
  return token;
}

/**
 * The sub-protocol to answer: ours if it was offered, else none. One that the client did not offer fails the handshake
 * in browsers, and one that bears a token would echo it.
 */
export function answeredProtocol(offered: ReadonlySet<string>, accepted: readonly string[]): string | false {
  return accepted.find((name) => offered.has(name)) ?? false;
}
