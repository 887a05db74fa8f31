import { isRetryableCode } from './protocol.ts';

export interface TollgateErrorInit {
  readonly message?: string | undefined;
  readonly retryable?: boolean | undefined;
  readonly retryAfterMs?: number | undefined;
  readonly fields?: Readonly<Record<string, unknown>> | undefined;
  readonly cause?: unknown;
}

/**
 * An error of the gateway or of this client. Branch on `code`, never on the message: the codes are those of the
 * gateway's error table, and those of `ClientErrorCode`.
 */
export class TollgateError extends Error {
  override readonly name: string = 'TollgateError';
  readonly code: string;
  /** Whether the same request can succeed later. */
  readonly retryable: boolean;
  /** Delay that the gateway asks for, in milliseconds. */
  readonly retryAfterMs: number | undefined;
  /** Further fields of the gateway's error, such as `resets_at`, `upgrade_path` or `field`. */
  readonly fields: Readonly<Record<string, unknown>>;

  constructor(code: string, init: TollgateErrorInit = {}) {
    super(init.message ?? code, init.cause === undefined ? undefined : { cause: init.cause });
    this.code = code;
    this.retryable = init.retryable ?? isRetryableCode(code);
    this.retryAfterMs = init.retryAfterMs;
    this.fields = init.fields ?? {};
  }
}

/** The connection ended and does not reconnect by itself: evicted, signed out, refused or closed by `close()`. */
export class ConnectionStoppedError extends TollgateError {
  override readonly name = 'ConnectionStoppedError';
}

/** The run ended with `agent_failed` or `agent_cancelled`. */
export class RunFailedError extends TollgateError {
  override readonly name = 'RunFailedError';
}

/**
 * The event log no longer contains all events of this run, so its outcome is unknown to this client. The thread's
 * history (`threads.history`) contains the answer if the run completed.
 */
export class EventsLostError extends TollgateError {
  override readonly name = 'EventsLostError';
}

/** Codes that this client adds to the gateway's. */
export type ClientErrorCode =
  | 'CLOSED'
  | 'DISCONNECTED'
  | 'NO_WEBSOCKET'
  | 'CANNOT_CONNECT'
  | 'SIGNED_OUT'
  | 'POSITION_NOT_SAVED'
  | 'REQUEST_TIMEOUT'
  | 'TOO_MANY_REQUESTS_PENDING'
  | 'RUN_BUFFER_FULL'
  | 'RUN_CANCELLED'
  | 'RUN_FAILED'
  | 'EVENTS_LOST';

/** Converts the fields of an error that the gateway sent. */
export function errorFromFields(fields: Readonly<Record<string, unknown>>): TollgateError {
  return new TollgateError(String(fields.code ?? 'INTERNAL_ERROR'), errorInit(fields));
}

export function errorInit(fields: Readonly<Record<string, unknown>>): TollgateErrorInit {
  const { code: _code, message, retryable, retry_after_ms, ...others } = fields;
  return {
    message: typeof message === 'string' ? message : undefined,
    retryable: typeof retryable === 'boolean' ? retryable : undefined,
    retryAfterMs: typeof retry_after_ms === 'number' ? retry_after_ms : undefined,
    fields: others,
  };
}
