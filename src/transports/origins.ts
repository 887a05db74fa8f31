import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';

export interface OriginOptions {
  /** Complete origins; `*` allows all. */
  readonly allowed: readonly string[];
  /** URL at which clients reach this deployment. */
  readonly publicUrl: string | undefined;
  /** Number of trusted proxies; without any, `X-Forwarded-Proto` is ignored. */
  readonly trustedProxyHops: number;
}

/**
 * Decides which pages can connect. Browsers always send `Origin`; a client without it is not a browser and has no
 * ambient credentials that a page could abuse. React Native and Python's websocket-client send the origin of the URL to
 * which they connect, so the gateway's own origin is allowed too.
 *
 * `Host` does not prove what is the own origin: under DNS rebinding, a page of `evil.test` sends `Host: evil.test` to
 * the gateway. The own origin is therefore that of `PUBLIC_URL`, and that of `Host` only if its host is an IP address
 * or `localhost`, which no attacker can point to another server.
 */
export class Origins {
  readonly #allowed: ReadonlySet<string>;
  readonly #trustsProxy: boolean;

  constructor({ allowed, publicUrl, trustedProxyHops }: OriginOptions) {
    const own = publicUrl === undefined ? [] : [new URL(publicUrl).origin];
    this.#allowed = new Set([...allowed, ...own]);
    this.#trustsProxy = trustedProxyHops > 0;
  }

  /**
   * @param origin the origin to check; by default that of the request. Compared as a whole string, as browsers send it
   */
  allow(request: IncomingMessage, origin = request.headers.origin): boolean {
    if (origin === undefined || this.#allowed.has('*') || this.#allowed.has(origin)) return true;
    const url = URL.parse(origin);
    if (url?.origin !== origin || !isFixedHost(url.hostname)) return false;
    const own = URL.parse(`${this.#scheme(request)}://${request.headers.host ?? ''}`);
    return own?.origin === origin;
  }

  /** The last value of `X-Forwarded-Proto` is that of the proxy to which this node is connected. */
  #scheme({ headers }: IncomingMessage): 'http' | 'https' {
    const forwarded = this.#trustsProxy ? String(headers['x-forwarded-proto'] ?? '') : '';
    return forwarded.split(',').at(-1)?.trim().toLowerCase() === 'https' ? 'https' : 'http';
  }
}

/** Whether a host does not depend on the DNS. Browsers resolve `localhost` to the loopback interface themselves. */
function isFixedHost(host: string): boolean {
  return host === 'localhost' || isIP(host.replace(/^\[|\]$/g, '')) !== 0;
}
