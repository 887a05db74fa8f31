import type { IncomingMessage } from 'node:http';
import type { Handshake } from '../auth/authenticator.ts';
import type { ResumePoint } from '../connections/connection.ts';
import { headerValues } from '../lib/header-values.ts';
import { TollgateError } from '../protocol/errors.ts';
import { RefreshToken } from '../protocol/messages.ts';
import { ENDPOINTS } from './endpoints.ts';

/** Absolute form of a request target, which proxies may send and servers must accept (RFC 9112 section 3.2.2). */
const ABSOLUTE = /^https?:\/\/[^/?#]+\//i;

/** Decoding a query with many escapes costs 20 µs per kB, and several steps of a handshake read it. */
const parsedUrls = new WeakMap<IncomingMessage, URL>();

/** Parsed form of the targets without user and query, which most handshakes have. It is shared and never changed. */
const ENDPOINT_URLS: ReadonlyMap<string, Readonly<URL>> = new Map(
  ENDPOINTS.filter(({ userInPath }) => !userInPath).map(({ path }) => [path, new URL(path, 'http://gateway')]),
);

/**
 * Paths that parsing would resolve to another path. Rules of a proxy for a path compare what was sent, so a request for
 * `/x/../ws/mcp` or `/ws\\mcp` would pass a rule that denies `/ws/mcp`.
 */
const NOT_NORMAL = /[\\#]|\/(?:\.|%2e){1,2}(?:\/|$)/i;

/** Maximum length of a query in characters; a handshake needs a few hundred. */
const MAX_QUERY_LENGTH = 10_000;

/**
 * Path and query of a request, parsed once per request; undefined if the target is invalid, too long or not in normal
 * form. Ignores the host.
 */
export function requestUrl(request: IncomingMessage): Readonly<URL> | undefined {
  const known = ENDPOINT_URLS.get(request.url ?? '') ?? parsedUrls.get(request);
  if (known) return known;
  const target = requestTarget(request);
  // What follows two slashes would be parsed as a host.
  if (!target.startsWith('/') || target.startsWith('//')) return undefined;
  if (target.includes('?') && target.length - target.indexOf('?') > MAX_QUERY_LENGTH) return undefined;
  if (NOT_NORMAL.test(target.split('?', 1)[0] ?? '')) return undefined;
  const url = URL.parse(target, 'http://gateway') ?? undefined;
  if (url) parsedUrls.set(request, url);
  return url;
}

const NOTHING: Record<string, never> = Object.freeze({});

/**
 * Drops the headers of a request whose handshake has ended. Node and Engine.IO retain the request as long as its socket
 * is open, and the headers are a third of the memory of an idle connection.
 */
export function forgetContents(request: IncomingMessage): void {
  parsedUrls.delete(request);
  request.headers = NOTHING;
  request.rawHeaders = [];
}

/** Path and query as sent. */
export function requestTarget({ url = '' }: IncomingMessage): string {
  return url.replace(ABSOLUTE, '/');
}

/** The credentials that a request presents. */
export function presentedCredentials(request: IncomingMessage): Handshake {
  const { headers } = request;
  const authorizations = headerValues(request, 'authorization');
  return {
    // Node keeps only the first of several headers, and a proxy may have checked another one. Joined (RFC 9110 section
    // 5.3), they are not a valid token.
    headers: authorizations.length > 1 ? { ...headers, authorization: authorizations.join(', ') } : headers,
    tickets: requestUrl(request)?.searchParams.getAll('ticket') ?? [],
  };
}

/** The refresh token of Socket.IO's `auth` payload; undefined without one. @throws TollgateError FORMAT_ERROR */
export function handedOverToken(value: unknown): string | undefined {
  if (missing(value)) return undefined;
  const { data, error } = RefreshToken.safeParse(value);
  if (error) {
    throw new TollgateError('FORMAT_ERROR', {
      text: '"refresh_token" must have 1 to 8192 printable ASCII characters.',
    });
  }
  return data;
}

/**
 * The position from which the client resumes: `after` and `epoch`; undefined if both are absent.
 * @throws TollgateError FORMAT_ERROR
 */
export function resumePoint(after: unknown, epoch: unknown): ResumePoint | undefined {
  if (missing(after) && missing(epoch)) return undefined;
  const seq = typeof after === 'string' && /^\d{1,15}$/.test(after) ? Number(after) : after;
  const sound = typeof seq === 'number' && Number.isSafeInteger(seq) && seq >= 0;
  if (!sound || typeof epoch !== 'string' || epoch === '' || epoch.length > 64) {
    throw new TollgateError('FORMAT_ERROR', { text: 'To resume, send both "after" (a number) and "epoch".' });
  }
  return { after: seq, epoch };
}

function missing(value: unknown): boolean {
  return value === undefined || value === null;
}
