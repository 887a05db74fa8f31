import { publicError, type TollgateError } from './errors.ts';

/** The version of the WebSocket protocol that is spoken here. RFC 6455 section 4.4. */
export const WEBSOCKET_VERSION = '13';

/** The body of every HTTP answer that is an error. */
export function errorBody(error: TollgateError): string {
  return JSON.stringify({ error: publicError(error) });
}

/** The headers that belong to an error, by lower-case name. */
export function errorHeaders({ code, retryAfterMs, row }: TollgateError): Record<string, string> {
  return {
    // RFC 9110 section 15.5.2: a 401 names the scheme. RFC 6750 section 3.
    ...(row.http === 401 ? { 'www-authenticate': 'Bearer realm="tollgate"' } : {}),
    // RFC 9110 section 15.5.22, RFC 6455 section 4.4: a 426 names the protocol and its version. Node takes a `connection`
    // without `close` for one that stays open, whatever the request asked for.
    ...(code === 'UPGRADE_REQUIRED'
      ? { connection: 'Upgrade, close', upgrade: 'websocket', 'sec-websocket-version': WEBSOCKET_VERSION }
      : {}),
    ...(retryAfterMs === undefined ? {} : { 'retry-after': String(Math.ceil(retryAfterMs / 1000)) }),
  };
}
