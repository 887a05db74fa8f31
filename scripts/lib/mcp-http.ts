import { createServer, type Server as HttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { createMcpHandler, type Server } from '@modelcontextprotocol/server';

export interface McpHttpServer {
  readonly url: string;
  readonly http: HttpServer;
  close(): Promise<void>;
}

/** Serves MCP of both eras on a free loopback port: the SDK's handler behind Node's HTTP server. */
export async function serveMcp(factory: () => Server, port = 0): Promise<McpHttpServer> {
  const handler = createMcpHandler(factory);
  const http = createServer((request, response) => {
    bodyOf(request)
      .then((bytes) => answer(handler.fetch, request, response, bytes))
      .catch(() => response.destroy());
  });
  await new Promise<void>((resolve, reject) => {
    http.once('error', reject);
    http.listen(port, '127.0.0.1', resolve);
  });
  const close = async () => {
    await handler.close();
    http.closeAllConnections();
    await new Promise((resolve) => http.close(resolve));
  };
  return { url: `http://127.0.0.1:${(http.address() as AddressInfo).port}/mcp`, http, close };
}

async function bodyOf(incoming: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

type Handler = (request: Request) => Promise<Response>;

/** Answers a request of Node's HTTP server with a web-standard handler. */
export async function answer(
  handle: Handler,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  bytes: Buffer,
): Promise<void> {
  const disconnected = new AbortController();
  outgoing.once('close', () => disconnected.abort());
  const { method = 'GET', headers, url = '/' } = incoming;
  const body = method === 'POST' ? { body: bytes } : {};
  const given = Object.entries(headers).flatMap(([name, value]): [string, string][] => {
    return typeof value === 'string' ? [[name, value]] : [];
  });
  const request = new Request(`http://127.0.0.1${url}`, {
    method,
    headers: given,
    signal: disconnected.signal,
    ...body,
  });
  const response = await handle(request);
  outgoing.writeHead(response.status, Object.fromEntries(response.headers));
  if (!response.body) outgoing.end();
  else
    Readable.fromWeb(response.body)
      .on('error', () => outgoing.destroy())
      .pipe(outgoing);
}
