import type { Dialect, IncomingMessage } from './dialects.ts';
import { publicError, TollgateError } from './errors.ts';
import { checkJsonBounds, type JsonBounds } from './json-bounds.ts';

/** Bounds of a frame: clients send the whole conversation with each message, tool results included. */
export const UI_CHAT_BOUNDS: JsonBounds = { maxDepth: 64, maxValues: 50_000 };

/**
 * The frames of the AI SDK's `WebSocketChatTransport`. A frame without a `requestId` would end the client's socket with
 * all its streams, so nothing that belongs to no request is encoded: the result is then empty, and no frame is sent.
 * Its dispatcher sends the events of runs.
 */
export const uiChatDialect: Dialect = {
  format: 'ui_chat',
  decode,
  encode: () => '',
  encodeEntry: () => '',
  encodeError(error, _now, replyTo) {
    if (!replyTo || !('rpcId' in replyTo)) return '';
    const errorText = JSON.stringify({ error: publicError(error) });
    return JSON.stringify({ type: 'error', requestId: replyTo.rpcId, errorText });
  },
};

/** An `abort` gets no answer: it has its request as a field. */
function decode(frame: string): IncomingMessage {
  checkJsonBounds(frame, UI_CHAT_BOUNDS);
  const { type, requestId, ...fields } = parse(frame);
  if (typeof type !== 'string' || typeof requestId !== 'string' || requestId.length > 128) {
    throw new TollgateError('INVALID_MESSAGE', { text: 'A frame must be an object with "type" and "requestId".' });
  }
  if (type === 'abort') return { name: type, fields: { requestId }, replyTo: undefined };
  return { name: type, fields, replyTo: { rpcId: requestId } };
}

function parse(frame: string): Readonly<Record<string, unknown>> {
  try {
    const parsed: unknown = JSON.parse(frame);
    return typeof parsed === 'object' && parsed !== null ? { ...parsed } : {};
  } catch (cause) {
    throw new TollgateError('JSON_ERROR', { cause });
  }
}
