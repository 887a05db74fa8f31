import { randomUUID } from 'node:crypto';
import { createServer, type Server as HttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  createMcpHandler,
  type McpHttpHandler,
  type Server,
  WebStandardStreamableHTTPServerTransport,
} from '@modelcontextprotocol/server';
import { answer } from '../../../scripts/lib/mcp-http.ts';
import { closeAfter, type Lifetime } from '../open-resources.ts';
import { mcpServer, type ServerScript } from './mcp-script.ts';

export interface SeenRequest {
  readonly method: string;
  readonly headers: IncomingMessage['headers'];
  readonly message: { readonly method?: string; readonly params?: Readonly<Record<string, unknown>> };
  /** Resolves when the client has disconnected or the response is complete. */
  readonly closed: Promise<void>;
}

/** Handles a request itself, or returns false to leave it to the server. */
export type Fault = (request: SeenRequest, response: ServerResponse) => boolean;

/** A real MCP server of both eras over HTTP on loopback, which can be made to violate MCP. */
export class HttpUpstream {
  readonly requests: SeenRequest[] = [];
  /** Can be replaced between requests. */
  fault: Fault = () => false;
  readonly script: ServerScript;
  readonly #handler: McpHttpHandler;
  #http: HttpServer | undefined;
  #port = 0;

  private constructor(script: ServerScript) {
    this.script = script;
    this.#handler = createMcpHandler(() => mcpServer(script));
  }

  static async start(script: ServerScript, lifetime: Lifetime = 'test'): Promise<HttpUpstream> {
    const upstream = new HttpUpstream(script);
    await upstream.listen();
    closeAfter(lifetime, () => upstream.close());
    return upstream;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}/mcp`;
  }

  /** Listens at the same port again, after `close`. */
  async listen(): Promise<void> {
    const http = createServer((request, response) => {
      this.#serve(request, response).catch(() => response.destroy());
    });
    this.#http = http;
    await new Promise<void>((resolve) => http.listen(this.#port, '127.0.0.1', resolve));
    this.#port = (http.address() as AddressInfo).port;
  }

  /** Cuts every connection, like a process that dies. */
  async close(): Promise<void> {
    const http = this.#http;
    this.#http = undefined;
    http?.closeAllConnections();
    await new Promise<void>((resolve) => (http ? http.close(() => resolve()) : resolve()));
  }

  /** Notifies subscribed clients that the list of tools has changed. */
  toolsChanged(): void {
    this.#handler.notify.toolsChanged();
  }

  /** Requests of an MCP method, oldest first. */
  received(method: string): SeenRequest[] {
    return this.requests.filter(({ message }) => message.method === method);
  }

  async #serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    outgoing.on('error', () => undefined);
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    const seen = {
      method: incoming.method ?? '',
      headers: incoming.headers,
      message: body.length > 0 ? JSON.parse(body.toString()) : {},
      closed: new Promise<void>((resolve) => outgoing.once('close', resolve)),
    };
    this.requests.push(seen);
    if (!this.fault(seen, outgoing)) await answer((request) => this.#handler.fetch(request), incoming, outgoing, body);
  }
}

/** A server of 2025-11-25 that keeps a session per client, as most servers of that revision do. */
export class SessionUpstream {
  readonly requests: string[] = [];
  readonly #sessions = new Map<string, { server: Server; transport: WebStandardStreamableHTTPServerTransport }>();
  readonly #http = createServer((request, response) => {
    this.#serve(request, response).catch(() => response.destroy());
  });
  readonly #script: ServerScript;

  private constructor(script: ServerScript) {
    this.#script = script;
  }

  static async start(script: ServerScript): Promise<SessionUpstream> {
    const upstream = new SessionUpstream(script);
    await new Promise<void>((resolve) => upstream.#http.listen(0, '127.0.0.1', resolve));
    closeAfter('test', () => {
      upstream.#http.closeAllConnections();
      return new Promise((resolve) => upstream.#http.close(resolve));
    });
    return upstream;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#http.address() as AddressInfo).port}/mcp`;
  }

  get sessions(): number {
    return this.#sessions.size;
  }

  /** Forgets all sessions, like a restarted server. */
  forget(): void {
    this.#sessions.clear();
  }

  async toolsChanged(): Promise<void> {
    for (const { server } of this.#sessions.values()) await server.sendToolListChanged();
  }

  async #serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    this.requests.push(`${incoming.method} ${/"method":"([^"]*)"/.exec(body.toString())?.[1] ?? ''}`);
    const id = incoming.headers['mcp-session-id'];
    const known = typeof id === 'string' ? this.#sessions.get(id) : undefined;
    if (id !== undefined && !known) {
      outgoing.writeHead(404).end();
      return;
    }
    const { transport } = known ?? (await this.#open());
    await answer((request) => transport.handleRequest(request), incoming, outgoing, body);
  }

  async #open() {
    const server = mcpServer(this.#script);
    const transport = new WebStandardStreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (id) => void this.#sessions.set(id, { server, transport }),
      onsessionclosed: (id) => void this.#sessions.delete(id),
    });
    await server.connect(transport);
    return { server, transport };
  }
}

/** A fault of tool calls only. */
export function onCalls(fault: (response: ServerResponse, request: SeenRequest) => void): Fault {
  return (request, response) => {
    if (request.message.method !== 'tools/call') return false;
    fault(response, request);
    return true;
  };
}
