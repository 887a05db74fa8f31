import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { closeAfter } from './open-resources.ts';

/** An HTTP server on loopback that counts its connections. */
export interface DecoyServer {
  readonly url: string;
  /** TCP connections so far, whatever their requests. */
  readonly connections: number;
  readonly requests: number;
}

/** Answers every request with this JSON, until the file ends. */
export async function startDecoyServer(answer: unknown): Promise<DecoyServer> {
  const counts = { connections: 0, requests: 0 };
  const server = createServer((_request, response) => {
    counts.requests += 1;
    response.setHeader('content-type', 'application/json').end(JSON.stringify(answer));
  });
  server.on('connection', () => {
    counts.connections += 1;
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closeAfter('file', () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  const { port } = server.address() as AddressInfo;
  return Object.assign(counts, { url: `http://127.0.0.1:${port}` });
}
