import { publicError, type TollgateError } from './errors.ts';

/** Supported version of the WebSocket protocol. RFC 6455 section 4.4. */
export const WEBSOCKET_VERSION = '13';

/** Body of every HTTP error response. */
export function errorBody(error: TollgateError): string {
  return JSON.stringify({ error: publicError(error) });
}

/** Response headers of an error, by lower-case name. */
export function errorHeaders({ code, retryAfterMs, row }: TollgateError): Record<string, string> {
  return {
    // RFC 9110 section 15.5.2: a 401 response names the authentication scheme. RFC 6750 section 3.
    ...(row.http === 401 ? { 'www-authenticate': 'Bearer realm="tollgate"' } : {}),
    // RFC 9110 section 15.5.22, RFC 6455 section 4.4: a 426 response names the protocol and its version. Without
    // `close` in `connection`, Node keeps the connection open regardless of the request.
    ...(code === 'UPGRADE_REQUIRED'
      ? { connection: 'Upgrade, close', upgrade: 'websocket', 'sec-websocket-version': WEBSOCKET_VERSION }
      : {}),
    ...(retryAfterMs === undefined ? {} : { 'retry-after': String(Math.ceil(retryAfterMs / 1000)) }),
  };
}
