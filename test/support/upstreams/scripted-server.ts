import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { closeAfter } from '../open-resources.ts';

type Json = Readonly<Record<string, unknown>>;

/** One message that a scripted server received. */
export interface ScriptedRequest {
  readonly id: unknown;
  /** HTTP method for a request without a body. */
  readonly method: string;
  readonly params: Json;
  readonly headers: IncomingHttpHeaders;
}

/** What a scripted server answers. Without `status`, HTTP 200; a `body` that is text is sent unchanged. */
export type ScriptedAnswer =
  | 'silence'
  | 'reset'
  | { readonly result: Json }
  | { readonly error: Json }
  | { readonly status?: number; readonly headers?: Readonly<Record<string, string>>; readonly body?: unknown };

/** Answers by MCP method; a function can depend on the request. */
export type ScriptedAnswers = Readonly<Record<string, ScriptedAnswer | ((request: ScriptedRequest) => ScriptedAnswer)>>;

export const GREETING = { protocolVersion: '2025-06-18', serverInfo: { name: 'scripted', version: '1' } };
export const GOOD_TOOL = { name: 'good', inputSchema: { type: 'object' } };
export const GOOD_RESULT = { content: [{ type: 'text', text: 'fine' }] };

/** A server of 2025-06-18 without sessions, whose tool `good` works and which does not know `server/discover`. */
const ANSWERS: ScriptedAnswers = {
  'server/discover': { error: { code: -32601, message: 'Method not found' } },
  initialize: { result: { ...GREETING, capabilities: { tools: {} } } },
  'notifications/initialized': { status: 202 },
  'notifications/cancelled': { status: 202 },
  'tools/list': { result: { tools: [GOOD_TOOL] } },
  'tools/call': { result: GOOD_RESULT },
  GET: { status: 405 },
  DELETE: { status: 405 },
};

/** An HTTP server in this process that answers by a table. */
export class ScriptedServer {
  readonly requests: ScriptedRequest[] = [];
  answers: ScriptedAnswers;
  readonly #http = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => this.#answer(request.method ?? '', request.headers, Buffer.concat(chunks), response));
  });

  private constructor(answers: ScriptedAnswers) {
    this.answers = answers;
  }

  static async start(answers: ScriptedAnswers): Promise<ScriptedServer> {
    const server = new ScriptedServer(answers);
    await new Promise<void>((resolve) => server.#http.listen(0, '127.0.0.1', resolve));
    closeAfter('test', () => {
      server.#http.closeAllConnections();
      return new Promise((resolve) => server.#http.close(resolve));
    });
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#http.address() as AddressInfo).port}/mcp`;
  }

  received(method: string): ScriptedRequest[] {
    return this.requests.filter((request) => request.method === method);
  }

  #answer(httpMethod: string, headers: IncomingHttpHeaders, body: Buffer, response: ServerResponse): void {
    const message = body.length > 0 ? JSON.parse(body.toString()) : {};
    const request = { id: message.id, method: message.method ?? httpMethod, params: message.params ?? {}, headers };
    this.requests.push(request);
    const scripted = this.answers[request.method] ?? ANSWERS[request.method] ?? { status: 404 };
    const answer = typeof scripted === 'function' ? scripted(request) : scripted;
    if (answer === 'silence') return;
    if (answer === 'reset') return void response.destroy();
    const isRpc = 'result' in answer || 'error' in answer;
    const {
      status = 200,
      headers: more = {},
      body: content,
    } = isRpc ? { body: { id: request.id, ...answer } } : answer;
    const text = typeof content === 'string' ? content : content && JSON.stringify({ jsonrpc: '2.0', ...content });
    response.writeHead(status, { ...(text ? { 'content-type': 'application/json' } : {}), ...more }).end(text);
  }
}
