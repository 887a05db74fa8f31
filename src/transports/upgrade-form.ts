import type { IncomingMessage } from 'node:http';
import { hasValidHost } from '../lib/host.ts';
import { TollgateError } from '../protocol/errors.ts';
import { WEBSOCKET_VERSION } from '../protocol/http-errors.ts';

/** 16 bytes in base64. RFC 6455 section 4.2.1. */
const KEY = /^[A-Za-z0-9+/]{22}==$/;

/**
 * Rejects an upgrade request that is not an opening handshake of RFC 6455 section 4.2.1. The HTTP server has already
 * checked the `Upgrade` header: a request without it is a plain request.
 * @param head bytes after the request: a client must wait for the response before it sends data (section 4.1)
 * @throws TollgateError FORMAT_ERROR, UPGRADE_REQUIRED
 */
export function checkUpgradeForm(request: IncomingMessage, head: Buffer): void {
  const { method, httpVersion, headers } = request;
  if (!hasValidHost(request)) throw malformed('The request must have one valid Host header.');
  if (method !== 'GET') throw malformed('A WebSocket handshake must be a GET request.');
  // RFC 9110 section 7.8: an HTTP/1.0 request cannot be upgraded.
  if (httpVersion !== '1.1') throw malformed('A WebSocket handshake must use HTTP/1.1.');
  if (hasBody(request)) throw malformed('A WebSocket handshake must not have a body.');
  if (head.length > 0) throw malformed('Send no data after a WebSocket handshake until the response arrives.');
  if (headers['sec-websocket-version'] !== WEBSOCKET_VERSION) throw new TollgateError('UPGRADE_REQUIRED');
  if (!KEY.test(headers['sec-websocket-key'] ?? '')) throw malformed('Sec-WebSocket-Key must be 16 bytes in base64.');
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) !== 0;
}

function malformed(text: string): TollgateError {
  return new TollgateError('FORMAT_ERROR', { text });
}
