import type { ServerResponse } from 'node:http';
import type { Transport } from '../connections/transport.ts';
import type { Clock } from '../lib/clock.ts';
import { socketProgress } from '../lib/socket-progress.ts';
import { TollgateError } from '../protocol/errors.ts';
import { errorBody, errorHeaders } from '../protocol/http-errors.ts';
import type { Fields, LogEntry, ServerEventType } from '../protocol/messages.ts';

/** Response headers by lower-case name. */
export type ResponseHeaders = Readonly<Record<string, string | number | string[] | undefined>>;

/** What an encoder writes for one event. */
export interface StreamOutput {
  readonly bytes: string | Uint8Array;
  /** The stream is complete after these bytes. */
  readonly ends?: true;
}

/** Renders what a connection delivers in the form of one protocol. One instance serves one stream. */
export interface StreamEncoder {
  /** Name of the protocol, as the metrics label it. */
  readonly protocol: string;
  readonly contentType: string;
  /** Further headers of the response. */
  readonly headers?: ResponseHeaders;
  /** Bytes without a meaning: the first ones of the stream, and those that are sent during silence. */
  readonly keepAlive: string | Uint8Array | undefined;
  /** A durable event, of any run of the user; undefined if the stream does not contain it. */
  entry(entry: LogEntry): StreamOutput | undefined;
  /** A transient event of the connection; undefined if the protocol has none for it. */
  message(type: ServerEventType, fields: Fields): StreamOutput | undefined;
  /** The terminal event of the protocol for a stream that breaks with an error. */
  error(error: TollgateError): string | Uint8Array;
}

/**
 * Time between the terminal event of a broken stream and the reset of its connection: long enough for the event to
 * leave a proxy that buffers. A regular end of the response would look like the end of a complete stream, and several
 * proxies turn a FIN into one (docs/front-ends.md).
 */
const RESET_AFTER_MS = 250;

const STREAM_HEADERS: ResponseHeaders = {
  // Proxies must not store, compress or collect the stream. nginx reads the third header.
  'cache-control': 'no-cache, no-transform',
  'x-accel-buffering': 'no',
};

export interface EventStreamOptions {
  /** Path of the route. */
  readonly endpoint: string;
  readonly stream: string | undefined;
  readonly encoder: StreamEncoder;
  /** Headers that the hooks of the route have set. */
  readonly headers: ResponseHeaders;
}

export interface EventStreamDeps {
  readonly response: ServerResponse;
  readonly clock: Clock;
  /** Receives the promise of the end of a response that is being closed, so that a drain waits for it. */
  readonly closing: (ended: Promise<void>) => void;
}

/**
 * Transport over the response of an HTTP request. The head is written with the welcome, so an error before it is a
 * plain HTTP error.
 *
 *     waiting ──welcome──► streaming ──terminal event──► ended, regularly
 *        └─close: HTTP error      └──close: terminal event of the protocol, then a reset──► ended
 */
export class EventStreamTransport implements Transport {
  readonly format = 'event_stream';
  readonly endpoint: string;
  readonly stream?: string;
  readonly #response: ServerResponse;
  readonly #deps: EventStreamDeps;
  readonly #options: EventStreamOptions;
  #state: 'waiting' | 'streaming' | 'ended' = 'waiting';
  /** Reason of the end, once known: for the metrics. */
  #result: string | undefined;

  constructor(deps: EventStreamDeps, options: EventStreamOptions) {
    this.#response = deps.response;
    this.#deps = deps;
    this.#options = options;
    this.endpoint = options.endpoint;
    if (options.stream !== undefined) this.stream = options.stream;
  }

  get bufferedBytes(): number {
    return this.#response.writableLength;
  }

  get progress(): string {
    return socketProgress(this.#response.socket);
  }

  /** How the stream ended: `complete`, a code, or `disconnected` when the client closed it. */
  get result(): string {
    return this.#result ?? 'disconnected';
  }

  send(type: ServerEventType, fields: Fields): void {
    if (type === 'connection_established' && this.#state === 'waiting') this.#begin();
    if (type === 'server_draining') {
      const retryAfterMs = Number(fields.retry_after_ms);
      return this.sendError(new TollgateError('SERVER_DRAINING', { retryAfterMs }));
    }
    if (this.#state === 'streaming') this.#write(this.#options.encoder.message(type, fields));
  }

  sendEntry(entry: LogEntry): void {
    if (this.#state === 'streaming') this.#write(this.#options.encoder.entry(entry));
  }

  /** Ends the stream with the terminal event of the protocol, or the request with an HTTP error. */
  sendError(error: TollgateError): void {
    this.#result ??= error.code;
    if (this.#state === 'waiting') this.#refuse(error);
    else if (this.#state === 'streaming') this.#response.write(this.#options.encoder.error(error));
    this.#state = 'ended';
  }

  /** Nothing answers a ping: the keep-alive bytes show whether the client still reads. */
  ping(): void {}

  keepAlive(): void {
    const { keepAlive } = this.#options.encoder;
    if (this.#state === 'streaming' && keepAlive !== undefined) this.#response.write(keepAlive);
  }

  close(): void {
    const response = this.#response;
    if (response.writableFinished || response.destroyed) return;
    this.#deps.closing(new Promise((resolve) => response.once('close', () => resolve())));
    // Also bounds a regular end whose last bytes the client does not read.
    this.#deps.clock.after(RESET_AFTER_MS, () => {
      if (!response.writableFinished) response.socket?.resetAndDestroy();
    });
  }

  #begin(): void {
    const { encoder, headers } = this.#options;
    const own = { 'content-type': encoder.contentType, ...STREAM_HEADERS, ...encoder.headers };
    this.#response.writeHead(200, { ...headers, ...own });
    this.#state = 'streaming';
    // A proxy may send the head only with the first bytes of the body.
    if (encoder.keepAlive === undefined) this.#response.flushHeaders();
    else this.#response.write(encoder.keepAlive);
  }

  #write(output: StreamOutput | undefined): void {
    if (!output) return;
    if (!output.ends) {
      this.#response.write(output.bytes);
      return;
    }
    this.#state = 'ended';
    this.#result = 'complete';
    this.#response.end(output.bytes);
  }

  #refuse(error: TollgateError): void {
    const body = errorBody(error);
    const own = { 'content-type': 'application/json; charset=utf-8', 'content-length': Buffer.byteLength(body) };
    this.#response.writeHead(error.row.http, { ...this.#options.headers, ...errorHeaders(error), ...own }).end(body);
  }
}
