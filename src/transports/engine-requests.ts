import type { IncomingMessage } from 'node:http';
import { TollgateError } from '../protocol/errors.ts';
import { requestUrl } from './handshake-request.ts';

/** Whether a request opens a session; requests of open sessions carry a session id. */
export function isHandshake(request: IncomingMessage): boolean {
  return sessionId(request) === undefined;
}

/** The session id of a request. As in Engine.IO, the last `sid` counts, and an empty one counts as absent. */
export function sessionId(request: IncomingMessage): string | undefined {
  return requestUrl(request)?.searchParams.getAll('sid').at(-1) || undefined;
}

/**
 * Rejects queries that Engine.IO would accept, or would reject with an unreadable response.
 * @throws TollgateError FORMAT_ERROR, UPGRADE_REQUIRED
 */
export function checkQuery(request: IncomingMessage, isUpgrade: boolean): void {
  const parameters = requestUrl(request)?.searchParams;
  const [transport, version] = ['transport', 'EIO'].map((name) => parameters?.getAll(name).at(-1));
  // Any page can send a JSONP request by a script element, without `Origin`. No client of protocol 4 uses JSONP.
  if (parameters?.has('j')) throw new TollgateError('FORMAT_ERROR', { text: 'JSONP is not supported.' });
  if (!isUpgrade && transport === 'websocket') throw new TollgateError('UPGRADE_REQUIRED');
  // For plain HTTP, Engine.IO itself rejects wrong versions, in the form that its clients expect.
  if (!isUpgrade) return;
  if (version !== '4') {
    const text = 'Unsupported protocol version: this endpoint requires version 4 of the Engine.IO protocol (EIO=4).';
    throw new TollgateError('FORMAT_ERROR', { text });
  }
  if (transport !== 'websocket') {
    throw new TollgateError('FORMAT_ERROR', { text: 'An upgrade requires the query parameter transport=websocket.' });
  }
}
