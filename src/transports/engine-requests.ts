import type { IncomingMessage } from 'node:http';
import { TollgateError } from '../protocol/errors.ts';
import { requestUrl } from './handshake-request.ts';

/** Whether a request opens a session; those of open ones name it. */
export function isHandshake(request: IncomingMessage): boolean {
  return sessionId(request) === undefined;
}

/** The session that a request names. Read as Engine.IO does: the last `sid` counts, and an empty one is none. */
export function sessionId(request: IncomingMessage): string | undefined {
  return requestUrl(request)?.searchParams.getAll('sid').at(-1) || undefined;
}

/**
 * Refuses queries that Engine.IO would take, or answer unreadably.
 * @throws TollgateError FORMAT_ERROR, UPGRADE_REQUIRED
 */
export function checkQuery(request: IncomingMessage, isUpgrade: boolean): void {
  const parameters = requestUrl(request)?.searchParams;
  const [transport, version] = ['transport', 'EIO'].map((name) => parameters?.getAll(name).at(-1));
  // A script element of any page can make a JSONP request, without an `Origin`. No client of protocol 4 makes one.
  if (parameters?.has('j')) throw new TollgateError('FORMAT_ERROR', { text: 'JSONP is not supported.' });
  if (!isUpgrade && transport === 'websocket') throw new TollgateError('UPGRADE_REQUIRED');
  // Over HTTP Engine.IO says so itself, in the form that its clients know.
  if (!isUpgrade) return;
  if (version !== '4') {
    const text = 'Unsupported protocol version: this endpoint speaks version 4 of the Engine.IO protocol (EIO=4).';
    throw new TollgateError('FORMAT_ERROR', { text });
  }
  if (transport !== 'websocket') {
    throw new TollgateError('FORMAT_ERROR', { text: 'An upgrade needs the query parameter transport=websocket.' });
  }
}
