import { REPLIES, type RequestType } from '../requests.ts';
import type { Position } from '../stream-position.ts';
import { EventStreamParser } from './event-stream-parser.ts';
import {
  CloseTracker,
  type Fields,
  isFields,
  type OpenTransport,
  type Transport,
  type TransportOptions,
} from './transport.ts';

/** The gateway sends a comment every 15 s, so a stream without one for longer is dead. */
const SILENCE_MS = 20_000;
const FIRST_DELAY_MS = 100;
const MAX_DELAY_MS = 2_000;

export interface SseOptions {
  /** Default: the global `fetch`. */
  readonly fetch?: typeof globalThis.fetch;
}

/**
 * Receives events as server-sent events (`GET /v1/events`) and sends requests as HTTP requests, where proxies allow no
 * WebSocket.
 */
export function sseTransport({ fetch = globalThis.fetch }: SseOptions = {}): OpenTransport {
  return (options, handlers) => new SseLink(options, new CloseTracker(handlers), (url, init) => fetch(url, init));
}

/** The HTTP request of a message: a GET unless it has a body. */
interface Call {
  readonly path: string;
  readonly body?: unknown;
}

/** @param thread the thread of requests that name none */
type CallOf = (fields: Fields, thread: Fields) => Call;

const runPath = ({ run_id }: Fields) => `/v1/runs/${segment(run_id)}`;
const CALLS: Readonly<Record<RequestType, CallOf>> = {
  agent_request: (fields, thread) => ({ path: '/v1/runs', body: { ...thread, ...fields } }),
  agent_cancel: (fields) => ({ path: `${runPath(fields)}/cancel`, body: {} }),
  run_status: (fields) => ({ path: runPath(fields) }),
  input_response: ({ input_id, action, content, ...run }) => {
    return { path: `${runPath(run)}/inputs/${segment(input_id)}`, body: { action, content } };
  },
  tool_call: ({ tool, ...fields }, thread) => ({ path: `/v1/tools/${segment(tool)}`, body: { ...thread, ...fields } }),
  tools_list: () => ({ path: '/v1/tools' }),
  threads_list: () => ({ path: '/v1/threads' }),
  thread_history: ({ thread_id, before, limit }) => {
    const query = new URLSearchParams(JSON.parse(JSON.stringify({ before, limit })));
    return { path: `/v1/threads/${segment(thread_id)}/messages?${query}` };
  },
  usage_summary: () => ({ path: '/v1/usage' }),
};

function segment(value: unknown): string {
  return encodeURIComponent(String(value));
}

type Fetch = (url: string, init: RequestInit) => Promise<Response>;

class SseLink implements Transport {
  readonly #base: string;
  readonly #tracker: CloseTracker;
  readonly #fetch: Fetch;
  readonly #closed = new AbortController();
  #token: string;
  #position: Position | undefined;
  /** Epoch of the log, and the thread of requests that name none. */
  #welcome: Fields | undefined;
  #stream = new AbortController();
  #lastBytesAt = 0;

  constructor({ url, token, position }: TransportOptions, tracker: CloseTracker, fetch: Fetch) {
    this.#base = url.replace(/\/$/, '');
    this.#token = token;
    this.#position = position;
    this.#tracker = tracker;
    this.#fetch = fetch;
    // Throws for a URL that is none.
    void this.#read(new URL(`${this.#base}/v1/events`).href, this.#stream);
  }

  send(type: string, fields: Fields): void {
    switch (type) {
      case 'resume':
        return this.#reopen({ after: Number(fields.after), epoch: String(fields.epoch) });
      case 'token_refresh':
        // A stream keeps the token of its request, so a newer one needs another stream.
        if (typeof fields.token !== 'string' || fields.token === this.#token) return;
        this.#token = fields.token;
        return this.#reopen(this.#position);
      case 'ping':
        if (Date.now() - this.#lastBytesAt < SILENCE_MS) this.#tracker.message('pong', {});
        return;
      default:
        if (type in CALLS) void this.#request(type as RequestType, fields);
    }
  }

  close(): void {
    this.#tracker.mute();
    this.#end();
  }

  #end(): void {
    this.#closed.abort();
    this.#stream.abort();
  }

  #reopen(position: Position | undefined): void {
    this.#stream.abort();
    this.#stream = new AbortController();
    this.#position = position;
    void this.#read(`${this.#base}/v1/events`, this.#stream);
  }

