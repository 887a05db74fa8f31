import { type ClientRequest, type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http';
import { createParser } from 'eventsource-parser';
import { closeAfter } from './open-resources.ts';
import { until } from './until.ts';

/** One event of a stream, as a client parses it. */
export interface StreamEvent {
  readonly id: string | undefined;
  readonly data: Readonly<Record<string, unknown>>;
}

export interface StreamOptions {
  readonly method?: 'GET' | 'POST';
  readonly token?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

/** A client of an event stream over HTTP/1.1: opening → open → complete or broken. */
export class EventStreamClient {
  readonly events: StreamEvent[] = [];
  /** The bytes so far, as text. */
  text = '';
  status: number | undefined;
  headers: IncomingHttpHeaders = {};
  /** Undefined while the stream is open. */
  end: 'complete' | 'broken' | undefined;
  readonly #request: ClientRequest;
  #response: IncomingMessage | undefined;
  readonly #parser = createParser({
    onEvent: ({ id, data }) => {
      if (data !== '[DONE]') this.events.push({ id, data: JSON.parse(data) });
    },
  });

  constructor(url: string, { method = 'GET', token, headers = {}, body }: StreamOptions) {
    const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` };
    const type = body === undefined ? {} : { 'content-type': 'application/json' };
    this.#request = request(url, { method, headers: { ...authorization, ...type, ...headers }, agent: false });
    this.#request.on('response', (response) => this.#read(response));
    this.#request.on('error', () => {
      this.end ??= 'broken';
    });
    this.#request.end(body === undefined ? undefined : JSON.stringify(body));
  }

  get types(): unknown[] {
    return this.events.map(({ data }) => data.type);
  }

  get json(): Readonly<Record<string, unknown>> {
    return JSON.parse(this.text);
  }

  /** Stops reading, until `resume`. */
  pause(): void {
    this.#response?.socket.pause();
  }

  resume(): void {
    this.#response?.socket.resume();
  }

  /** Disconnects without reading the rest. */
  destroy(): void {
    this.#request.destroy();
  }

  async opened(): Promise<this> {
    await until(() => this.status !== undefined || this.end !== undefined);
    return this;
  }

  async ended(timeoutMs = 15_000): Promise<this> {
    await until(() => this.end !== undefined, { timeoutMs });
    return this;
  }

  async waitFor(type: string): Promise<StreamEvent> {
    let found: StreamEvent | undefined;
    await until(() => {
      found = this.events.find(({ data }) => data.type === type);
      return found !== undefined;
    });
    if (!found) throw new Error(`no ${type}`);
    return found;
  }

  #read(response: IncomingMessage): void {
    this.#response = response;
    this.status = response.statusCode;
    this.headers = response.headers;
    const isStream = response.headers['content-type']?.startsWith('text/event-stream');
    response.setEncoding('utf8');
    response.on('data', (text: string) => {
      this.text += text;
      if (isStream) this.#parser.feed(text);
    });
    response.on('error', () => undefined);
    response.on('close', () => {
      this.end = response.complete ? 'complete' : 'broken';
    });
  }
}

/** Opens a stream, until the end of the test at the latest. */
export function openStream(url: string, options: StreamOptions = {}): EventStreamClient {
  const client = new EventStreamClient(url, options);
  closeAfter('test', () => client.destroy());
  return client;
}
