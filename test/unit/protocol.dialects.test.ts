import { describe, expect, it } from '@jest/globals';
import {
  type Dialect,
  envelopeDialect,
  flatDialect,
  jsonRpcDialect,
  RPC_EVENT_METHOD,
  replyToOf,
} from '../../src/protocol/dialects.ts';
import { TollgateError } from '../../src/protocol/errors.ts';
import type { LogEntry } from '../../src/protocol/messages.ts';
import { UI_CHAT_BOUNDS, uiChatDialect } from '../../src/protocol/ui-chat-dialect.ts';

const NOW = new Date('2026-01-02T03:04:05.678Z');
const TIMESTAMP = '2026-01-02T03:04:05.678Z';
const PLAIN: [string, Dialect][] = [
  ['flat', flatDialect],
  ['envelope', envelopeDialect],
];
const ALL: [string, Dialect][] = [...PLAIN, ['JSON-RPC', jsonRpcDialect]];

const ENTRY: LogEntry = {
  type: 'agent_thinking',
  seq: 7,
  epoch: 'epoch_x',
  timestamp: TIMESTAMP,
  json: `{"seq":7,"thought":"a \\"quoted\\" one","timestamp":"${TIMESTAMP}"}`,
};

/** Returns the error with which decoding ends. */
function decodeError(dialect: Dialect, frame: string): TollgateError {
  try {
    dialect.decode(frame);
  } catch (error) {
    if (error instanceof TollgateError) return error;
    throw error;
  }
  throw new Error(`decoded: ${frame}`);
}

/** Returns a message of the dialect with this nesting depth. */
function nested(dialect: Dialect, depth: number): string {
  const rpc = dialect === jsonRpcDialect;
  const inner = depth - (rpc ? 2 : 1);
  const value = '['.repeat(inner) + ']'.repeat(inner);
  return rpc ? `{"jsonrpc":"2.0","method":"ping","params":{"x":${value}}}` : `{"type":"ping","x":${value}}`;
}

describe.each(PLAIN)('the %s dialect', (_name, dialect) => {
  it('reads a flat message: everything beside the type is its fields', () => {
    const message = dialect.decode('{"type":"ping","timestamp":5}');
    expect(message).toEqual({ name: 'ping', fields: { timestamp: 5 }, replyTo: undefined });
  });

  it('reads an envelope: only the payload is its fields', () => {
    const message = dialect.decode('{"type":"ping","payload":{"timestamp":5},"id":1}');
    expect(message).toEqual({ name: 'ping', fields: { timestamp: 5 }, replyTo: undefined });
  });

  it.each([
    'null',
    '[]',
    '[{"type":"ping"}]',
    '5',
    '"ping"',
    'true',
    '{}',
    '{"type":null}',
    '{"type":""}',
    '{"type":3}',
  ])('B10 answers INVALID_MESSAGE to %s, which is no message', (frame) => {
    expect(decodeError(dialect, frame).code).toBe('INVALID_MESSAGE');
  });

  it.each(['[]', '"x"', '3'])('answers INVALID_MESSAGE to a payload that is %s', (payload) => {
    const error = decodeError(dialect, `{"type":"ping","payload":${payload}}`);
    expect([error.code, error.message]).toEqual([
      'INVALID_MESSAGE',
      '"payload" must be an object. Put the fields of the message into it.',
    ]);
  });

  it('treats a payload of null as missing', () => {
    const expected = { name: 'ping', fields: { timestamp: 1 }, replyTo: undefined };
    expect(dialect.decode('{"type":"ping","payload":null,"timestamp":1}')).toEqual(expected);
  });

  it('tells who speaks JSON-RPC where that is spoken', () => {
    const error = decodeError(dialect, '{"jsonrpc":"2.0","id":1,"method":"ping"}');
    expect(error.code).toBe('INVALID_MESSAGE');
    expect(error.message).toContain('/ws/mcp');
  });
});

