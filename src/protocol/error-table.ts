/**
 * Row of the error table, which contains every error that leaves Tollgate. HTTP responses, close frames, JSON-RPC
 * errors, `GET /ws/config` and docs/errors.md are derived from it. Clients branch on the code, never on the text. The
 * public text never contains a token, a host, a stack or a library's message; those belong in `cause`, which is only
 * logged.
 */
export interface ErrorRow {
  readonly text: string;
  /** WebSocket close code (RFC 6455 section 7.4); null if the connection stays open. */
  readonly close: number | null;
  readonly http: number;
  /**
   * Tollgate's own codes lie outside -32768..-32000, which JSON-RPC 2.0 and MCP reserve. Standard codes inside that
   * range are used as those specifications define them.
   */
  readonly jsonrpc: number;
  readonly retryable: boolean;
}

const AUTH = { close: 1008, http: 401, jsonrpc: -33401, retryable: false } as const;
const UNAVAILABLE = { close: 1013, http: 503, jsonrpc: -33503, retryable: true } as const;

export const ERRORS = {
  NO_TOKEN: {
    ...AUTH,
    text: 'Authentication required: no credential was presented. Send a bearer credential or a ticket.',
  },
  INVALID_FORMAT: {
    ...AUTH,
    text: 'Authentication failed: the credential has no accepted format. Check how it is encoded and sent.',
  },
  VALIDATION_FAILED: { ...AUTH, text: 'Authentication failed: the credential is invalid. Get a new one.' },
  TOKEN_REVOKED: { ...AUTH, text: 'Authentication failed: the credential has been revoked. Log in again.' },
  USER_BLOCKED: { ...AUTH, http: 403, text: 'Authentication failed: this account is blocked. Contact the operator.' },
  USER_MISMATCH: {
    ...AUTH,
    http: 403,
    text: 'Unauthorized: user mismatch. Present a credential that belongs to this user.',
  },
  CONFLICTING_CREDENTIALS: {
    ...AUTH,
    text: 'Authentication failed: the request contains different credentials. Send exactly one.',
  },
  TOKEN_EXPIRED: {
    ...AUTH,
    retryable: true,
    text: 'Authentication failed: the credential has expired. Get a new one and retry.',
  },
  AUTH_TIMEOUT: {
    ...AUTH,
    retryable: true,
    text: 'Authentication was not completed in time. Connect again and send a credential at once.',
  },
  AUTH_RATE_LIMITED: {
    close: 1008,
    http: 429,
    jsonrpc: -33029,
    retryable: true,
    text: 'Too many failed authentication attempts from this address. Retry later.',
  },
  RATE_LIMITED: {
    close: null,
    http: 429,
    jsonrpc: -33029,
    retryable: true,
    text: 'Rate limit exceeded: too many messages. Retry later.',
  },
  AUTH_SERVICE_UNAVAILABLE: {
    ...UNAVAILABLE,
    text: 'Authentication is temporarily unavailable (connection error). Retry later.',
  },
  AUTH_SERVICE_TIMEOUT: { ...UNAVAILABLE, text: 'Authentication timed out before the credential was verified. Retry.' },
  AUTH_CIRCUIT_BREAKER_OPEN: {
    ...UNAVAILABLE,
    text: 'Authentication is suspended after repeated errors. Retry later.',
  },
  INVALID_RESPONSE_FORMAT: {
    ...UNAVAILABLE,
    text: 'Authentication failed because the auth service sent an invalid response. Retry later.',
  },
  CONNECTION_LIMIT_EXCEEDED: {
    close: 4001,
    http: 429,
    jsonrpc: -33029,
    retryable: false,
    text: 'A newer connection of this user replaced this one. Use fewer connections at the same time.',
  },
  CONNECTION_CLOSED: {
    close: 4003,
    http: 410,
    jsonrpc: -33401,
    retryable: false,
    text: 'An operator closed this connection. Do not reconnect automatically.',
  },
  MESSAGE_TOO_LARGE: {
    close: null,
    http: 413,
    jsonrpc: -32600,
    retryable: false,
    text: 'The message is too large. Send a smaller one.',
  },
  JSON_ERROR: {
    close: null,
    http: 400,
    jsonrpc: -32700,
    retryable: false,
    text: 'The message is not valid JSON. Send one JSON object per message.',
  },
  INVALID_MESSAGE: {
    close: null,
    http: 400,
    jsonrpc: -32600,
    retryable: false,
    text: 'The message must be a JSON object with a non-empty string "type".',
  },
  UNKNOWN_MESSAGE_TYPE: {
    close: null,
    http: 400,
    jsonrpc: -32601,
    retryable: false,
    text: 'The message type is unknown. Send one of the documented types.',
  },
  FORMAT_ERROR: {
    close: null,
    http: 400,
    jsonrpc: -32600,
    retryable: false,
    text: 'A field of the message is missing or has the wrong form. Correct it and send the message again.',
  },
  UNSUPPORTED_DATA: {
    close: 1003,
    http: 415,
    jsonrpc: -32600,
    retryable: false,
    text: 'Binary frames are not supported. Send text frames.',
  },
  PERMISSION_DENIED: {
    close: null,
    http: 403,
    jsonrpc: -33003,
    retryable: false,
    text: 'Missing permissions: you may not perform this operation. Ask the operator for access.',
  },
  QUOTA_EXCEEDED: {
    close: null,
    http: 402,
    jsonrpc: -33030,
    retryable: false,
    text: 'The quota of this plan is exhausted. Wait until it resets, or upgrade the plan.',
  },
  TOOL_NOT_FOUND: {
    close: null,
    http: 404,
    jsonrpc: -32602,
    retryable: false,
    text: 'The tool does not exist. List the tools and use one of their names.',
  },
  TOOL_NOT_AVAILABLE: {
    close: null,
    http: 404,
    jsonrpc: -32602,
    retryable: false,
    text: 'The tool is not available: no executor is configured. Use another tool.',
  },
  TOOL_FAILED: {
    close: null,
    http: 502,
    jsonrpc: -32602,
    retryable: false,
    text: 'The tool failed. Check the arguments before you call it again.',
  },
  INPUT_REQUIRED: {
    close: null,
    http: 422,
    jsonrpc: -32602,
    retryable: true,
    text: 'The tool needs input from its caller. Answer the input requests and repeat the call.',
  },
  // Defined by MCP 2026-07-28.
  MISSING_CLIENT_CAPABILITY: {
    close: null,
    http: 400,
    jsonrpc: -32021,
    retryable: false,
    text: 'The operation needs input from its caller. Declare the required client capability in the request.',
  },
  REQUEST_STATE_INVALID: {
    close: null,
    http: 400,
    jsonrpc: -32602,
    retryable: false,
    text: 'The request state does not belong to this request, or it has expired. Repeat the request without it.',
  },
  RECORD_NOT_FOUND: {
    close: null,
    http: 404,
    jsonrpc: -32602,
    retryable: false,
    text: 'The usage record does not exist. Check its id.',
  },
  WINDOW_NOT_FOUND: {
    close: null,
    http: 404,
    jsonrpc: -32602,
    retryable: false,
    text: 'The usage window does not exist. Check its hour and its revision.',
  },
  WINDOW_NOT_CLOSED: {
    close: null,
    http: 409,
    jsonrpc: -32602,
    retryable: true,
    text: 'The usage window is still open. It closes a quarter of an hour after its end; retry then.',
  },
  RECORDS_TRIMMED: {
    close: null,
    http: 410,
    jsonrpc: -32602,
    retryable: false,
    text: 'The usage records were trimmed after every consumer had confirmed them. Read later records.',
  },
  IDEMPOTENCY_CONFLICT: {
    close: null,
    http: 422,
    jsonrpc: -32602,
    retryable: false,
    text: 'The idempotency key was already used for a different request. Use a new key.',
  },
  RUN_NOT_FOUND: {
    close: null,
    http: 404,
    jsonrpc: -32602,
    retryable: false,
    text: 'The run does not exist. Check its id.',
  },
  INPUT_NOT_FOUND: {
    close: null,
    http: 404,
    jsonrpc: -32602,
    retryable: false,
    text: 'The run has no such input request. Check the id of the input request.',
  },
  INPUT_ALREADY_ANSWERED: {
    close: null,
    http: 409,
    jsonrpc: -32602,
    retryable: false,
    text: 'The input request already has an answer, which counts.',
  },
  INPUT_EXPIRED: {
    close: null,
    http: 410,
    jsonrpc: -32602,
    retryable: false,
    text: 'The input request has expired without an answer.',
  },
  APPROVAL_DECLINED: {
    close: null,
    http: 403,
    jsonrpc: -33003,
    retryable: false,
    text: 'The user did not approve the call.',
  },
  EVENTS_TRIMMED: {
    close: null,
    http: 410,
    jsonrpc: -32602,
    retryable: false,
    text: 'The event log no longer contains these events. Read the state of the run, or its thread, instead.',
  },
  RUN_TIMEOUT: {
    close: null,
    http: 504,
    jsonrpc: -32603,
    retryable: true,
    text: 'The run exceeded its time limit. Start a new run.',
  },
  AGENT_NOT_FOUND: {
    close: null,
    http: 404,
    jsonrpc: -32602,
    retryable: false,
    text: 'The agent does not exist. Check its name.',
  },
  AGENT_UNAVAILABLE: {
    close: null,
    http: 503,
    jsonrpc: -33503,
    retryable: true,
    text: 'The server of the agent cannot be reached or refuses requests now. Start a new run later.',
  },
  AGENT_FAILED: {
    close: null,
    http: 502,
    jsonrpc: -32603,
    retryable: false,
    text: 'The agent failed, or its server sent an unusable response. Contact the operator if it happens again.',
  },
  AGENT_INTERRUPTED: {
    close: null,
    http: 500,
    jsonrpc: -32603,
    retryable: false,
    text: 'The run was interrupted, and its agent cannot continue it. Check what it did before you start a new run.',
  },
  AGENT_INPUT_REQUIRED: {
    close: null,
    http: 422,
    jsonrpc: -32602,
    retryable: false,
    text: 'The agent asked its user for input, and got none in time or a refusal. Start a new run.',
  },
  ENDPOINT_NOT_FOUND: {
    close: null,
    http: 404,
    jsonrpc: -32601,
    retryable: false,
    text: 'The endpoint does not exist. Check the method and the path.',
  },
  UPGRADE_REQUIRED: {
    close: null,
    http: 426,
    jsonrpc: -32600,
    retryable: false,
    text: 'This endpoint requires a WebSocket upgrade. Send an upgrade request with version 13.',
  },
  ORIGIN_NOT_ALLOWED: {
    close: null,
    http: 403,
    jsonrpc: -33401,
    retryable: false,
    text: 'The origin is not allowed. Ask the operator to add it to the allowed origins.',
  },
  AFFINITY_REQUIRED: {
    close: 1008,
    http: 400,
    jsonrpc: -32600,
    retryable: false,
    text: 'Long polling needs session affinity: its requests reached different nodes. Use the WebSocket transport.',
  },
  CONNECTION_TIMEOUT: {
    close: 1001,
    http: 408,
    jsonrpc: -32603,
    retryable: true,
    text: 'The client sent nothing for too long. Connect again and answer the pings.',
  },
  SLOW_CONSUMER: {
    close: 4002,
    http: 503,
    jsonrpc: -33503,
    retryable: true,
    text: 'The client reads too slowly. Connect again and resume.',
  },
  OVERLOADED: { ...UNAVAILABLE, text: 'The service is overloaded or temporarily unavailable. Retry later.' },
  SERVER_DRAINING: {
    close: 1012,
    http: 503,
    jsonrpc: -33503,
    retryable: true,
    text: 'This node is shutting down. Connect to another node.',
  },
  INTERNAL_ERROR: {
    close: 1011,
    http: 500,
    jsonrpc: -32603,
    retryable: true,
    text: 'An unexpected error occurred. Retry, and contact the operator if it happens again.',
  },
} as const satisfies Record<string, ErrorRow>;
