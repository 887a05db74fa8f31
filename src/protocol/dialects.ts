import { publicError, TollgateError } from './errors.ts';
import { checkJsonBounds, isWithinJsonBounds, type JsonBounds, topLevelScalars } from './json-bounds.ts';
import { type Fields, isFields, type LogEntry, type ServerEventType } from './messages.ts';

/** Correlates a reply with its request: the id of a JSON-RPC request, or the acknowledgement callback of Socket.IO. */
export type ReplyTo = { readonly rpcId: string | number } | { readonly ack: (reply: Fields) => void } | undefined;

/** A decoded message whose fields have not been validated. */
export interface IncomingMessage {
  readonly name: string;
  readonly fields: Fields;
  readonly replyTo: ReplyTo;
}

export type FormatName = 'regular_json' | 'envelope' | 'jsonrpc' | 'socketio' | 'event_stream' | 'ui_chat';

/**
 * Message encoding of an endpoint. Incoming frames are recognised by their shape; replies use the endpoint's dialect.
 */
export interface Dialect {
  readonly format: FormatName;
  /** @throws TollgateError JSON_ERROR, INVALID_MESSAGE */
  decode(frame: string): IncomingMessage;
  encode(type: ServerEventType, fields: Fields, now: Date, replyTo: ReplyTo): string;
  encodeEntry(entry: LogEntry): string;
  encodeError(error: TollgateError, now: Date, replyTo: ReplyTo): string;
}

/** JSON-RPC notification that carries events. */
export const RPC_EVENT_METHOD = 'notifications/tollgate/event';

/** Bounds of a message in every dialect. The longest list in a known tool call is an embedding of 3,072 numbers. */
export const MESSAGE_BOUNDS: JsonBounds = { maxDepth: 32, maxValues: 4_096 };

export const flatDialect: Dialect = {
  format: 'regular_json',
  decode: decodePlain,
  encode: (type, fields, now) => JSON.stringify({ type, ...fields, timestamp: now.toISOString() }),
  // The stored fields begin with `{"seq":`, so the type can be inserted without parsing.
  encodeEntry: (entry) => `{"type":"${entry.type}",${entry.json.slice(1)}`,
  encodeError: (error, now) => JSON.stringify({ type: 'error', ...publicError(error), timestamp: now.toISOString() }),
};

export const envelopeDialect: Dialect = {
  format: 'envelope',
  decode: decodePlain,
  encode: (type, fields, now) => JSON.stringify({ type, payload: fields, timestamp: now.toISOString() }),
  encodeEntry: (entry) => `{"type":"${entry.type}","payload":${entry.json},"timestamp":"${entry.timestamp}"}`,
  encodeError(error, now) {
    const fields = publicError(error);
    const payload = { ...fields, recoverable: fields.retryable || error.row.close === null };
    return JSON.stringify({ type: 'error', payload, timestamp: now.toISOString() });
  },
};

export const jsonRpcDialect: Dialect = {
  format: 'jsonrpc',
  decode: decodeJsonRpc,
  encode(type, fields, now, replyTo) {
    const body = { ...fields, timestamp: now.toISOString() };
    if (replyTo && 'rpcId' in replyTo) {
      // The keepalive of older clients checks `pong: true` in the result of a ping.
      const result = type === 'pong' ? { pong: true, ...body } : { type, ...body };
      return JSON.stringify({ jsonrpc: '2.0', id: replyTo.rpcId, result });
    }
    return JSON.stringify({ jsonrpc: '2.0', method: RPC_EVENT_METHOD, params: { type, ...body } });
  },
  encodeEntry: (entry) =>
    `{"jsonrpc":"2.0","method":"${RPC_EVENT_METHOD}","params":{"type":"${entry.type}",${entry.json.slice(1)}}`,
  encodeError(error, _now, replyTo) {
    const { message, ...data } = publicError(error);
    // Absent in errors that answer no request: MCP does not allow null.
    const id = replyTo && 'rpcId' in replyTo ? replyTo.rpcId : undefined;
    return JSON.stringify({ jsonrpc: '2.0', id, error: { code: error.row.jsonrpc, message, data } });
  },
};

/** Error for a message in the dialect of another endpoint; the text names that endpoint. */
function wrongDialect(text: string): TollgateError {
  return new TollgateError('INVALID_MESSAGE', { text, fields: { detail: text } });
}

function decodePlain(frame: string): IncomingMessage {
  const message = parseObject(frame);
  if (message.jsonrpc === '2.0')
    throw wrongDialect('This endpoint does not accept JSON-RPC format. Use /ws/mcp, or send {"type": …}.');
  const { type, payload, ...fields } = message;
  if (typeof type !== 'string' || type === '') throw new TollgateError('INVALID_MESSAGE');
  if (payload === undefined || payload === null) return { name: type, fields, replyTo: undefined };
  if (!isFields(payload))
    throw new TollgateError('INVALID_MESSAGE', {
      text: '"payload" must be an object. Put the fields of the message into it.',
    });
  return { name: type, fields: payload, replyTo: undefined };
}

function decodeJsonRpc(frame: string): IncomingMessage {
  const parsed = jsonRpcBody(frame);
  if (parsed.jsonrpc !== '2.0' || typeof parsed.method !== 'string') {
    throw wrongDialect('This endpoint requires JSON-RPC format. Use /ws for plain JSON.');
  }
  const { id, method, params } = parsed;
  if (id !== undefined && typeof id !== 'string' && typeof id !== 'number') {
    throw new TollgateError('INVALID_MESSAGE', { text: 'The JSON-RPC "id" must be a string or a number.' });
  }
  if (params !== undefined && params !== null && !isFields(params)) {
    throw new TollgateError('INVALID_MESSAGE', { text: 'The JSON-RPC "params" must be an object.' });
  }
  return { name: method, fields: params ?? {}, replyTo: id === undefined ? undefined : { rpcId: id } };
}

/**
 * Parses an HTTP body or a frame as a single JSON-RPC object, without validating its members.
 * @throws TollgateError JSON_ERROR, INVALID_MESSAGE
 */
export function jsonRpcBody(text: string): Fields {
  const parsed = parse(text);
  if (Array.isArray(parsed))
    throw wrongDialect('Batches are not supported. Send one object in JSON-RPC format per message.');
  if (!isFields(parsed))
    throw wrongDialect('This endpoint requires an object in JSON-RPC format. Use /ws for plain JSON.');
  return parsed;
}

/** Extracts the id of a rejected JSON-RPC frame, so that the client can match the error to its request. */
export function replyToOf(frame: string): ReplyTo {
  try {
    // A frame beyond the bounds is not parsed, not even for its id.
    const parsed: unknown = isWithinJsonBounds(frame, MESSAGE_BOUNDS)
      ? JSON.parse(frame)
      : topLevelScalars(frame, ['jsonrpc', 'id']);
    const id = isFields(parsed) && parsed.jsonrpc === '2.0' ? parsed.id : undefined;
    return typeof id === 'string' || typeof id === 'number' ? { rpcId: id } : undefined;
  } catch {
    return undefined;
  }
}

/** @throws TollgateError JSON_ERROR, also for JSON beyond `MESSAGE_BOUNDS`, which is not parsed */
function parse(frame: string): unknown {
  checkJsonBounds(frame, MESSAGE_BOUNDS);
  try {
    return JSON.parse(frame);
  } catch (cause) {
    throw new TollgateError('JSON_ERROR', { cause });
  }
}

function parseObject(frame: string): Record<string, unknown> {
  const parsed = parse(frame);
  if (!isFields(parsed)) throw new TollgateError('INVALID_MESSAGE');
  return parsed;
}
