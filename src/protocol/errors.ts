/**
 * Every error that leaves Tollgate, as one table: HTTP answers, close frames, JSON-RPC errors, `GET /ws/config` and
 * docs/errors.md all come from it. Clients branch on the code, never on the text. The public text never holds a token,
 * a host, a stack or a library's message: those go to `cause`, which only the log sees.
 */
export interface ErrorRow {
  readonly text: string;
  /** WebSocket close code; null when the connection stays open. RFC 6455 section 7.4. */
  readonly close: number | null;
  readonly http: number;
  /** Ours lie outside -32768..-32000, which JSON-RPC 2.0 and MCP reserve; the standard ones inside are used as defined. */
  readonly jsonrpc: number;
  readonly retryable: boolean;
}

const AUTH = { close: 1008, http: 401, jsonrpc: -33401, retryable: false } as const;
const UNAVAILABLE = { close: 1013, http: 503, jsonrpc: -33503, retryable: true } as const;

export const ERRORS = {
  NO_TOKEN: { ...AUTH, text: 'Authentication required: no credential was presented.' },
  INVALID_FORMAT: { ...AUTH, text: 'Authentication failed: the credential is not in an accepted format.' },
  VALIDATION_FAILED: { ...AUTH, text: 'Authentication failed: the credential is invalid.' },
  TOKEN_REVOKED: { ...AUTH, text: 'Authentication failed: the credential has been revoked.' },
  USER_BLOCKED: { ...AUTH, http: 403, text: 'Authentication failed: this account is blocked.' },
  USER_MISMATCH: { ...AUTH, http: 403, text: 'Unauthorized: the credential belongs to another user (mismatch).' },
  CONFLICTING_CREDENTIALS: { ...AUTH, text: 'Authentication failed: the credentials presented disagree.' },
  TOKEN_EXPIRED: {
    ...AUTH,
    retryable: true,
    text: 'Authentication failed: the credential has expired; get a new one.',
  },
  AUTH_TIMEOUT: { ...AUTH, retryable: true, text: 'Authentication was not completed in time.' },
  AUTH_RATE_LIMITED: {
    close: 1008,
    http: 429,
    jsonrpc: -33029,
    retryable: true,
    text: 'Too many failed attempts from this address; try again later.',
  },
  RATE_LIMITED: {
    close: null,
    http: 429,
    jsonrpc: -33029,
    retryable: true,
    text: 'Rate limit exceeded: too many messages; try again later.',
  },
  AUTH_SERVICE_UNAVAILABLE: {
    ...UNAVAILABLE,
    text: 'Authentication is unavailable for the moment (connection error).',
  },
  AUTH_SERVICE_TIMEOUT: { ...UNAVAILABLE, text: 'Authentication timed out; try again.' },
  AUTH_CIRCUIT_BREAKER_OPEN: { ...UNAVAILABLE, text: 'Authentication is recovering from errors; try again shortly.' },
  INVALID_RESPONSE_FORMAT: { ...UNAVAILABLE, text: 'Authentication gave an unusable answer; try again.' },
  CONNECTION_LIMIT_EXCEEDED: {
    close: 4001,
    http: 429,
    jsonrpc: -33029,
    retryable: false,
    text: 'Closed because a newer connection of this user took its place.',
  },
  CONNECTION_CLOSED: {
    close: 4003,
    http: 410,
    jsonrpc: -33401,
    retryable: false,
    text: 'Closed by an operator.',
  },
  MESSAGE_TOO_LARGE: { close: null, http: 413, jsonrpc: -32600, retryable: false, text: 'The message is too large.' },
  JSON_ERROR: { close: null, http: 400, jsonrpc: -32700, retryable: false, text: 'The message is not valid JSON.' },
  INVALID_MESSAGE: {
    close: null,
    http: 400,
    jsonrpc: -32600,
    retryable: false,
    text: 'The message must be a JSON object with a non-empty string "type".',
  },
  UNKNOWN_MESSAGE_TYPE: { close: null, http: 400, jsonrpc: -32601, retryable: false, text: 'Unknown message type.' },
  FORMAT_ERROR: {
    close: null,
    http: 400,
    jsonrpc: -32600,
    retryable: false,
    text: 'A field of the message is missing or has the wrong form.',
  },
  UNSUPPORTED_DATA: {
    close: 1003,
    http: 415,
    jsonrpc: -32600,
    retryable: false,
    text: 'Binary frames are not understood here; send text.',
  },
  PERMISSION_DENIED: {
    close: null,
    http: 403,
    jsonrpc: -33003,
    retryable: false,
    text: 'Missing permissions for this operation.',
  },
  QUOTA_EXCEEDED: {
    close: null,
    http: 402,
    jsonrpc: -33030,
    retryable: false,
    text: 'The allowance of this plan is used up.',
  },
  TOOL_NOT_FOUND: { close: null, http: 404, jsonrpc: -32602, retryable: false, text: 'No such tool.' },
  TOOL_NOT_AVAILABLE: {
    close: null,
    http: 404,
    jsonrpc: -32602,
    retryable: false,
    text: 'This tool has no executor configured here.',
  },
  TOOL_FAILED: { close: null, http: 502, jsonrpc: -32602, retryable: false, text: 'The tool failed.' },
  INPUT_REQUIRED: {
    close: null,
    http: 422,
    jsonrpc: -32602,
    retryable: true,
    text: 'The tool asks its caller for something before it goes on.',
  },
  // As MCP 2026-07-28 defines it.
  MISSING_CLIENT_CAPABILITY: {
    close: null,
    http: 400,
    jsonrpc: -32021,
    retryable: false,
    text: 'This needs to ask its caller for something, which the request does not say that it can be asked.',
  },
  REQUEST_STATE_INVALID: {
    close: null,
    http: 400,
    jsonrpc: -32602,
    retryable: false,
    text: 'The request state is none of this request, or has expired; make the request again without it.',
  },
  RECORD_NOT_FOUND: { close: null, http: 404, jsonrpc: -32602, retryable: false, text: 'No such usage record.' },
  WINDOW_NOT_FOUND: { close: null, http: 404, jsonrpc: -32602, retryable: false, text: 'No such usage window.' },
  WINDOW_NOT_CLOSED: {
    close: null,
    http: 409,
    jsonrpc: -32602,
    retryable: true,
    text: 'The usage window is still open; it closes a quarter of an hour after its end.',
  },
  RECORDS_TRIMMED: {
    close: null,
    http: 410,
    jsonrpc: -32602,
    retryable: false,
    text: 'The usage records are no longer kept: every consumer had confirmed them.',
  },
  IDEMPOTENCY_CONFLICT: {
    close: null,
    http: 422,
    jsonrpc: -32602,
    retryable: false,
    text: 'This idempotency key was used for another request.',
  },
  RUN_NOT_FOUND: { close: null, http: 404, jsonrpc: -32602, retryable: false, text: 'No such run.' },
  RUN_TIMEOUT: { close: null, http: 504, jsonrpc: -32603, retryable: true, text: 'The run took too long.' },
  AGENT_NOT_FOUND: { close: null, http: 404, jsonrpc: -32602, retryable: false, text: 'No such agent.' },
  ENDPOINT_NOT_FOUND: { close: null, http: 404, jsonrpc: -32601, retryable: false, text: 'No such endpoint.' },
  UPGRADE_REQUIRED: {
    close: null,
    http: 426,
    jsonrpc: -32600,
    retryable: false,
    text: 'This endpoint is opened by a WebSocket upgrade of version 13.',
  },
  ORIGIN_NOT_ALLOWED: {
    close: null,
    http: 403,
    jsonrpc: -33401,
    retryable: false,
    text: 'This origin is not allowed.',
  },
  CONNECTION_TIMEOUT: {
    close: 1001,
    http: 408,
    jsonrpc: -32603,
    retryable: true,
    text: 'Nothing was heard from the client for too long.',
  },
  SLOW_CONSUMER: {
    close: 4002,
    http: 503,
    jsonrpc: -33503,
    retryable: true,
    text: 'The client reads too slowly; connect again and resume.',
  },
  OVERLOADED: { ...UNAVAILABLE, text: 'Overloaded; try again.' },
  SERVER_DRAINING: {
    close: 1012,
    http: 503,
    jsonrpc: -33503,
    retryable: true,
    text: 'This node is going away; connect to another one.',
  },
  INTERNAL_ERROR: { close: 1011, http: 500, jsonrpc: -32603, retryable: true, text: 'An unexpected error occurred.' },
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof ERRORS;

export interface ErrorDetails {
  /** Replaces the row's text where more can be said; as public as the row's own. */
  readonly text?: string;
  /** For the log only. */
  readonly cause?: unknown;
  /** Milliseconds until trying again can succeed. */
  readonly retryAfterMs?: number;
  /** Further public fields of the error, e.g. `missing_permissions`. */
  readonly fields?: Readonly<Record<string, unknown>>;
}

/** A failure with a row in the table: what a handler throws and one function turns into a reply or a close. */
export class TollgateError extends Error {
  readonly code: ErrorCode;
  readonly retryAfterMs: number | undefined;
  readonly fields: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, details: ErrorDetails = {}) {
    super(details.text ?? ERRORS[code].text, { cause: details.cause });
    this.name = 'TollgateError';
    this.code = code;
    this.retryAfterMs = details.retryAfterMs;
    this.fields = details.fields ?? {};
  }

  get row(): ErrorRow {
    return ERRORS[this.code];
  }

  /** The same error with further public fields. */
  with(fields: Readonly<Record<string, unknown>>): TollgateError {
    const { code, message: text, cause, retryAfterMs } = this;
    const details = { text, cause, fields: { ...this.fields, ...fields } };
    return new TollgateError(code, retryAfterMs === undefined ? details : { ...details, retryAfterMs });
  }
}

/** What a client is told of an error, in every dialect. */
export interface PublicError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly retryable: boolean;
  readonly retry_after_ms?: number;
  readonly [field: string]: unknown;
}

export function publicError(error: TollgateError): PublicError {
  return {
    code: error.code,
    message: error.message,
    retryable: error.row.retryable,
    ...(error.retryAfterMs === undefined ? {} : { retry_after_ms: Math.ceil(error.retryAfterMs) }),
    ...error.fields,
  };
}

/** Any throw as an error of the table: what is not one already is our own fault, and its text stays inside. */
export function toTollgateError(thrown: unknown): TollgateError {
  return thrown instanceof TollgateError ? thrown : new TollgateError('INTERNAL_ERROR', { cause: thrown });
}
