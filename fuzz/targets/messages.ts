import {
  type Dialect,
  envelopeDialect,
  flatDialect,
  jsonRpcDialect,
  MESSAGE_BOUNDS,
  replyToOf,
} from '../../src/protocol/dialects.ts';
import { checkJsonBounds, isWithinJsonBounds, topLevelScalars } from '../../src/protocol/json-bounds.ts';
import { CLIENT_MESSAGE_NAMES, clientMessageType, fieldsSchema } from '../../src/protocol/messages.ts';
import { parseFields } from '../../src/protocol/parse-fields.ts';
import { uiChatDialect } from '../../src/protocol/ui-chat-dialect.ts';
import { isTableError, require, requireSame, type Target } from '../lib/target.ts';

const WORDS = [
  ...CLIENT_MESSAGE_NAMES,
  ...['type', 'payload', 'token', 'refresh_token', 'message', 'agent', 'thread_id', 'request_id', 'run_id', 'tool'],
  ...['arguments', 'idempotency_key', 'after', 'epoch', 'limit', 'before', 'action', 'content', 'input_id', 'accept'],
  ...['jsonrpc', '2.0', 'id', 'method', 'params', 'requestId', 'abort', 'timestamp', 'service_id', 'context'],
];

const SEEDS = [
  '{"type":"ping","timestamp":1}',
  '{"type":"auth","token":"a.b.c","refresh_token":"r"}',
  '{"type":"agent_request","payload":{"message":"Hello","agent":"triage","thread_id":"t-1","request_id":"r"}}',
  '{"type":"tool_call","tool":"count","arguments":{"days":7,"list":[1,2]},"idempotency_key":"k","request_id":null}',
  '{"type":"input_response","run_id":"run_1","input_id":"input_1","action":"accept","content":{"choice":"a"}}',
  '{"type":"thread_history","thread_id":"t","before":"m","limit":10}',
  '{"type":"resume","after":3,"epoch":"e"}',
  '{"type":"run_status","request_id":"r"}',
  '{"jsonrpc":"2.0","id":1,"method":"tool_call","params":{"tool":"count","arguments":{}}}',
  '{"jsonrpc":"2.0","method":"ping"}',
];

/** A frame of any WebSocket endpoint: bounds, JSON, dialect, name, fields. */
function messageTarget(dialect: Dialect): Target {
  return {
    name: `message-${dialect.format.replace('_', '-')}`,
    seeds: [...SEEDS, '{"type":"submit-message","requestId":"1","id":"c","messages":[{"role":"user","parts":[]}]}'],
    words: WORDS,
    run(input) {
      const frame = input.toString('utf8');
      const replyTo = replyToOf(frame);
      const { name, fields, replyTo: ofMessage } = dialect.decode(frame);
      if (dialect.format === 'jsonrpc') requireSame(ofMessage, replyTo, 'an error answers the same request as a reply');
      const type = clientMessageType(name);
      if (type === undefined) return;
      const read = parseFields(fieldsSchema(type), fields);
      requireSame(parseFields(fieldsSchema(type), read), read, 'valid fields stay as they are');
      requireSame(JSON.parse(JSON.stringify(read)), read, 'valid fields are JSON');
      require(JSON.stringify(read).isWellFormed(), 'valid fields have no lone surrogate as a character');
    },
  };
}

/** Depth and number of values by recursion over the parsed text, of which the scan knows only the characters. */
function extentOf(value: unknown): { readonly depth: number; readonly values: number } {
  if (typeof value !== 'object' || value === null) return { depth: 0, values: 1 };
  const inner = Object.values(value).map(extentOf);
  return {
    depth: 1 + Math.max(0, ...inner.map(({ depth }) => depth)),
    values: 1 + Math.max(1, inner.length) - 1 + inner.reduce((sum, { values }) => sum + values - 1, 0),
  };
}

const jsonBounds: Target = {
  name: 'json-bounds',
  seeds: [...SEEDS, '[[["\\"[",{"a":[{}]}]],",",{}]'],
  maxBytes: 8_192,
  run(input) {
    const text = input.toString('utf8');
    const within = isWithinJsonBounds(text, MESSAGE_BOUNDS);
    try {
      checkJsonBounds(text, MESSAGE_BOUNDS);
      require(within, 'both checks agree');
    } catch (error) {
      require(!within && isTableError(error), 'both checks agree');
    }
    const value = parsed(text);
    if (value === undefined) return;
    const { depth } = extentOf(value.json);
    // Duplicate members are counted by the scan and lost by the parser.
    if (within) require(depth <= MESSAGE_BOUNDS.maxDepth, `the scan finds the depth: ${depth}`);
    if (typeof value.json !== 'object' || value.json === null || Array.isArray(value.json)) return;
    const scalars = topLevelScalars(text, ['id', 'jsonrpc']);
    for (const [name, found] of Object.entries(scalars)) {
      const own: unknown = Reflect.get(value.json, name);
      // A duplicate whose last value is no scalar hides the earlier one from the scan only.
      if (typeof own === 'string' || typeof own === 'number') requireSame(found, own, `the scan finds "${name}"`);
    }
  },
};

function parsed(text: string): { readonly json: unknown } | undefined {
  try {
    return { json: JSON.parse(text) };
  } catch {
    return undefined;
  }
}

export const MESSAGE_TARGETS: readonly Target[] = [
  ...[flatDialect, envelopeDialect, jsonRpcDialect, uiChatDialect].map(messageTarget),
  jsonBounds,
];
