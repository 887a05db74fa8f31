import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { TollgateError } from '../protocol/errors.ts';

/** What `Sec-Fetch-Site` says of a request that no other site has made. https://www.w3.org/TR/fetch-metadata/ */
const OWN_SITE = new Set(['same-origin', 'none']);

/** Refuses a request that another site's page makes without an `Origin`, as `no-cors` requests are. */
export function isCrossSite({ headers }: IncomingMessage): boolean {
  const site = headers['sec-fetch-site'];
  return headers.origin === undefined && site !== undefined && !OWN_SITE.has(String(site));
}

/**
 * The properties of a long-polling session that its client repeats in every request. The session id stands in the URL of
 * each request, so that it must not be enough to read and write as the session's user.
 *
 * - `Origin`: a page of another origin sends the same one in every request. A page of the gateway's own origin sends none
 *   in a GET, so that without one in the opening request the first POST or upgrade decides. That is the request of the
 *   CONNECT packet: before it the session has no user.
 * - `Authorization`: a different one is refused. Some clients send it in the opening request alone (python-socketio); once
 *   a request has repeated it, every later one must. A browser cannot repeat it in an upgrade.
 *
 * The client's address is no property of the session: it changes on mobile networks.
 */
export class SessionBinding {
  readonly #openingOrigin: string | undefined;
  readonly #authorization: string | undefined;
  /** Since the first POST or upgrade. */
  #settled: { readonly origin: string | undefined } | undefined;
  #repeatsAuthorization = false;

  constructor(opening: IncomingMessage) {
    this.#openingOrigin = opening.headers.origin;
    this.#authorization = digest(opening);
  }

  /**
   * Checks a later request of the session, and remembers what it repeats.
   * @throws TollgateError ORIGIN_NOT_ALLOWED, CONFLICTING_CREDENTIALS
   */
  check(request: IncomingMessage, { isUpgrade }: { readonly isUpgrade: boolean }): void {
    const { origin } = request.headers;
    const writes = isUpgrade || request.method === 'POST';
    if (!this.#originFits(origin, writes)) throw new TollgateError('ORIGIN_NOT_ALLOWED');
    const authorization = digest(request);
    const absenceAllowed = !this.#repeatsAuthorization || (isUpgrade && origin !== undefined);
    if (authorization === undefined ? !absenceAllowed : authorization !== this.#authorization) {
      throw new TollgateError('CONFLICTING_CREDENTIALS');
    }
    if (authorization !== undefined) this.#repeatsAuthorization = true;
    if (writes) this.#settled ??= { origin };
  }

  #originFits(origin: string | undefined, writes: boolean): boolean {
    if (this.#openingOrigin !== undefined) return origin === this.#openingOrigin;
    if (!writes) return origin === undefined || (this.#settled !== undefined && origin === this.#settled.origin);
    return this.#settled === undefined || origin === this.#settled.origin;
  }
}

/** A session lasts for hours and a token may have 8 KiB: its digest is enough to compare with. */
function digest(request: IncomingMessage): string | undefined {
  const values = request.headersDistinct.authorization;
  return values && createHash('sha256').update(values.join('\n')).digest('base64url');
}
