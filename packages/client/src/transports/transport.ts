import type { Position } from '../stream-position.ts';

export type Fields = Readonly<Record<string, unknown>>;

export interface TransportOptions {
  /** `http:` or `https:` URL of the gateway. */
  readonly url: string;
  readonly token: string;
  readonly position: Position | undefined;
}

export interface CloseReason {
  /** Error code of the gateway, if it gave one. */
  readonly code: string | undefined;
  readonly retryable: boolean | undefined;
  readonly retryAfterMs: number | undefined;
  /** What the transport reports, for messages and logs. */
  readonly detail: string;
  /** The transport itself forbids a reconnect. */
  readonly final: boolean;
}

export interface TransportHandlers {
  message(type: string, fields: Fields): void;
  /** Called exactly once, also if the connection never opened. */
  closed(reason: CloseReason): void;
}

/** One connection. After `close` no handler is called any more. */
export interface Transport {
  send(type: string, fields: Fields): void;
  close(): void;
}

export type OpenTransport = (options: TransportOptions, handlers: TransportHandlers) => Transport;

export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function optionalNumber(value: unknown): number | undefined {
  return typeof value === 'number' ? value : undefined;
}

export function optionalBoolean(value: unknown): boolean | undefined {
  return typeof value === 'boolean' ? value : undefined;
}

/** Remembers the last connection error, and reports the close once. */
export class CloseTracker {
  readonly #handlers: TransportHandlers;
  #error: Fields | undefined;
  #closed = false;

  constructor(handlers: TransportHandlers) {
    this.#handlers = handlers;
  }

  /** Ends all reports: the client itself closes the transport. */
  mute(): void {
    this.#closed = true;
  }

  message(type: string, fields: Fields): void {
    if (this.#closed) return;
    // An error without a request id concerns the connection: the close that follows repeats its code at most.
    if (type === 'error' && typeof fields.request_id !== 'string') this.#error = fields;
    this.#handlers.message(type, fields);
  }

  /** @param code error code that the close itself carries */
  close(detail: string, { code, final = false }: { code?: string | undefined; final?: boolean } = {}): void {
    if (this.#closed) return;
    this.#closed = true;
    const error = this.#error;
    const known = code ?? (typeof error?.code === 'string' ? error.code : undefined);
    this.#handlers.closed({
      code: known,
      retryable: known === error?.code ? optionalBoolean(error?.retryable) : undefined,
      retryAfterMs: optionalNumber(error?.retry_after_ms),
      detail,
      final,
    });
  }
}
