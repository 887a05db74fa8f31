import { Agent, fetch as undiciFetch } from 'undici';
import type { Clock } from '../lib/clock.ts';

/** Maximum size of a response body: sixteen times the bound of a result. A stream counts as one body. */
const MAX_BODY_BYTES = 1024 * 1024;
const CONNECT_TIMEOUT_MS = 5_000;
/** Time beyond the timeout of a request. Its caller has stopped waiting by then, so the stream must not stay open. */
const MARGIN_MS = 1_000;
/** Connections in addition to those of calls: for the change stream, cancellations and list requests. */
const SPARE_CONNECTIONS = 4;
const LISTEN = 'subscriptions/listen';

export interface BoundedHttpOptions {
  /** Timeout of one request, until the end of the response body. */
  readonly timeoutMs: number;
  /** Maximum number of concurrent requests. */
  readonly concurrency: number;
}

/** HTTP client of one server, bounded in connections, time and size of each body. Change streams have no timeout. */
export class BoundedHttp {
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #agent: Agent;

  constructor({ clock }: { clock: Clock }, { timeoutMs, concurrency }: BoundedHttpOptions) {
    this.#clock = clock;
    this.#timeoutMs = timeoutMs + MARGIN_MS;
    this.#agent = new Agent({
      connections: concurrency + SPARE_CONNECTIONS,
      connect: { timeout: CONNECT_TIMEOUT_MS },
      headersTimeout: 0,
      bodyTimeout: 0,
    });
  }

  /** Has the signature of the global `fetch`. */
  readonly fetch = async (url: string | URL, init: RequestInit = {}): Promise<Response> => {
    const headers = new Headers(init.headers);
    // No compression: a small compressed body can become arbitrarily large in memory.
    headers.set('accept-encoding', 'identity');
    const abort = new AbortController();
    const endless = init.method === 'GET' || headers.get('mcp-method') === LISTEN;
    const cancel = endless ? () => undefined : this.#clock.after(this.#timeoutMs, () => abort.abort(late()));
    const signal = init.signal ? AbortSignal.any([init.signal, abort.signal]) : abort.signal;
    try {
      const { method = 'GET', body = null } = init;
      const response = await undiciFetch(url, {
        method,
        headers: [...headers],
        body: body as string | null,
        signal,
        redirect: 'manual',
        dispatcher: this.#agent,
      });
      const { status, statusText } = response;
      const bodied = response.body && bounded(response.body as ReadableStream<Uint8Array>, cancel);
      if (!bodied) cancel();
      return new Response(bodied, { status, statusText, headers: [...response.headers] });
    } catch (error) {
      cancel();
      throw error;
    }
  };

  /** Closes all connections. Requests in flight fail. */
  close(): Promise<void> {
    return this.#agent.destroy();
  }
}

function late(): Error {
  return new Error('the request timed out');
}

function bounded(body: ReadableStream<Uint8Array>, ended: () => void): ReadableStream<Uint8Array> {
  let bytes = 0;
  const counted = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      bytes += chunk.byteLength;
      if (bytes <= MAX_BODY_BYTES) controller.enqueue(chunk);
      else throw new Error(`the response is larger than ${MAX_BODY_BYTES} bytes`);
    },
    flush: ended,
  });
  return body.pipeThrough(counted);
}
