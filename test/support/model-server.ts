import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/** A request to the model, as it arrived. */
export interface ModelRequestSeen {
  readonly path: string;
  readonly authorization: string | undefined;
  readonly traceparent: string | undefined;
  readonly body: {
    readonly model: string;
    readonly messages: readonly {
      readonly role: string;
      readonly content: string | null;
      readonly [field: string]: unknown;
    }[];
    readonly tools?: readonly { readonly function: { readonly name: string } }[];
    readonly tool_choice?: string;
    readonly stream: boolean;
    readonly [field: string]: unknown;
  };
  /** Resolves when the client has disconnected or the response is complete. */
  readonly closed: Promise<void>;
  /** Whether the client disconnected before the response was complete. */
  readonly aborted: boolean;
}

export interface ScriptedCall {
  readonly id?: string;
  readonly name: string;
  /** An object, or a text that may be invalid JSON. */
  readonly args?: object | string;
}

/** The scripted response to one request. */
export interface ScriptedReply {
  /** Pieces of text, one chunk each. */
  readonly text?: readonly string[];
  readonly calls?: readonly ScriptedCall[];
  /** Milliseconds before each piece of text. */
  readonly pieceMs?: number;
  readonly usage?: { readonly prompt_tokens: number; readonly completion_tokens: number } | null;
  /** An HTTP status instead of a stream. */
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** The fault after the text. */
  readonly fault?: 'hang' | 'reset' | 'end' | 'endless';
  /** The fault after the end of the reply, before the usage chunk. */
  readonly after?: 'hang' | 'reset';
  /** Bytes that are sent literally, instead of chunks. */
  readonly raw?: string;
  /** Literal pieces of an event stream: an object is one event with JSON, a text is itself, a number a pause in ms. */
  readonly stream?: readonly (object | string | number)[];
  /** With `status`: the body. A text is sent as it is, everything else as JSON. */
  readonly body?: unknown;
}

export type Script = (request: ModelRequestSeen, at: number) => ScriptedReply;

/**
 * A real HTTP server on loopback that implements streaming chat completions of OpenAI. It responds as scripted and
 * records the requests.
 */
export class ModelServer {
  readonly requests: ModelRequestSeen[] = [];
  /** Can be replaced between requests. */
  script: Script;
  readonly #server = createServer((request, response) => void this.#serve(request, response));

  private constructor(script: Script) {
    this.script = script;
  }

  static async start(script: Script = () => ({ text: ['Nothing was scripted.'] })): Promise<ModelServer> {
    const server = new ModelServer(script);
    await new Promise<void>((resolve) => server.#server.listen(0, '127.0.0.1', resolve));
    return server;
  }

  /** The value for `AGENT_MODEL_URL`. */
  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/v1`;
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => undefined);
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const seen = {
      path: request.url ?? '',
      authorization: request.headers.authorization,
      traceparent: request.headers.traceparent as string | undefined,
      body: JSON.parse(Buffer.concat(chunks).toString() || '{}'),
      closed: new Promise<void>((resolve) => response.once('close', resolve)),
      get aborted() {
        return response.destroyed && !response.writableFinished;
      },
    };
    this.requests.push(seen);
    await answer(response, this.script(seen, this.requests.length - 1), seen.body.model);
  }
}

async function answer(response: ServerResponse, reply: ScriptedReply, model: string): Promise<void> {
  if (reply.status !== undefined) {
    response.writeHead(reply.status, { 'content-type': 'application/json', ...reply.headers });
    const { body = { error: { message: 'scripted fault with sk-secret-key in it', type: 'fault' } } } = reply;
    response.end(typeof body === 'string' ? body : JSON.stringify(body));
    return;
  }
  // A hang before the first byte.
  if (reply.fault === 'hang' && !reply.text) return;
  response.writeHead(200, { 'content-type': 'text/event-stream', ...reply.headers });
  if (reply.raw !== undefined) {
    response.end(reply.raw);
    return;
  }
  if (reply.stream) {
    await sendPieces(response, reply.stream);
    return;
  }
  const send = (choice: object | undefined, usage?: object | null) =>
    response.write(
      `data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', model, choices: choice ? [{ index: 0, ...choice }] : [], usage: usage ?? null })}\n\n`,
    );
  send({ delta: { role: 'assistant', content: '' }, finish_reason: null });
  for (const text of reply.text ?? []) {
    if (reply.pieceMs) await delay(reply.pieceMs);
    if (response.destroyed) return;
    send({ delta: { content: text }, finish_reason: null });
  }
  if (reply.fault === 'hang') return;
  if (reply.fault === 'reset') {
    // Lets the written bytes leave first.
    await delay(20);
    response.destroy();
    return;
  }
  while (reply.fault === 'endless' && !response.destroyed) {
    if (!send({ delta: { content: 'and so on ' }, finish_reason: null })) await delay(1);
  }
  sendCalls(reply.calls ?? [], send);
  if (reply.fault === 'end') {
    response.end();
    return;
  }
  send({ delta: {}, finish_reason: reply.calls ? 'tool_calls' : 'stop' });
  if (reply.after === 'hang') return;
  if (reply.after === 'reset') {
    await delay(20);
    response.destroy();
    return;
  }
  if (reply.usage !== null) send(undefined, reply.usage ?? { prompt_tokens: 100, completion_tokens: 10 });
  response.end('data: [DONE]\n\n');
}

async function sendPieces(response: ServerResponse, pieces: readonly (object | string | number)[]): Promise<void> {
  for (const piece of pieces) {
    if (response.destroyed) return;
    if (typeof piece === 'number') await delay(piece);
    else response.write(typeof piece === 'string' ? piece : `data: ${JSON.stringify(piece)}\n\n`);
    // Each piece leaves in a packet of its own.
    await delay(1);
  }
  response.end();
}

/** Sends calls as servers do: first the name, then the arguments in two pieces, with those of all calls interleaved. */
function sendCalls(calls: readonly ScriptedCall[], send: (choice: object) => void): void {
  const delta = (index: number, fields: object) =>
    send({ delta: { tool_calls: [{ index, ...fields }] }, finish_reason: null });
  const json = calls.map(({ args = {} }) => (typeof args === 'string' ? args : JSON.stringify(args)));
  for (const [index, { id = `call_${index}_abc`, name }] of calls.entries()) {
    delta(index, { id, type: 'function', function: { name, arguments: '' } });
  }
  for (const [index, text] of json.entries()) delta(index, { function: { arguments: text.slice(0, 3) } });
  for (const [index, text] of json.entries()) delta(index, { function: { arguments: text.slice(3) } });
}
