import { type ServerResponse, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import type { TollgateError } from '../protocol/errors.ts';
import { errorBody, errorHeaders } from '../protocol/http-errors.ts';

/** Answers an upgrade with plain HTTP and closes. */
export function refuseUpgrade(socket: Duplex, error: TollgateError): void {
  const { http } = error.row;
  const body = errorBody(error);
  const headers = Object.entries({ connection: 'close', ...headersOf(error, body) });
  const head = [`HTTP/1.1 ${http} ${STATUS_CODES[http]}`, ...headers.map(([name, value]) => `${name}: ${value}`)];
  // Half-closed, it would stay for as long as the client likes.
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy());
}

/** Answers a request that no route has seen, in the form of all HTTP errors. */
export function refuseRequest(response: ServerResponse, error: TollgateError): void {
  const body = errorBody(error);
  response.writeHead(error.row.http, headersOf(error, body)).end(body);
}

function headersOf(error: TollgateError, body: string): Record<string, string> {
  return {
    ...errorHeaders(error),
    'content-type': 'application/json; charset=utf-8',
    'content-length': String(Buffer.byteLength(body)),
  };
}
