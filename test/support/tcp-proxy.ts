import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { closeAfter } from './open-resources.ts';

/** A proxy between a process and Redis that disconnects or pauses them on demand. */
export class TcpProxy {
  readonly url: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** Both ends of each connection. */
  readonly #pairs = new Set<{ readonly client: Socket; readonly server: Socket }>();
  #target: URL;
  #isCut = false;
  #isHeld = false;

  private constructor(server: Server, target: URL) {
    this.#server = server;
    this.#target = target;
    this.url = `redis://127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on('connection', (client) => this.#connected(client));
  }

  static async start(targetUrl: string): Promise<TcpProxy> {
    const server = createServer({ noDelay: true });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const proxy = new TcpProxy(server, new URL(targetUrl));
    closeAfter('file', () => proxy.#close());
    return proxy;
  }

  /** Closes every connection and refuses new ones. */
  cut(): void {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  restore(): void {
    this.#isCut = false;
  }

  /** Buffers what the server sends, while connections stay open; what the kernel buffers is lost with them. */
  hold(): void {
    this.#isHeld = true;
    for (const { client, server } of this.#pairs) {
      server.unpipe(client);
      server.pause();
    }
  }

  release(): void {
    this.#isHeld = false;
    for (const { client, server } of this.#pairs) server.pipe(client);
  }

  /** Directs new connections to another server. */
  redirect(targetUrl: string): void {
    this.#target = new URL(targetUrl);
  }

  #connected(client: Socket): void {
    if (this.#isCut) {
      client.destroy();
      return;
    }
    const { hostname, port } = this.#target;
    const server = connect({ host: hostname, port: Number(port), noDelay: true });
    const pair = { client, server };
    this.#pairs.add(pair);
    client.once('close', () => this.#pairs.delete(pair));
    client.pipe(server);
    if (this.#isHeld) server.pause();
    else server.pipe(client);
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
