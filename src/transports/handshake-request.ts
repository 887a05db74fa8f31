import type { IncomingMessage } from 'node:http';
import type { Handshake } from '../auth/authenticator.ts';
import type { ResumePoint } from '../connections/handshake.ts';
import { TollgateError } from '../protocol/errors.ts';

/**
 * Whether a page of this origin may connect. Browsers always send `Origin`; a client that does not is no browser and
 * has no ambient credentials to be abused with.
 */
export function originAllowed(origin: string | undefined, allowed: readonly string[]): boolean {
  return origin === undefined || allowed.includes('*') || allowed.includes(origin);
}

/** RFC 9112 section 3.2.2: a proxy may send the whole URL, and every server has to take it. */
const ABSOLUTE = /^https?:\/\/[^/?#]+\//i;

/** Decoding a query of many escapes costs 20 µs per kB, and several parts of a handshake read it. */
const parsedUrls = new WeakMap<IncomingMessage, URL>();

/** A handshake needs a few hundred characters. */
const MAX_QUERY_LENGTH = 10_000;

/** The path and query of a request, parsed once per request; undefined for none that is served. The host is not looked at. */
export function requestUrl(request: IncomingMessage): URL | undefined {
  const known = parsedUrls.get(request);
  if (known) return known;
  const target = requestTarget(request);
  // A target of two slashes would be read as a host.
  if (!target.startsWith('/') || target.startsWith('//')) return undefined;
  if (target.includes('?') && target.length - target.indexOf('?') > MAX_QUERY_LENGTH) return undefined;
  const url = URL.parse(target, 'http://gateway') ?? undefined;
  if (url) parsedUrls.set(request, url);
  return url;
}

/** The path and query as they were sent. */
export function requestTarget({ url = '' }: IncomingMessage): string {
  return url.replace(ABSOLUTE, '/');
}

/** The credentials that a request presents. */
export function presentedCredentials(request: IncomingMessage): Handshake {
  const { headers } = request;
  const authorizations = request.headersDistinct.authorization ?? [];
  return {
    // Node keeps the first of several, a proxy may have looked at another: joined (RFC 9110 section 5.3) they are no token.
    headers: authorizations.length > 1 ? { ...headers, authorization: authorizations.join(', ') } : headers,
    tickets: requestUrl(request)?.searchParams.getAll('ticket') ?? [],
  };
}

/**
 * Where the client says it left off: `after` and `epoch`, both or neither.
 * @throws TollgateError FORMAT_ERROR
 */
export function resumePoint(after: unknown, epoch: unknown): ResumePoint | undefined {
  if (missing(after) && missing(epoch)) return undefined;
  const seq = typeof after === 'string' && /^\d{1,15}$/.test(after) ? Number(after) : after;
  const sound = typeof seq === 'number' && Number.isSafeInteger(seq) && seq >= 0;
  if (!sound || typeof epoch !== 'string' || epoch === '' || epoch.length > 64) {
    throw new TollgateError('FORMAT_ERROR', { text: 'To resume, give both "after" (a number) and "epoch".' });
  }
  return { after: seq, epoch };
}

function missing(value: unknown): boolean {
  return value === undefined || value === null;
}
