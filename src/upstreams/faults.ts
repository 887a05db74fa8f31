/** How a server failed: the label of metrics, and what a caller may know. */
export type FaultKind = 'unreachable' | 'timeout' | 'broken';

/** A server did not do what MCP servers do. What it answered, refusals included, is no fault. */
export class UpstreamFault extends Error {
  readonly kind: FaultKind;

  constructor(kind: FaultKind, message: string) {
    super(message);
    this.name = 'UpstreamFault';
    this.kind = kind;
  }
}

/** The request was not sent: the server has failed too often, or has too much to do. */
export class UpstreamBusy extends Error {
  readonly reason: 'breaker_open' | 'concurrency';

  constructor(reason: UpstreamBusy['reason']) {
    super(`not asked: ${reason}`);
    this.name = 'UpstreamBusy';
    this.reason = reason;
  }
}

/** The server's own refusal: an error of JSON-RPC. */
export class UpstreamRefusal extends Error {
  readonly code: number;
  /** Of `MISSING_CAPABILITY` what the server says is missing, of any form and size. */
  readonly data: unknown;

  constructor(code: number, message: string, data?: unknown) {
    super(message);
    this.name = 'UpstreamRefusal';
    this.code = code;
    this.data = data;
  }
}

/** MCP 2026-07-28, `MissingRequiredClientCapability`: the server would ask its caller something, and may not. */
export const MISSING_CAPABILITY = -32021;

/** The server needs something of its caller that this one has not declared. */
export class MissingCapability extends Error {
  /** In the form of MCP's `ClientCapabilities`. */
  readonly required: Readonly<Record<string, unknown>>;

  constructor(required: MissingCapability['required']) {
    super('a capability of the caller is missing');
    this.name = 'MissingCapability';
    this.required = required;
  }
}

/** The `data` of an error that no server has sent: see `endUnanswered`. */
export const NO_RESULT = Object.freeze({});

/** What the SDK threw, as one of these. */
export function errorOf(thrown: unknown): Error {
  if (thrown instanceof UpstreamFault || thrown instanceof UpstreamRefusal) return thrown;
  if (thrown instanceof MissingCapability) return thrown;
  if (thrown instanceof Error && 'data' in thrown && thrown.data === NO_RESULT) {
    return new UpstreamFault('broken', thrown.message);
  }
  const code =
    thrown instanceof Error && !(thrown instanceof DOMException) && 'code' in thrown ? thrown.code : undefined;
  // The SDK's own errors have texts for codes; numbers are those of JSON-RPC, and so the server's.
  if (thrown instanceof Error && typeof code === 'number') return refusalOf(code, thrown);
  if (code === 'UNSUPPORTED_RESULT_TYPE') return new UpstreamRefusal(0, NEEDS_INPUT);
  const kind = code === 'REQUEST_TIMEOUT' ? 'timeout' : 'broken';
  return new UpstreamFault(kind, `no usable answer: ${describe(thrown)}`);
}

function refusalOf(code: number, error: Error): UpstreamRefusal {
  if (code !== MISSING_CAPABILITY) return new UpstreamRefusal(code, error.message);
  return new UpstreamRefusal(code, NEEDS_INPUT, 'data' in error ? error.data : undefined);
}

/** Causes that are looked at. */
const MAX_CAUSES = 3;

/**
 * What went wrong, for a log: names, codes and statuses alone. The texts of the SDK's errors hold what the server sent, of
 * any length, which may be what it was sent.
 */
export function describe(thrown: unknown): string {
  const texts: string[] = [];
  for (let error = thrown; error instanceof Error && texts.length < MAX_CAUSES; error = error.cause) {
    const { code, status } = error as { code?: unknown; status?: unknown };
    texts.push([error.name, code, status].filter((part) => part !== undefined).join(' '));
  }
  return texts.join(', ') || 'unknown';
}

/** What callers are told that cannot be asked. */
export const NEEDS_INPUT = 'The tool asks its caller for something, which is not passed on here.';
