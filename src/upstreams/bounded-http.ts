import { Agent, fetch as undiciFetch } from 'undici';
import type { Clock } from '../lib/clock.ts';

/** Sixteen times what is shown of a result; a stream counts as a whole. */
const MAX_BODY_BYTES = 1024 * 1024;
const CONNECT_TIMEOUT_MS = 5_000;
/** Of a request beyond its own: it has been given up by then, and its stream must not stay. */
const MARGIN_MS = 1_000;
/** Besides those of calls: for the stream of changes, and for what ends calls and looks at lists. */
const SPARE_CONNECTIONS = 4;
const LISTEN = 'subscriptions/listen';

export interface BoundedHttpOptions {
  /** Of one request, from its beginning to the end of its body. */
  readonly timeoutMs: number;
  /** Requests at once. */
  readonly concurrency: number;
}

/** HTTP to one server with bounds: connections, time, size of every body. Streams of changes have no bound in time. */
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

  /** As the `fetch` of the platform. */
  readonly fetch = async (url: string | URL, init: RequestInit = {}): Promise<Response> => {
    const headers = new Headers(init.headers);
    // What is small on the wire and large in memory has no bound that could be told beforehand.
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

  /** What is under way fails. */
  close(): Promise<void> {
    return this.#agent.destroy();
  }
}

function late(): Error {
  return new Error('the request took too long');
}

function bounded(body: ReadableStream<Uint8Array>, ended: () => void): ReadableStream<Uint8Array> {
  let bytes = 0;
  const counted = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      bytes += chunk.byteLength;
      if (bytes <= MAX_BODY_BYTES) controller.enqueue(chunk);
      else throw new Error(`the answer is larger than ${MAX_BODY_BYTES} bytes`);
    },
    flush: ended,
  });
  return body.pipeThrough(counted);
}