describe.each(ALL)('the %s dialect', (_name, dialect) => {
  it.each(['', '{', '{"type":', 'ping', "{'type':'ping'}", '{"type":"ping"}{}'])(
    'B9 answers JSON_ERROR to %j, which is no JSON',
    (frame) => {
      expect(decodeError(dialect, frame).code).toBe('JSON_ERROR');
    },
  );

  it('reads 32 levels of brackets and answers JSON_ERROR to 33', () => {
    expect(dialect.decode(nested(dialect, 32)).name).toBe('ping');
    const error = decodeError(dialect, nested(dialect, 33));
    expect([error.code, error.message]).toEqual([
      'JSON_ERROR',
      'The JSON is nested too deeply. Use at most 32 levels.',
    ]);
  });

  it('reads 4,096 values and answers JSON_ERROR to more, however they are nested', () => {
    const rpc = dialect === jsonRpcDialect;
    const frame = (members: string) => {
      return rpc ? `{"jsonrpc":"2.0","method":"ping","params":{${members}}}` : `{"type":"ping","payload":{${members}}}`;
    };
    // The two braces and the commas of the frame itself count too.
    const own = rpc ? 4 : 3;
    const list = (commas: number) => `"x":[${'1,'.repeat(commas)}1]`;
    const keys = (count: number) => Array.from({ length: count }, (_, at) => `"k${at}":1`).join(',');
    expect(dialect.decode(frame(list(4_096 - own - 2))).name).toBe('ping');
    for (const members of [list(4_096 - own - 1), keys(5_000), `"x":[${'[],'.repeat(2_500)}[]]`]) {
      const error = decodeError(dialect, frame(members));
      expect([error.code, error.message]).toEqual(['JSON_ERROR', 'The JSON has too many values. Use at most 4096.']);
    }
    expect(dialect.decode(frame(`"x":"${',[{'.repeat(5_000)}"`)).name).toBe('ping');
  });

  it('does not count brackets inside strings as nesting', () => {
    const text = `${'['.repeat(100)}\\"${'{'.repeat(100)}`;
    const value = `{"x":"${text}"}`;
    const frame =
      dialect === jsonRpcDialect
        ? `{"jsonrpc":"2.0","method":"ping","params":${value}}`
        : `{"type":"ping","payload":${value}}`;
    expect(dialect.decode(frame).fields).toEqual(JSON.parse(value));
  });

  it('reads 4,000 values and answers JSON_ERROR to 4,200', () => {
    const frameOf = (count: number) => {
      const value = `{"x":[${Array.from({ length: count }, () => '0').join(',')}],"text":"${','.repeat(5_000)}"}`;
      return dialect === jsonRpcDialect
        ? `{"jsonrpc":"2.0","method":"ping","params":${value}}`
        : `{"type":"ping","payload":${value}}`;
    };
    expect(dialect.decode(frameOf(4_000)).fields.x).toHaveLength(4_000);
    expect(decodeError(dialect, frameOf(4_200)).code).toBe('JSON_ERROR');
    expect(decodeError(dialect, `${'['.repeat(20)}${'[],'.repeat(4_200)}`).code).toBe('JSON_ERROR');
  });

  it('refuses 64 KiB of open brackets without a stack overflow', () => {
    expect(decodeError(dialect, '['.repeat(65_536)).code).toBe('JSON_ERROR');
  });
});

describe('the flat dialect', () => {
  it('writes type, fields and timestamp side by side', () => {
    const frame = flatDialect.encode('pong', { original_timestamp: 5 }, NOW, undefined);
    expect(frame).toBe(`{"type":"pong","original_timestamp":5,"timestamp":"${TIMESTAMP}"}`);
  });

  it('writes an error with its code on top', () => {
    const error = new TollgateError('RATE_LIMITED', { retryAfterMs: 12.3, fields: { request_id: 'r' } });
    expect(JSON.parse(flatDialect.encodeError(error, NOW, undefined))).toEqual({
      type: 'error',
      code: 'RATE_LIMITED',
      message: error.message,
      retryable: true,
      retry_after_ms: 13,
      request_id: 'r',
      timestamp: TIMESTAMP,
    });
  });

  it('writes an event of the log with the fields that are stored', () => {
    expect(JSON.parse(flatDialect.encodeEntry(ENTRY))).toEqual({ type: ENTRY.type, ...JSON.parse(ENTRY.json) });
  });
});

describe('the envelope dialect', () => {
  it('writes the fields into a payload', () => {
    const frame = envelopeDialect.encode('pong', { original_timestamp: 5 }, NOW, undefined);
    expect(frame).toBe(`{"type":"pong","payload":{"original_timestamp":5},"timestamp":"${TIMESTAMP}"}`);
  });

  it.each([
    ['JSON_ERROR', true],
    ['RATE_LIMITED', true],
    ['TOKEN_EXPIRED', true],
    ['VALIDATION_FAILED', false],
    ['CONNECTION_LIMIT_EXCEEDED', false],
  ] as const)('says whether %s is recoverable: %s', (code, recoverable) => {
    const frame = JSON.parse(envelopeDialect.encodeError(new TollgateError(code), NOW, undefined));
    expect(frame).toMatchObject({ type: 'error', payload: { code, recoverable }, timestamp: TIMESTAMP });
  });

  it('writes an event of the log into a payload, with its timestamp outside too', () => {
    expect(JSON.parse(envelopeDialect.encodeEntry(ENTRY))).toEqual({
      type: ENTRY.type,
      payload: JSON.parse(ENTRY.json),
      timestamp: TIMESTAMP,
    });
  });
});

