import type { IncomingMessage } from 'node:http';
import { hasValidHost } from '../lib/host.ts';
import { TollgateError } from '../protocol/errors.ts';
import { WEBSOCKET_VERSION } from '../protocol/http-errors.ts';

/** 16 bytes in base64. RFC 6455 section 4.2.1. */
const KEY = /^[A-Za-z0-9+/]{22}==$/;

/**
 * Refuses an upgrade request that is not the opening handshake of RFC 6455 section 4.2.1. The `Upgrade` header is checked
 * before, by the HTTP server: a request without it is a plain one.
 * @param head bytes that followed the request: a client has to wait for the answer before it sends anything (section 4.1)
 * @throws TollgateError FORMAT_ERROR, UPGRADE_REQUIRED
 */
export function checkUpgradeForm(request: IncomingMessage, head: Buffer): void {
  const { method, httpVersion, headers } = request;
  if (!hasValidHost(request)) throw malformed('The request must name one valid Host.');
  if (method !== 'GET') throw malformed('A WebSocket is opened by a GET request.');
  // RFC 9110 section 7.8: an HTTP/1.0 request cannot be upgraded.
  if (httpVersion !== '1.1') throw malformed('A WebSocket is opened over HTTP/1.1.');
  if (hasBody(request)) throw malformed('A request that opens a WebSocket has no body.');
  if (head.length > 0) throw malformed('Nothing may follow an upgrade request before it has been answered.');
  if (headers['sec-websocket-version'] !== WEBSOCKET_VERSION) throw new TollgateError('UPGRADE_REQUIRED');
  if (!KEY.test(headers['sec-websocket-key'] ?? '')) throw malformed('Sec-WebSocket-Key must be 16 bytes in base64.');
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) !== 0;
}

function malformed(text: string): TollgateError {
  return new TollgateError('FORMAT_ERROR', { text });
}
