import type { ServerResponse } from 'node:http';
import { type AgentRequest, AgentServer } from './agent-server.ts';

export interface ResponsesScript {
  /** Pieces of the answer. */
  readonly text: readonly string[];
  /** Ends the connection after this many events of the first stream: cleanly, or with a reset. */
  readonly cutAfter?: number;
  readonly cut?: 'end' | 'reset';
}

const ID = 'resp_1';

/**
 * A server with OpenAI's Responses API on loopback: it stores the one response that it makes, and streams it from the
 * start or after a sequence number.
 */
export class ResponsesServer {
  readonly server: AgentServer;
  script: ResponsesScript = { text: ['Hello.'] };
  /** Whether it has lost the response. */
  forgets = false;
  #streams = 0;

  private constructor(server: AgentServer) {
    this.server = server;
    server.serve = (request, response) => this.#serve(request, response);
  }

  static async start(): Promise<ResponsesServer> {
    return new ResponsesServer(await AgentServer.start());
  }

  get url(): string {
    return `${this.server.origin}/v1`;
  }

  /** Requests that created a response: what is paid for. */
  get created(): number {
    return this.server.requests.filter(({ method, path }) => method === 'POST' && path === '/v1/responses').length;
  }

  reset(script: ResponsesScript): void {
    this.script = script;
    this.server.requests.length = 0;
    this.forgets = false;
    this.#streams = 0;
  }

  /** The events of the response, in order; the index is the sequence number. */
  get events(): readonly Record<string, unknown>[] {
    const item = { id: 'msg_1', type: 'message', role: 'assistant' };
    const text = this.script.text.join('');
    const output = [{ ...item, status: 'completed', content: [{ type: 'output_text', text, annotations: [] }] }];
    const usage = { input_tokens: 7, output_tokens: 3, total_tokens: 10 };
    const response = { id: ID, object: 'response', status: 'in_progress', output: [] };
    const position = { item_id: item.id, output_index: 0, content_index: 0 };
    return [
      { type: 'response.created', response: { ...response, status: 'queued' } },
      { type: 'response.in_progress', response },
      { type: 'response.output_item.added', output_index: 0, item: { ...item, status: 'in_progress', content: [] } },
      { type: 'response.content_part.added', ...position, part: { type: 'output_text', text: '', annotations: [] } },
      ...this.script.text.map((delta) => ({ type: 'response.output_text.delta', ...position, delta })),
      { type: 'response.output_text.done', ...position, text },
      { type: 'response.output_item.done', output_index: 0, item: output[0] },
      { type: 'response.completed', response: { ...response, status: 'completed', output, usage } },
    ].map((event, sequence_number) => ({ ...event, sequence_number }));
  }

  #serve({ method, path }: AgentRequest, response: ServerResponse): void {
    const url = new URL(path, this.server.origin);
    if (method === 'POST' && url.pathname.endsWith('/cancel')) return void response.writeHead(200).end('{}');
    if (method === 'GET' && this.forgets) return void response.writeHead(404).end('{"error":{}}');
    const after = method === 'GET' ? Number(url.searchParams.get('starting_after') ?? -1) : -1;
    this.#stream(response, after);
  }

  #stream(response: ServerResponse, after: number): void {
    const { cutAfter = Number.POSITIVE_INFINITY, cut = 'end' } = this.#streams === 0 ? this.script : {};
    this.#streams += 1;
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    for (const [seq, event] of this.events.entries()) {
      if (seq <= after) continue;
      if (seq >= cutAfter) {
        // The data has left before the reset.
        if (cut === 'reset') setTimeout(() => response.socket?.resetAndDestroy(), 20);
        else response.end();
        return;
      }
      response.write(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
    }
    response.end();
  }
}