  async #read(url: string, stream: AbortController): Promise<void> {
    const { after, epoch } = this.#position ?? {};
    const query = epoch === undefined ? '' : `?${new URLSearchParams({ after: String(after), epoch })}`;
    let detail = 'Event stream: the gateway has ended it';
    try {
      const response = await this.#fetch(url + query, {
        headers: { authorization: `Bearer ${this.#token}`, accept: 'text/event-stream' },
        cache: 'no-store',
        signal: stream.signal,
      });
      if (!response.ok || !response.body) throw await this.#refusal(response);
      const parser = new EventStreamParser((data) => this.#received(data, stream));
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        this.#lastBytesAt = Date.now();
        if (parser.feed(value)) this.#tracker.message('heartbeat', {});
      }
    } catch (error) {
      detail = `Event stream: ${error instanceof Error ? error.message : error}`;
    }
    // Another stream has replaced this one, or the client has closed it.
    if (stream.signal.aborted) return;
    this.#end();
    this.#tracker.close(detail);
  }

  #received(data: string, stream: AbortController): void {
    if (stream.signal.aborted) return;
    const { type, timestamp, ...others } = parse(data) ?? {};
    if (typeof type !== 'string') return;
    const fields: Fields = { ...others, timestamp };
    if (type === 'connection_established') {
      // The client has its welcome when a stream is opened again.
      const isFirst = this.#welcome === undefined;
      this.#welcome = fields;
      this.#position ??= { after: Number(fields.seq), epoch: String(fields.epoch) };
      if (!isFirst) return;
    } else if (typeof fields.seq === 'number' && this.#welcome) {
      this.#position = { after: fields.seq, epoch: String(this.#welcome.epoch) };
    } else if (type === 'token_refreshed' && typeof fields.access_token === 'string') this.#token = fields.access_token;
    this.#tracker.message(type, fields);
  }

  /** Reports the error of a refused stream, which its close then carries. */
  async #refusal(response: Response): Promise<Error> {
    const error = errorOf(await response.text());
    if (error) this.#tracker.message('error', error);
    return new Error(`HTTP ${response.status}`);
  }

  async #request(type: RequestType, fields: Fields): Promise<void> {
    const { request_id } = fields;
    const thread_id = this.#welcome?.thread_id;
    const { path, body } = CALLS[type](fields, thread_id === undefined ? {} : { thread_id });
    const answer = await this.#repeat(path, body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) });
    if (answer === undefined) return;
    const { ok, text } = answer;
    // The answer about a tool that failed has an error too, beside its outcome.
    const error = ok ? undefined : errorOf(text);
    if (error) this.#tracker.message('error', { ...error, request_id });
    else this.#tracker.message(REPLIES[type], { ...parse(text), request_id });
  }

  /** Repeats a request until the gateway answers: its id makes that safe. @returns undefined if the client has closed */
  async #repeat(path: string, init: RequestInit): Promise<{ ok: boolean; text: string } | undefined> {
    for (let delayMs = FIRST_DELAY_MS; ; delayMs = Math.min(2 * delayMs, MAX_DELAY_MS)) {
      try {
        const headers = { authorization: `Bearer ${this.#token}`, 'content-type': 'application/json' };
        const signal = this.#closed.signal;
        const response = await this.#fetch(this.#base + path, { cache: 'no-store', ...init, headers, signal });
        const text = await response.text();
        // Anything else is the answer of a proxy, or of a node that drains.
        const code = errorOf(text)?.code;
        const { ok } = response;
        if (ok || (code !== undefined && code !== 'SERVER_DRAINING')) return { ok, text };
      } catch {
        // The network, or a node that was killed.
      }
      if (this.#closed.signal.aborted) return undefined;
      await new Promise((resolve) => setTimeout(resolve, Math.random() * delayMs));
    }
  }
}

function parse(text: string): Fields | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isFields(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** The error of an HTTP answer. */
function errorOf(text: string): Fields | undefined {
  const { error } = parse(text) ?? {};
  return isFields(error) && typeof error.code === 'string' ? error : undefined;
}
