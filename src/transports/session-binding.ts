import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { headerValues } from '../lib/header-values.ts';
import { TollgateError } from '../protocol/errors.ts';

/** Values of `Sec-Fetch-Site` for requests that no other site made. https://www.w3.org/TR/fetch-metadata/ */
const OWN_SITE = new Set(['same-origin', 'none']);

/** Whether a page of another site sent the request without `Origin`, as `no-cors` requests are. */
export function isCrossSite({ headers }: IncomingMessage): boolean {
  const site = headers['sec-fetch-site'];
  return headers.origin === undefined && site !== undefined && !OWN_SITE.has(String(site));
}

/**
 * Binds a long-polling session to request headers that its client repeats. The session id is in the URL of each
 * request, so it must not suffice to read and write as the user of the session.
 *
 * - `Origin`: a page of another origin sends it in every request. A page of the gateway's own origin sends none in a
 *   GET;
 *   if the opening request has none, the first POST or upgrade determines it. That request carries the CONNECT packet,
 *   before which the session has no user.
 * - `Authorization`: a different value is rejected. Some clients send it only in the opening request (python-socketio);
 *   once a request has repeated it, every later one must. A browser cannot repeat it in an upgrade.
 *
 * The address of the client is not checked: it changes on mobile networks.
 */
export class SessionBinding {
  readonly #openingOrigin: string | undefined;
  readonly #authorization: string | undefined;
  /** Set by the first POST or upgrade. */
  #settled: { readonly origin: string | undefined } | undefined;
  #repeatsAuthorization = false;

  constructor(opening: IncomingMessage) {
    this.#openingOrigin = opening.headers.origin;
    this.#authorization = digest(opening);
  }

  /**
   * Checks a later request of the session, and stores which headers it repeats.
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

/** Digest of the header, for comparison: a session lasts for hours, and a token can have 8 KiB. */
function digest(request: IncomingMessage): string | undefined {
  const values = headerValues(request, 'authorization');
  return values.length === 0 ? undefined : createHash('sha256').update(values.join('\n')).digest('base64url');
}
