import type { ReceivedEvent } from './buffered-events.ts';

/** The dialects of raw WebSocket, implemented independently, because the tests must not share the code they test. */
export type WireFormat = 'flat' | 'envelope' | 'jsonrpc';

type Fields = Record<string, unknown>;

export function encodeFrame(format: WireFormat, type: string, fields: Fields, id?: number): string {
  switch (format) {
    case 'flat':
      return JSON.stringify({ type, ...fields });
    case 'envelope':
      return JSON.stringify({ type, payload: fields });
    case 'jsonrpc':
      return JSON.stringify({ jsonrpc: '2.0', ...(id === undefined ? {} : { id }), method: type, params: fields });
  }
}

/** Decodes a frame of any dialect to type and fields; an undecodable one has the type `unreadable`. */
export function decodeFrame(frame: string): Omit<ReceivedEvent, 'at'> {
  const message = parse(frame);
  if (message === undefined) return { type: 'unreadable', fields: { frame } };
  if (message.jsonrpc === '2.0') return decodeJsonRpc(message);
  const { type, payload, timestamp, ...rest } = message;
  if (typeof type !== 'string') return { type: 'unreadable', fields: { frame } };
  if (!isObject(payload)) return { type, fields: { ...rest, timestamp } };
  return { type, fields: { timestamp, ...payload } };
}

function decodeJsonRpc(message: Fields): Omit<ReceivedEvent, 'at'> {
  const rpcId = message.id as string | number | null | undefined;
  const answers = rpcId === undefined ? {} : { rpcId };
  if (isObject(message.error)) {
    const { code, message: text, data } = message.error;
    const fields = { rpc_code: code, message: text, ...(isObject(data) ? data : { data }) };
    return { type: 'error', fields, ...answers };
  }
  const body = isObject(message.params) ? message.params : message.result;
  const { type, ...fields } = isObject(body) ? body : { value: body };
  const fallback = message.method ?? 'result';
  return { type: String(type ?? fallback), fields, ...answers };
}

function parse(frame: string): Fields | undefined {
  try {
    const parsed: unknown = JSON.parse(frame);
    return isObject(parsed) ? parsed : undefined;
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
