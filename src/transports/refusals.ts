import { type ServerResponse, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { publicError, type TollgateError } from '../protocol/errors.ts';

/** Answers an upgrade with plain HTTP and closes. */
export function refuseUpgrade(socket: Duplex, error: TollgateError): void {
  const { http } = error.row;
  const body = bodyOf(error);
  const headers = Object.entries({ ...headersOf(error, body), connection: 'close' });
  const head = [`HTTP/1.1 ${http} ${STATUS_CODES[http]}`, ...headers.map(([name, value]) => `${name}: ${value}`)];
  // Half-closed, it would stay for as long as the client likes.
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy());
}

/** Answers a request that no route has seen, in the form of all HTTP errors. */
export function refuseRequest(response: ServerResponse, error: TollgateError): void {
  const body = bodyOf(error);
  response.writeHead(error.row.http, headersOf(error, body)).end(body);
}

function bodyOf(error: TollgateError): string {
  return JSON.stringify({ error: publicError(error) });
}

function headersOf({ retryAfterMs, row }: TollgateError, body: string): Record<string, string> {
  const headers = {
    'content-type': 'application/json; charset=utf-8',
    'content-length': String(Buffer.byteLength(body)),
    // RFC 9110 section 15.5.2: a 401 says how to do better.
    ...(row.http === 401 ? { 'www-authenticate': 'Bearer realm="tollgate"' } : {}),
  };
  return retryAfterMs === undefined ? headers : { ...headers, 'retry-after': `${Math.ceil(retryAfterMs / 1000)}` };
}
