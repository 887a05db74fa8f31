import { readFileSync } from 'node:fs';
import { describe, expect, it } from '@jest/globals';
import { ERRORS } from '../../src/protocol/error-table.ts';
import { type ErrorCode, publicError, TollgateError, toTollgateError } from '../../src/protocol/errors.ts';

const PAGE = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8');
const CODES = Object.keys(ERRORS) as ErrorCode[];

/** Returns the rows of the table after its marker, as cells. */
function documentedRows(): string[][] {
  const lines = PAGE.slice(PAGE.indexOf('<!-- table -->')).split('\n').slice(3);
  const end = lines.findIndex((line) => !line.startsWith('|'));
  return lines.slice(0, end).map((line) => {
    return line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim());
  });
}

describe('docs/errors.md', () => {
  it('has every row of the table in the code, as it is there, and no other', () => {
    const rows = CODES.map((code) => {
      const { close, http, jsonrpc, retryable, text } = ERRORS[code];
      return [`\`${code}\``, String(close ?? '–'), String(http), String(jsonrpc), retryable ? 'yes' : 'no', text];
    });
    expect(documentedRows()).toEqual(rows);
  });
});

describe('the error table', () => {
  /** Codes whose numbers docs/errors.md fixes one by one. */
  it.each([
    [['NO_TOKEN', 'INVALID_FORMAT', 'VALIDATION_FAILED', 'TOKEN_REVOKED'], 1008, 401, -33401, false],
    [['USER_BLOCKED', 'USER_MISMATCH'], 1008, 403, -33401, false],
    [['CONFLICTING_CREDENTIALS'], 1008, 401, -33401, false],
    [['TOKEN_EXPIRED', 'AUTH_TIMEOUT'], 1008, 401, -33401, true],
    [['AUTH_RATE_LIMITED'], 1008, 429, -33029, true],
    [['RATE_LIMITED'], null, 429, -33029, true],
    [['AUTH_SERVICE_UNAVAILABLE', 'AUTH_SERVICE_TIMEOUT'], 1013, 503, -33503, true],
    [['AUTH_CIRCUIT_BREAKER_OPEN', 'INVALID_RESPONSE_FORMAT'], 1013, 503, -33503, true],
    [['MESSAGE_TOO_LARGE'], null, 413, -32600, false],
    [['JSON_ERROR'], null, 400, -32700, false],
    [['INVALID_MESSAGE', 'FORMAT_ERROR'], null, 400, -32600, false],
    [['UNKNOWN_MESSAGE_TYPE'], null, 400, -32601, false],
    [['PERMISSION_DENIED'], null, 403, -33003, false],
    [['QUOTA_EXCEEDED'], null, 402, -33030, false],
    [['TOOL_NOT_FOUND', 'TOOL_NOT_AVAILABLE', 'RUN_NOT_FOUND', 'AGENT_NOT_FOUND'], null, 404, -32602, false],
    [['TOOL_FAILED'], null, 502, -32602, false],
    [['OVERLOADED'], 1013, 503, -33503, true],
    [['INTERNAL_ERROR'], 1011, 500, -32603, true],
  ] as const)(
    'B42 gives %s the close code %s, HTTP %i, JSON-RPC %i, retryable %s',
    (codes, close, http, jsonrpc, retry) => {
      for (const code of codes) expect(ERRORS[code]).toMatchObject({ close, http, jsonrpc, retryable: retry });
    },
  );

  it('gives the codes that have no other row their own close codes', () => {
    expect(ERRORS.CONNECTION_LIMIT_EXCEEDED).toMatchObject({ close: 4001, retryable: false });
    expect(ERRORS.SLOW_CONSUMER).toMatchObject({ close: 4002 });
    expect(ERRORS.SERVER_DRAINING).toMatchObject({ close: 1012, http: 503 });
  });

  it('keeps its own JSON-RPC codes out of the range that JSON-RPC and MCP reserve', () => {
    // The last one is MCP's own, for a client that has not declared a required capability.
    const standard = [-32700, -32600, -32601, -32602, -32603, -32021];
    for (const { jsonrpc } of Object.values(ERRORS)) {
      const reserved = jsonrpc >= -32768 && jsonrpc <= -32000;
      expect(reserved && !standard.includes(jsonrpc as number)).toBe(false);
    }
  });

  it('has codes that fit into a close frame as its reason', () => {
    for (const code of CODES) expect(Buffer.byteLength(code)).toBeLessThanOrEqual(123);
  });

  it('has texts for refused credentials that tell nothing about what checks them', () => {
    const auth = CODES.filter((code) => ERRORS[code].jsonrpc === -33401 && ERRORS[code].close === 1008);
    expect(auth).toHaveLength(9);
    for (const code of auth) expect(ERRORS[code].text).not.toMatch(/jwt|token|database|internal|server|redis/i);
  });
});

describe('an error', () => {
  it('tells its row, its fields and the time to wait, rounded up', () => {
    const error = new TollgateError('RATE_LIMITED', { retryAfterMs: 0.2, fields: { request_id: 'r' } });
    expect(publicError(error)).toEqual({
      code: 'RATE_LIMITED',
      message: ERRORS.RATE_LIMITED.text,
      retryable: true,
      retry_after_ms: 1,
      request_id: 'r',
    });
  });

  it('keeps its cause to itself', () => {
    const cause = new Error('ECONNREFUSED redis-7.internal:6379 password=hunter2');
    const error = new TollgateError('OVERLOADED', { cause });
    expect(error.cause).toBe(cause);
    expect(JSON.stringify(publicError(error))).not.toMatch(/redis|hunter2/);
  });

  it('B54 says nothing of a throw that is none of ours', () => {
    for (const thrown of [new TypeError("reading 'sub' of undefined"), 'a secret', undefined, { token: 'x' }]) {
      const error = toTollgateError(thrown);
      expect(publicError(error)).toEqual({
        code: 'INTERNAL_ERROR',
        message: ERRORS.INTERNAL_ERROR.text,
        retryable: true,
      });
    }
    const known = new TollgateError('NO_TOKEN');
    expect(toTollgateError(known)).toBe(known);
  });
});