describe('the JSON-RPC dialect', () => {
  it('reads requests and notifications', () => {
    const request = jsonRpcDialect.decode('{"jsonrpc":"2.0","id":"a","method":"ping","params":{"timestamp":5}}');
    expect(request).toEqual({ name: 'ping', fields: { timestamp: 5 }, replyTo: { rpcId: 'a' } });
    const notification = jsonRpcDialect.decode('{"jsonrpc":"2.0","method":"ping"}');
    expect(notification).toEqual({ name: 'ping', fields: {}, replyTo: undefined });
  });

  it('B8 answers a ping with a result whose pong is true, under the id of the request', () => {
    const frame = JSON.parse(jsonRpcDialect.encode('pong', { original_timestamp: null }, NOW, { rpcId: 0 }));
    expect(frame).toEqual({
      jsonrpc: '2.0',
      id: 0,
      result: { pong: true, original_timestamp: null, timestamp: TIMESTAMP },
    });
  });

  it('answers any other request with its type in the result', () => {
    const frame = JSON.parse(jsonRpcDialect.encode('resumed', { from: 1 }, NOW, { rpcId: 'a' }));
    expect(frame).toEqual({ jsonrpc: '2.0', id: 'a', result: { type: 'resumed', from: 1, timestamp: TIMESTAMP } });
  });

  it('sends what answers no request as a notification', () => {
    const frame = JSON.parse(jsonRpcDialect.encode('heartbeat', { connection_id: 'ws_1' }, NOW, undefined));
    const params = { type: 'heartbeat', connection_id: 'ws_1', timestamp: TIMESTAMP };
    expect(frame).toEqual({ jsonrpc: '2.0', method: RPC_EVENT_METHOD, params });
    expect(JSON.parse(jsonRpcDialect.encodeEntry(ENTRY))).toEqual({
      jsonrpc: '2.0',
      method: RPC_EVENT_METHOD,
      params: { type: ENTRY.type, ...JSON.parse(ENTRY.json) },
    });
  });

  it('writes an error with the number of its row, and the code in its data', () => {
    const error = new TollgateError('PERMISSION_DENIED', { fields: { upgrade_path: 'pro' } });
    expect(JSON.parse(jsonRpcDialect.encodeError(error, NOW, { rpcId: 4 }))).toEqual({
      jsonrpc: '2.0',
      id: 4,
      error: {
        code: -33003,
        message: error.message,
        data: { code: 'PERMISSION_DENIED', retryable: false, upgrade_path: 'pro' },
      },
    });
  });

  it.each([
    '{"type":"ping"}',
    '5',
    'null',
    '{"jsonrpc":"1.0","method":"ping"}',
    '{"jsonrpc":"2.0"}',
    '{"jsonrpc":"2.0","method":5}',
  ])('B23 answers -32600 to %s, with data that names JSON-RPC format and /ws', (frame) => {
    const error = decodeError(jsonRpcDialect, frame);
    const answer = JSON.parse(jsonRpcDialect.encodeError(error, NOW, replyToOf(frame)));
    expect(answer).toEqual({ jsonrpc: '2.0', error: expect.objectContaining({ code: -32600 }) });
    expect(JSON.stringify(answer.error.data)).toContain('JSON-RPC format');
    expect(JSON.stringify(answer.error.data)).toContain('/ws');
  });

  it.each(['{"id":{}}', '{"id":null}', '{"id":true}', '{"params":[]}', '{"params":"x"}'])(
    'answers INVALID_MESSAGE to a request with %s',
    (part) => {
      const frame = JSON.stringify({ jsonrpc: '2.0', method: 'ping', ...JSON.parse(part) });
      expect(decodeError(jsonRpcDialect, frame).code).toBe('INVALID_MESSAGE');
    },
  );

  it('treats params of null as missing', () => {
    const decoded = jsonRpcDialect.decode('{"jsonrpc":"2.0","id":1,"method":"ping","params":null}');
    expect(decoded).toEqual({ name: 'ping', fields: {}, replyTo: { rpcId: 1 } });
  });

  it('answers INVALID_MESSAGE to a batch', () => {
    const error = decodeError(jsonRpcDialect, '[{"jsonrpc":"2.0","id":1,"method":"ping"}]');
    expect(error.code).toBe('INVALID_MESSAGE');
    expect(error.message).toContain('Batches');
  });

  it('finds the id of a frame that could not be accepted, if it has one', () => {
    expect(replyToOf('{"jsonrpc":"2.0","id":7}')).toEqual({ rpcId: 7 });
    const many = `[${'[],'.repeat(5_000)}1]`;
    for (const [id, rpcId] of [
      ['7', 7],
      ['"a"', 'a'],
    ]) {
      expect(replyToOf(`{"jsonrpc":"2.0","id": ${id},"params":{"id":1,"x":${many}}}`)).toEqual({ rpcId });
      expect(replyToOf(`{"params":{"id":1,"x":${many}, "y":"\\"id\\":3"},"jsonrpc":"2.0","id":${id}}`)).toEqual({
        rpcId,
      });
    }
    expect(replyToOf(`{"jsonrpc":"2.0","id":{},"params":{"id":1,"x":${many}}}`)).toBeUndefined();
    expect(replyToOf(`{"jsonrpc":"2.0","params":${many},"x":"id`)).toBeUndefined();
    for (const frame of ['{', '[]', 'null', '{"id":7}', '{"jsonrpc":"2.0","id":{}}']) {
      expect(replyToOf(frame)).toBeUndefined();
    }
  });
});

