import { createServer as createHttpServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { LOOPBACK } from '../../scripts/lib/ports.ts';

/** A TCP connection between the processes and Redis that can be slow, cut, or silent in one direction. */
export class TcpLink {
  readonly port: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #latencyMs = 0;
  #isCut = false;
  #isSilent = false;
  #release: (() => void)[] = [];

  private constructor(server: Server, targetPort: number) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
    server.on('connection', (client) => this.#connected(client, targetPort));
  }

  static async start(targetPort: number): Promise<TcpLink> {
    return new TcpLink(await listening(createServer({ noDelay: true })), targetPort);
  }

  /** Delays every packet in both directions. */
  slow(latencyMs: number): void {
    this.#latencyMs = latencyMs;
  }

  /** Closes all connections and refuses new ones. */
  cut(): void {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Holds what the target sends, while requests pass: a one-way partition. */
  silence(): void {
    this.#isSilent = true;
  }

  heal(): void {
    this.#latencyMs = 0;
    this.#isCut = false;
    this.#isSilent = false;
    for (const release of this.#release.splice(0)) release();
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #connected(client: Socket, targetPort: number): void {
    if (this.#isCut) {
      client.destroy();
      return;
    }
    const target = connect({ host: LOOPBACK, port: targetPort, noDelay: true });
    this.#forward(client, target, false);
    this.#forward(target, client, true);
  }

  #forward(from: Socket, to: Socket, canBeSilent: boolean): void {
    /** Packets on their way, in order: a later one never overtakes an earlier one, also when the latency falls. */
    const waiting: { readonly bytes: Buffer; readonly dueAt: number }[] = [];
    let held: Buffer[] | undefined;
    const write = (bytes: Buffer) => {
      if (!to.destroyed) to.write(bytes);
    };
    const flush = () => {
      const now = performance.now();
      for (let [next] = waiting; next && next.dueAt <= now; [next] = waiting) {
        waiting.shift();
        write(next.bytes);
      }
      const [next] = waiting;
      if (next) setTimeout(flush, next.dueAt - now);
    };
    this.#sockets.add(from);
    from.on('data', (bytes: Buffer) => {
      if (held) held.push(bytes);
      else if (canBeSilent && this.#isSilent) {
        const kept = [bytes];
        held = kept;
        this.#release.push(() => {
          held = undefined;
          for (const one of kept) write(one);
        });
      } else {
        waiting.push({ bytes, dueAt: performance.now() + this.#latencyMs });
        if (waiting.length === 1) flush();
      }
    });
    from.on('error', () => to.destroy());
    from.on('close', () => {
      this.#sockets.delete(from);
      to.destroy();
    });
  }
}

export type HttpFault = 'none' | 'unavailable' | 'garbage' | 'slow';

const SLOW_MS = 8_000;

/** A proxy in front of the auth service that can answer instead of it. */
export class HttpLink {
  readonly url: string;
  fault: HttpFault = 'none';
  readonly #server: ReturnType<typeof createHttpServer>;
  #target = '';

  private constructor(server: ReturnType<typeof createHttpServer>) {
    this.#server = server;
    this.url = `http://${LOOPBACK}:${(server.address() as AddressInfo).port}`;
    server.on('request', (incoming: IncomingMessage, outgoing: ServerResponse) => {
      incoming.on('error', () => outgoing.destroy());
      this.#serve(this.#target, incoming, outgoing);
    });
  }

  static async start(): Promise<HttpLink> {
    return new HttpLink(await listening(createHttpServer()));
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
    switch (this.fault) {
      case 'unavailable':
        outgoing.writeHead(503, { 'content-type': 'application/json' }).end('{"error":"temporarily_unavailable"}');
        return;
      case 'garbage':
        outgoing.writeHead(200, { 'content-type': 'application/json' }).end('{"access_token":"half');
        return;
      case 'slow':
        setTimeout(() => forward(target, incoming, outgoing), SLOW_MS);
        return;
      case 'none':
        forward(target, incoming, outgoing);
    }
  }
}

function forward(target: string, incoming: IncomingMessage, outgoing: ServerResponse): void {
  const { method, headers, url = '/' } = incoming;
  const onward = request(new URL(url, target), { method, headers, agent: false }, (response) => {
    outgoing.writeHead(response.statusCode ?? 502, response.headers);
    response.on('error', () => outgoing.destroy());
    response.pipe(outgoing);
  });
  onward.on('error', () => outgoing.destroy());
  incoming.pipe(onward);
}

async function listening<S extends Server>(server: S): Promise<S> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, LOOPBACK, resolve);
  });
  return server;
}
