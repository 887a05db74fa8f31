import type { ServerResponse } from 'node:http';
import { type AgentRequest, AgentServer } from '../agent-server.ts';

const WORDS_PER_MESSAGE = 200;
const ID = 'resp_1';

/**
 * A Responses server on loopback that makes one response of numbered words at a fixed pace, whether or not a client
 * reads it. A stream can begin after any event.
 */
export class PacedResponses {
  readonly server: AgentServer;
  /** The text of the response so far. */
  text = '';
  words = 0;
  /** Requests that created a response: what is paid for. */
  created = 0;
  readonly #everyMs: number;
  readonly #events: string[] = [];
  readonly #streams = new Set<ServerResponse>();
  #timer: NodeJS.Timeout | undefined;
  #message = '';

  private constructor(server: AgentServer, everyMs: number) {
    this.server = server;
    this.#everyMs = everyMs;
    server.serve = (request, response) => this.#serve(request, response);
  }

  static async start(everyMs: number): Promise<PacedResponses> {
    return new PacedResponses(await AgentServer.start(), everyMs);
  }

  get url(): string {
    return `${this.server.origin}/v1`;
  }

  /** Completes the response. */
  finish(): void {
    clearInterval(this.#timer);
    const usage = { input_tokens: 7, output_tokens: this.words, total_tokens: 7 + this.words };
    this.#emit({
      type: 'response.completed',
      response: this.#response('completed', { output: [this.#item()], usage }),
    });
    for (const stream of this.#streams) stream.end();
  }

  /** Breaks the open streams. */
  cut(): void {
    for (const stream of this.#streams) stream.socket?.resetAndDestroy();
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.server.close();
  }

  #serve({ method, path }: AgentRequest, response: ServerResponse): void {
    let after = -1;
    if (method === 'GET') after = Number(new URL(path, this.server.origin).searchParams.get('starting_after'));
    else this.#create();
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    for (const event of this.#events.slice(after + 1)) response.write(event);
    this.#streams.add(response);
    response.once('close', () => this.#streams.delete(response));
  }

  #create(): void {
    this.created += 1;
    if (this.#timer) return;
    this.#emit({ type: 'response.created', response: this.#response('in_progress') });
    this.#timer = setInterval(() => this.#word(), this.#everyMs);
  }

  #word(): void {
    if (this.words % WORDS_PER_MESSAGE === 0) {
      this.#message = '';
      this.#emit({ type: 'response.output_item.added', output_index: 0, item: { ...this.#item(), content: [] } });
    }
    this.words += 1;
    const delta = `${this.words} `;
    this.text += delta;
    this.#message += delta;
    this.#emit({ type: 'response.output_text.delta', item_id: 'msg', output_index: 0, content_index: 0, delta });
  }

  #item(): object {
    const content = [{ type: 'output_text', text: this.#message, annotations: [] }];
    return { id: 'msg', type: 'message', role: 'assistant', content };
  }

  #response(status: string, more: object = {}): object {
    return { id: ID, object: 'response', output: [], ...more, status };
  }

  #emit(event: { readonly type: string; readonly [field: string]: unknown }): void {
    const text = JSON.stringify({ ...event, sequence_number: this.#events.length });
    this.#events.push(`event: ${event.type}\ndata: ${text}\n\n`);
    for (const stream of this.#streams) stream.write(this.#events.at(-1));
  }
}
