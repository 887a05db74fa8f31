import { Agent, fetch as undiciFetch } from 'undici';
import type { Clock } from '../lib/clock.ts';
import { EventStreamParser, formatEvent } from '../lib/event-stream.ts';
import { UnusableResult } from './faults.ts';
import { type PostedRequest, postedRequest, readAnswer } from './http-answers.ts';
import { tooLarge } from './received.ts';

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
  /** Maximum size of a response body. A stream counts as one body. */
  readonly responseBytes: number;
}

/** HTTP client of one server, bounded in connections, time and size of each body. Change streams have no timeout. */
export class BoundedHttp {
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #maxBytes: number;
  readonly #agent: Agent;

  constructor({ clock }: { clock: Clock }, { timeoutMs, concurrency, responseBytes }: BoundedHttpOptions) {
    this.#clock = clock;
    this.#timeoutMs = timeoutMs + MARGIN_MS;
    this.#maxBytes = responseBytes;
    this.#agent = new Agent({
      connections: concurrency + SPARE_CONNECTIONS,
      connect: { timeout: CONNECT_TIMEOUT_MS },
      headersTimeout: 0,
      bodyTimeout: 0,
    });
  }

  /**
   * Has the signature of the global `fetch`.
   * @throws SessionLost, RateLimited, UpstreamRefusal when the server refuses a request; UnusableResult when its answer
   *   is too large
   */
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
      const request = postedRequest(init, headers);
      const isStream = (response.headers.get('content-type') ?? '').startsWith('text/event-stream');
      const overflow = request && isStream ? () => tooLargeEvent(request) : undefined;
      const bounded = response.body && this.#bounded(response.body as ReadableStream<Uint8Array>, cancel, overflow);
      const bodied = isStream ? bounded?.pipeThrough(eventsOnly()) : bounded;
      if (!bodied) cancel();
      const answer = new Response(bodied, { status, statusText, headers: [...response.headers] });
      return request ? await readAnswer(answer, request) : answer;
    } catch (error) {
      cancel();
      throw error;
    }
  };

  /** @param overflow returns the end of a body above the bound; without it, reading such a body fails */
  #bounded(
    body: ReadableStream<Uint8Array>,
    ended: () => void,
    overflow: (() => Uint8Array) | undefined,
  ): ReadableStream<Uint8Array> {
    const maxBytes = this.#maxBytes;
    let bytes = 0;
    const counted = new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        bytes += chunk.byteLength;
        if (bytes <= maxBytes) return controller.enqueue(chunk);
        ended();
        if (!overflow) throw new UnusableResult(`The response of the server is larger than ${maxBytes} bytes.`);
        controller.enqueue(overflow());
        controller.terminate();
      },
      flush: ended,
    });
    return body.pipeThrough(counted);
  }

  /** Closes all connections. Requests in flight fail. */
  close(): Promise<void> {
    return this.#agent.destroy();
  }
}

/** Passes on the events of a stream, without lines that are no part of one. The parser of the SDK needs 2 ms per KiB of these. */
function eventsOnly(): TransformStream<Uint8Array, Uint8Array> {
  const [decoder, encoder, parser] = [new TextDecoder(), new TextEncoder(), new EventStreamParser()];
  return new TransformStream({
    transform(bytes, controller) {
      const events = parser.feed(decoder.decode(bytes, { stream: true }));
      if (events.length > 0) controller.enqueue(encoder.encode(events.map(formatEvent).join('')));
    },
  });
}

/** Ends an event stream with an error response: the SDK would request a stream that broke off again. */
function tooLargeEvent({ id }: PostedRequest): Uint8Array {
  return new TextEncoder().encode(`\n\nevent: message\ndata: ${JSON.stringify(tooLarge(id))}\n\n`);
}

function late(): Error {
  return new Error('the request timed out');
}
