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

/** The request was not sent: the circuit breaker is open, or the concurrency limit of the server is reached. */
export class UpstreamBusy extends Error {
  readonly reason: 'breaker_open' | 'concurrency';

  constructor(reason: UpstreamBusy['reason']) {
    super(`request not sent: ${reason}`);
    this.name = 'UpstreamBusy';
    this.reason = reason;
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

/** Converts an error thrown by the SDK to one of the classes in this file. */
export function errorOf(thrown: unknown): Error {
  if (thrown instanceof UpstreamFault || thrown instanceof UpstreamRefusal) return thrown;
  if (thrown instanceof MissingCapability) return thrown;
  if (thrown instanceof Error && 'data' in thrown && thrown.data === NO_RESULT) {
    return new UpstreamFault('broken', thrown.message);
  }
  const code =
    thrown instanceof Error && !(thrown instanceof DOMException) && 'code' in thrown ? thrown.code : undefined;
  // The SDK's own errors have string codes. Numeric codes are JSON-RPC codes and come from the server.
  if (thrown instanceof Error && typeof code === 'number') return refusalOf(code, thrown);
  if (code === 'UNSUPPORTED_RESULT_TYPE') return new UpstreamRefusal(0, NEEDS_INPUT);
  const kind = code === 'REQUEST_TIMEOUT' ? 'timeout' : 'broken';
  return new UpstreamFault(kind, `no usable response: ${describe(thrown)}`);
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

/** Error text for callers that cannot receive input requests. */
export const NEEDS_INPUT = 'The tool needs input from its caller, but input requests are not forwarded here.';
