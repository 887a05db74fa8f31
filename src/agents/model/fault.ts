/** Why a request to a model failed: a bounded set, used as a label of metrics and in the error of the run. */
export const FAULT_REASONS = [
  'timeout',
  'unreachable',
  'interrupted',
  'invalid',
  'empty',
  'too_large',
  'authentication',
  'payment',
  'rate_limited',
  'unavailable',
  'request',
  'context_length',
  'length',
  'content_filter',
  'error',
] as const;
export type FaultReason = (typeof FAULT_REASONS)[number];

export interface FaultDetails {
  readonly reason: FaultReason;
  /** Whether a repetition of the same request may succeed. */
  readonly retryable: boolean;
  readonly status?: number | undefined;
  /** Milliseconds to wait before a retry, from `Retry-After`. */
  readonly retryAfterMs?: number | undefined;
  /** `code` (or `type`) of the endpoint's error. */
  readonly code?: string | undefined;
  /** The parameter that the endpoint's error names. */
  readonly param?: string | undefined;
}

/** Faults that another endpoint would report as well, because the conversation or the reply is the reason. */
const FINAL: ReadonlySet<FaultReason> = new Set(['context_length', 'length', 'content_filter']);

/**
 * Failure of one request to a model. Message, code and parameter are safe to log: they contain no host, key or text.
 */
export class ModelFault extends Error {
  readonly reason: FaultReason;
  readonly retryable: boolean;
  readonly status: number | undefined;
  readonly retryAfterMs: number | undefined;
  readonly code: string | undefined;
  readonly param: string | undefined;

  constructor(message: string, details: FaultDetails) {
    super(message);
    this.name = 'ModelFault';
    this.reason = details.reason;
    this.retryable = details.retryable;
    this.status = details.status;
    this.retryAfterMs = details.retryAfterMs;
    this.code = details.code;
    this.param = details.param;
  }

  /** Whether no endpoint can do better. */
  get final(): boolean {
    return FINAL.has(this.reason);
  }

  /** Whether the endpoint is starting, loading a model or overloaded: waiting helps, and costs nothing. */
  get loading(): boolean {
    return this.retryable && this.status === 503;
  }
}
