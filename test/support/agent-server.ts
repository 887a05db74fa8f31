import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A request to a remote agent, as it arrived. */
export interface AgentRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  readonly body: Readonly<Record<string, unknown>>;
}

export type Serve = (request: AgentRequest, response: ServerResponse, at: number) => void | Promise<void>;

/** A real HTTP server on loopback in the place of a remote agent. It records the requests. */
export class AgentServer {
  readonly requests: AgentRequest[] = [];
  /** Can be replaced between requests. */
  serve: Serve = (_request, response) => void response.writeHead(500).end();
  readonly #server = createServer((request, response) => void this.#accept(request, response));

  static async start(): Promise<AgentServer> {
    const server = new AgentServer();
    await new Promise<void>((resolve) => server.#server.listen(0, '127.0.0.1', resolve));
    return server;
  }

  get origin(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get url(): string {
    return `${this.origin}/agent`;
  }

  /** Ends all connections. */
  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #accept(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const text = Buffer.concat(chunks).toString();
    const seen = {
      method: request.method ?? '',
      path: request.url ?? '',
      headers: request.headers,
      text,
      body: text === '' ? {} : JSON.parse(text),
    };
    this.requests.push(seen);
    await this.serve(seen, response, this.requests.length - 1);
  }
}
