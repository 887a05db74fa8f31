import { ERRORS, type ErrorRow } from './error-table.ts';

/** Code of an error: the key of its row in the table. */
export type ErrorCode = keyof typeof ERRORS;

export interface ErrorDetails {
  /** Replaces the text of the row with a more specific one, which is just as public. */
  readonly text?: string;
  /** Logged, never sent to a client. */
  readonly cause?: unknown;
  /** Milliseconds until a retry can succeed. */
  readonly retryAfterMs?: number;
  /** Whether a retry may succeed, where this case differs from the row. */
  readonly retryable?: boolean;
  /** Further public fields of the error, e.g. `missing_permissions`. */
  readonly fields?: Readonly<Record<string, unknown>>;
}

/** A failure with a row in the table. Handlers throw it; the dispatcher converts it to a reply or a close frame. */
export class TollgateError extends Error {
  readonly code: ErrorCode;
  readonly retryAfterMs: number | undefined;
  readonly retryable: boolean;
  readonly fields: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, details: ErrorDetails = {}) {
    super(details.text ?? ERRORS[code].text, { cause: details.cause });
    this.name = 'TollgateError';
    this.code = code;
    this.retryAfterMs = details.retryAfterMs;
    this.retryable = details.retryable ?? ERRORS[code].retryable;
    this.fields = details.fields ?? {};
  }

  get row(): ErrorRow {
    return ERRORS[this.code];
  }

  /** Returns a copy of the error with further public fields. */
  with(fields: Readonly<Record<string, unknown>>): TollgateError {
    const { code, message: text, cause, retryAfterMs, retryable } = this;
    const details = { text, cause, retryable, fields: { ...this.fields, ...fields } };
    return new TollgateError(code, retryAfterMs === undefined ? details : { ...details, retryAfterMs });
  }
}

/** The part of an error that clients receive, the same in every dialect. */
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
    retryable: error.retryable,
    ...(error.retryAfterMs === undefined ? {} : { retry_after_ms: Math.ceil(error.retryAfterMs) }),
    ...error.fields,
  };
}

/** Maps any thrown value to the table. An unknown value becomes `INTERNAL_ERROR`; its text goes to `cause` only. */
export function toTollgateError(thrown: unknown): TollgateError {
  return thrown instanceof TollgateError ? thrown : new TollgateError('INTERNAL_ERROR', { cause: thrown });
}
