import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { closeAfter } from './open-resources.ts';

/** Stands between a process and Redis, and cuts the two off from each other when a test says so. */
export class TcpProxy {
  readonly url: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #isCut = false;

  private constructor(server: Server, target: URL) {
    this.#server = server;
    this.url = `redis://127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on('connection', (client) => this.#connected(client, target));
  }

  static async start(targetUrl: string): Promise<TcpProxy> {
    const server = createServer({ noDelay: true });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const proxy = new TcpProxy(server, new URL(targetUrl));
    closeAfter('file', () => proxy.#close());
    return proxy;
  }

  /** Ends every connection and lets no new one through. */
  cut(): void {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  restore(): void {
    this.#isCut = false;
  }

  #connected(client: Socket, { hostname, port }: URL): void {
    if (this.#isCut) {
      client.destroy();
      return;
    }
    const server = connect({ host: hostname, port: Number(port), noDelay: true });
    client.pipe(server);
    server.pipe(client);
    for (const [one, other] of [[client, server] as const, [server, client] as const]) {
      this.#sockets.add(one);
      one.on('error', () => other.destroy());
      one.on('close', () => {
        this.#sockets.delete(one);
        other.destroy();
      });
    }
  }

  async #close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
