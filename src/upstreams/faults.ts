/** Kind of a server failure; used in metric labels and for the public error text. */
export type FaultKind = 'unreachable' | 'timeout' | 'broken';

/** The server is unreachable, too slow or violates MCP. A valid response, also a refusal, is not a fault. */
export class UpstreamFault extends Error {
  readonly kind: FaultKind;

  constructor(kind: FaultKind, message: string) {
    super(message);
    this.name = 'UpstreamFault';
    this.kind = kind;
  }
}

/**
 * The server does not execute the request now: the circuit breaker is open, the concurrency limit of the server is
 * reached, or the server limits the rate.
 */
export class UpstreamBusy extends Error {
  readonly reason: 'breaker_open' | 'concurrency' | 'rate_limited';

  constructor(reason: UpstreamBusy['reason']) {
    super(`request not executed: ${reason}`);
    this.name = 'UpstreamBusy';
    this.reason = reason;
  }
}

/** Whom a rate limit of a server concerns: the user of the call, or all users. */
export type RateLimitScope = 'user' | 'server';

/** The server answered HTTP 429 or 503 with a rate limit, or an earlier answer of this kind still applies. */
export class RateLimited extends UpstreamBusy {
  readonly scope: RateLimitScope;
  /** Time until the server accepts requests again; undefined if it did not say. */
  readonly retryAfterMs: number | undefined;
  /** Text of the server, not bounded; undefined if it sent none. */
  readonly text: string | undefined;

  constructor(scope: RateLimitScope, retryAfterMs: number | undefined, text?: string) {
    super('rate_limited');
    this.name = 'RateLimited';
    this.scope = scope;
    this.retryAfterMs = retryAfterMs;
    this.text = text;
  }
}

/** A JSON-RPC error returned by the server. */
export class UpstreamRefusal extends Error {
  readonly code: number;
  /** For `MISSING_CAPABILITY`, the error data of the server, not validated and of any size. */
  readonly data: unknown;

  constructor(code: number, message: string, data?: unknown) {
    super(message);
    this.name = 'UpstreamRefusal';
    this.code = code;
    this.data = data;
  }
}

/**
 * The server answered with a result that cannot be used: it misses its schema or exceeds a bound. Only this call fails;
 * the server itself works.
 */
export class UnusableResult extends UpstreamRefusal {
  constructor(message: string) {
    super(0, message);
    this.name = 'UnusableResult';
  }
}

/** The server does not know the session of the connection any more; a new connection gets a new session. */
export class SessionLost extends UpstreamRefusal {
  /** Whether the server refused the request before it executed anything, so that it can be repeated. */
  readonly refusedUnread: boolean;

  /** @param text text of the server */
  constructor(refusedUnread: boolean, text = "The tool's server lost its session. Try again.") {
    super(0, text);
    this.name = 'SessionLost';
    this.refusedUnread = refusedUnread;
  }
}

/**
 * `MissingRequiredClientCapability` of MCP 2026-07-28: the server needs input that the client did not declare to
 * support.
 */
export const MISSING_CAPABILITY = -32021;

/** The server needs a client capability that the caller has not declared. */
export class MissingCapability extends Error {
  /** Missing capabilities, in the form of MCP's `ClientCapabilities`. */
  readonly required: Readonly<Record<string, unknown>>;

  constructor(required: MissingCapability['required']) {
    super('the caller lacks a required capability');
    this.name = 'MissingCapability';
    this.required = required;
  }
}

/** Marks an error that `endUnanswered` created, as opposed to one from the server. */
export const NO_RESULT = Object.freeze({});
/** `data` of the error that replaces a response above the bound of the server. */
export const TOO_LARGE = 'tollgate/response-too-large';

/** Converts an error thrown by the SDK to one of the classes in this file. */
export function errorOf(thrown: unknown): Error {
  if (thrown instanceof UpstreamFault || thrown instanceof UpstreamRefusal) return thrown;
  if (thrown instanceof MissingCapability || thrown instanceof UpstreamBusy) return thrown;
  if (thrown instanceof Error && 'data' in thrown && thrown.data === NO_RESULT) {
    return new UpstreamFault('broken', thrown.message);
  }
  if (thrown instanceof Error && 'data' in thrown && thrown.data === TOO_LARGE) {
    return new UnusableResult(RESPONSE_TOO_LARGE);
  }
  const code =
    thrown instanceof Error && !(thrown instanceof DOMException) && 'code' in thrown ? thrown.code : undefined;
  // The SDK's own errors have string codes. Numeric codes are JSON-RPC codes and come from the server.
  if (thrown instanceof Error && typeof code === 'number') return refusalOf(code, thrown);
  if (code === 'UNSUPPORTED_RESULT_TYPE') return new UpstreamRefusal(0, isTask(thrown) ? IS_TASK : NEEDS_INPUT);
  if (code === 'INVALID_RESULT') return new UnusableResult(NOT_MCP);
  const kind = code === 'REQUEST_TIMEOUT' ? 'timeout' : 'broken';
  return new UpstreamFault(kind, `no usable response: ${describe(thrown)}`);
}

function isTask(thrown: unknown): boolean {
  return JSON.stringify(thrown instanceof Error && 'data' in thrown ? thrown.data : null).includes('"task"');
}

function refusalOf(code: number, error: Error): UpstreamRefusal {
  if (code !== MISSING_CAPABILITY) return new UpstreamRefusal(code, error.message);
  return new UpstreamRefusal(code, NEEDS_INPUT, 'data' in error ? error.data : undefined);
}

/** Maximum number of errors in a cause chain that are described. */
const MAX_CAUSES = 3;

/**
 * Describes an error for the log by names, codes and statuses only. The messages of SDK errors contain text from the
 * server, of any length, which can repeat data of the request.
 */
export function describe(thrown: unknown): string {
  const texts: string[] = [];
  for (let error = thrown; error instanceof Error && texts.length < MAX_CAUSES; error = error.cause) {
    const { code, status } = error as { code?: unknown; status?: unknown };
    texts.push([error.name, code, status].filter((part) => part !== undefined).join(' '));
  }
  return texts.join(', ') || 'unknown';
}

const IS_TASK = 'The tool answers with a task of an MCP extension that the gateway does not support.';
const NOT_MCP = "The tool's result does not have the form that MCP defines.";
const RESPONSE_TOO_LARGE = "The tool's result is larger than the gateway accepts from its server.";

/** Error text for callers that cannot receive input requests. */
export const NEEDS_INPUT = 'The tool needs input from its caller, but input requests are not forwarded here.';

/** Returns the result of a failed request as the metrics label it. */
export function resultOf(error: unknown): string {
  if (error instanceof UpstreamFault) return error.kind;
  if (error instanceof UpstreamBusy) return error.reason;
  if (error instanceof MissingCapability) return 'input_required';
  if (error instanceof UnusableResult) return 'unusable';
  if (error instanceof SessionLost) return 'session_lost';
  return error instanceof UpstreamRefusal ? 'refused' : 'failed';
}
