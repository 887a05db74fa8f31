import { type ServerResponse, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import type { TollgateError } from '../protocol/errors.ts';
import { errorBody, errorHeaders } from '../protocol/http-errors.ts';

/** Rejects an upgrade with an HTTP response and closes the socket. */
export function refuseUpgrade(socket: Duplex, error: TollgateError): void {
  const { http } = error.row;
  const body = errorBody(error);
  const headers = Object.entries({ connection: 'close', ...headersOf(error, body) });
  const head = [`HTTP/1.1 ${http} ${STATUS_CODES[http]}`, ...headers.map(([name, value]) => `${name}: ${value}`)];
  // Without `destroy`, the half-closed socket would remain until the client closes it.
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy());
}

/** Rejects a request outside Fastify, in the form of all HTTP errors. */
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
