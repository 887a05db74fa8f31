import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { LOOPBACK } from '../../scripts/lib/ports.ts';
import { listening } from './links.ts';

export type HttpFault = 'none' | 'unavailable' | 'garbage' | 'huge' | 'slow' | 'flapping';

const SLOW_MS = 8_000;
/** The proxy answers 503 in every second interval of this length. */
const FLAP_MS = 700;
/** A response of this size without an end would fill the memory of a client that reads all of it. */
const HUGE_BYTES = 64 << 20;
const CHUNK = Buffer.alloc(1 << 16, 'x');

/** A proxy in front of the auth service that can answer instead of it. */
export class HttpLink {
  readonly url: string;
  fault: HttpFault = 'none';
  readonly #server: ReturnType<typeof createServer>;
  #target = '';

  private constructor(server: ReturnType<typeof createServer>) {
    this.#server = server;
    this.url = `http://${LOOPBACK}:${(server.address() as AddressInfo).port}`;
    server.on('request', (incoming: IncomingMessage, outgoing: ServerResponse) => {
      incoming.on('error', () => outgoing.destroy());
      outgoing.on('error', () => incoming.destroy());
      this.#serve(this.#target, incoming, outgoing);
    });
  }

  static async start(): Promise<HttpLink> {
    return new HttpLink(await listening(createServer()));
  }

  /** Sets the target, and returns the URL of this proxy. */
  to(target: string): string {
    this.#target = target;
    return this.url;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #serve(target: string, incoming: IncomingMessage, outgoing: ServerResponse): void {
    const isDown = this.fault === 'flapping' && Math.floor(performance.now() / FLAP_MS) % 2 === 0;
    switch (isDown ? 'unavailable' : this.fault) {
      case 'unavailable':
        outgoing.writeHead(503, { 'content-type': 'application/json' }).end('{"error":"temporarily_unavailable"}');
        return;
      case 'garbage':
        outgoing.writeHead(200, { 'content-type': 'application/json' }).end('{"access_token":"half');
        return;
      case 'huge':
        outgoing.writeHead(200, { 'content-type': 'application/json' }).write('{"access_token":"');
        flood(outgoing, HUGE_BYTES);
        return;
      case 'slow':
        setTimeout(() => forward(target, incoming, outgoing), SLOW_MS);
        return;
      default:
        forward(target, incoming, outgoing);
    }
  }
}

/** Writes at the speed of the reader. */
function flood(outgoing: ServerResponse, bytes: number): void {
  if (outgoing.destroyed) return;
  if (bytes <= 0) outgoing.end('"}');
  else outgoing.write(CHUNK, () => flood(outgoing, bytes - CHUNK.length));
}

function forward(target: string, incoming: IncomingMessage, outgoing: ServerResponse): void {
  const { method, headers, url = '/' } = incoming;
  const onward = request(new URL(url, target), { method, headers, agent: false }, (response) => {
    outgoing.writeHead(response.statusCode ?? 502, response.headers);
    response.on('error', () => outgoing.destroy());
    response.pipe(outgoing);
  });
  onward.on('error', () => outgoing.destroy());
  // A process that is stopped by SIGSTOP never answers.
  outgoing.on('close', () => onward.destroy());
  incoming.pipe(onward);
}