describe('the dialect of the AI SDK', () => {
  it('reads a message with its request, and an abort, which gets no answer', () => {
    const frame = (type: string) => JSON.stringify({ type, requestId: 'r', id: 'chat_1', messages: [] });
    const fields = { id: 'chat_1', messages: [] };
    expect(uiChatDialect.decode(frame('submit-message'))).toEqual({
      name: 'submit-message',
      fields,
      replyTo: { rpcId: 'r' },
    });
    expect(uiChatDialect.decode(frame('abort'))).toEqual({
      name: 'abort',
      fields: { requestId: 'r' },
      replyTo: undefined,
    });
  });

  it('reads a request id of up to 128 characters', () => {
    const frame = (length: number) => JSON.stringify({ type: 'x', requestId: 'r'.repeat(length) });
    expect(uiChatDialect.decode(frame(128)).replyTo).toEqual({ rpcId: 'r'.repeat(128) });
    expect(decodeError(uiChatDialect, frame(129)).code).toBe('INVALID_MESSAGE');
  });

  it.each(['null', '5', '"x"', '[]', '{}', '{"type":"x"}', '{"requestId":"r"}', '{"type":1,"requestId":"r"}'])(
    'answers INVALID_MESSAGE to %s, which is no request',
    (frame) => {
      const error = decodeError(uiChatDialect, frame);
      expect(error.code).toBe('INVALID_MESSAGE');
      expect(error.message).toBe('A frame must be an object with "type" and "requestId".');
    },
  );

  it('answers JSON_ERROR to what is no JSON, or above 50,000 values or 64 levels', () => {
    const list = (commas: number) => `{"type":"x","requestId":"r","x":[${'1,'.repeat(commas)}1]}`;
    const levels = (depth: number) => `{"type":"x","requestId":"r","x":${'['.repeat(depth)}${']'.repeat(depth)}}`;
    // Two braces and brackets and two commas belong to the frame.
    expect(uiChatDialect.decode(list(UI_CHAT_BOUNDS.maxValues - 5)).name).toBe('x');
    expect(uiChatDialect.decode(levels(63)).name).toBe('x');
    for (const frame of ['', '{', list(UI_CHAT_BOUNDS.maxValues - 4), levels(64)]) {
      expect(decodeError(uiChatDialect, frame).code).toBe('JSON_ERROR');
    }
  });

  it('writes errors of requests, and no frame for anything else, which would end the socket', () => {
    const error = new TollgateError('RATE_LIMITED', { retryAfterMs: 5 });
    const { requestId, type, errorText } = JSON.parse(uiChatDialect.encodeError(error, NOW, { rpcId: 'r' }));
    expect([type, requestId]).toEqual(['error', 'r']);
    expect(JSON.parse(errorText)).toMatchObject({ error: { code: 'RATE_LIMITED', retry_after_ms: 5 } });
    expect(uiChatDialect.encodeError(error, NOW, undefined)).toBe('');
    expect(uiChatDialect.encodeError(error, NOW, { ack: () => {} })).toBe('');
    expect(uiChatDialect.encode('heartbeat', {}, NOW, undefined)).toBe('');
    expect(uiChatDialect.encodeEntry(ENTRY)).toBe('');
  });
});
