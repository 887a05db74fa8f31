import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { LOOPBACK } from '../../scripts/lib/ports.ts';

/** What is wrong with a link. Several faults of a link last at once; the strongest of each kind applies. */
export type LinkFault =
  /** Delays every packet in both directions. */
  | { readonly kind: 'slow'; readonly latencyMs: number }
  /** Limits each connection and direction. */
  | { readonly kind: 'narrow'; readonly bytesPerSecond: number }
  /** Closes all connections and refuses new ones. */
  | { readonly kind: 'cut' }
  /** Holds one direction while the other passes: a one-way partition. */
  | { readonly kind: 'held'; readonly direction: Direction };

export type Direction = 'requests' | 'replies';
/** Ends a fault. */
type Heal = () => void;

/** Bytes in a direction after which its source is read no further, as by a full TCP window. */
const WINDOW_BYTES = 1 << 20;

/** A TCP connection between one process and Redis that can be slow, narrow, cut, or silent in one direction. */
export class TcpLink {
  readonly port: number;
  readonly #server: Server;
  readonly #connections = new Set<Connection>();
  readonly #faults = new Set<LinkFault>();

  private constructor(server: Server, targetPort: number) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
    server.on('connection', (client) => this.#connected(client, targetPort));
  }

  static async start(targetPort: number): Promise<TcpLink> {
    return new TcpLink(await listening(createServer({ noDelay: true })), targetPort);
  }

  /** Begins a fault. @returns ends it */
  break(fault: LinkFault): Heal {
    this.#faults.add(fault);
    if (fault.kind === 'cut') this.#closeAll();
    return () => {
      this.#faults.delete(fault);
      for (const connection of this.#connections) connection.flush();
    };
  }

  /** Drops everything on the open connections without closing them, for ever: their other ends are gone. */
  abandon(): void {
    for (const connection of this.#connections) connection.abandon();
  }

  async close(): Promise<void> {
    this.#closeAll();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #closeAll(): void {
    for (const connection of this.#connections) connection.close();
  }

  #connected(client: Socket, targetPort: number): void {
    if (this.#of('cut').length > 0) {
      client.destroy();
      return;
    }
    const target = connect({ host: LOOPBACK, port: targetPort, noDelay: true });
    const limits = (direction: Direction): Limits => ({
      latencyMs: Math.max(0, ...this.#of('slow').map(({ latencyMs }) => latencyMs)),
      bytesPerSecond: Math.min(...this.#of('narrow').map(({ bytesPerSecond }) => bytesPerSecond)),
      isHeld: this.#of('held').some((fault) => fault.direction === direction),
    });
    const connection = new Connection(client, target, limits, () => this.#connections.delete(connection));
    this.#connections.add(connection);
  }

  #of<K extends LinkFault['kind']>(kind: K): Extract<LinkFault, { kind: K }>[] {
    return [...this.#faults].filter((fault): fault is Extract<LinkFault, { kind: K }> => fault.kind === kind);
  }
}

/** `bytesPerSecond` is infinite without a limit. */
interface Limits {
  readonly latencyMs: number;
  readonly bytesPerSecond: number;
  readonly isHeld: boolean;
}

/** Both directions of one connection through a link. */
class Connection {
  readonly #sockets: readonly Socket[];
  readonly #pipes: readonly Pipe[];

  constructor(client: Socket, target: Socket, limits: (direction: Direction) => Limits, onClose: () => void) {
    this.#sockets = [client, target];
    this.#pipes = [
      new Pipe(client, target, () => limits('requests')),
      new Pipe(target, client, () => limits('replies')),
    ];
    for (const socket of this.#sockets) {
      socket.on('error', () => this.close());
      socket.on('close', () => {
        this.close();
        onClose();
      });
    }
  }

  flush(): void {
    for (const pipe of this.#pipes) pipe.flush();
  }

  abandon(): void {
    for (const pipe of this.#pipes) pipe.abandon();
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** One direction of a connection. Packets stay in order, also when the latency falls. */
class Pipe {
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #limits: () => Limits;
  #waiting: { readonly bytes: Buffer; readonly dueAt: number }[] = [];
  #waitingBytes = 0;
  #lastDueAt = 0;
  #isAbandoned = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(from: Socket, to: Socket, limits: () => Limits) {
    this.#from = from;
    this.#to = to;
    this.#limits = limits;
    from.on('data', (bytes: Buffer) => this.#receive(bytes));
    from.on('close', () => clearTimeout(this.#timer));
  }

  flush(): void {
    clearTimeout(this.#timer);
    if (this.#limits().isHeld) return;
    const now = performance.now();
    for (let [next] = this.#waiting; next && next.dueAt <= now; [next] = this.#waiting) {
      this.#waiting.shift();
      this.#waitingBytes -= next.bytes.length;
      if (!this.#to.destroyed) this.#to.write(next.bytes);
    }
    if (this.#waitingBytes < WINDOW_BYTES) this.#from.resume();
    const [next] = this.#waiting;
    if (next && !this.#from.destroyed) this.#timer = setTimeout(() => this.flush(), next.dueAt - now);
  }

  abandon(): void {
    this.#isAbandoned = true;
    this.#waiting = [];
    this.#waitingBytes = 0;
    clearTimeout(this.#timer);
  }

  #receive(bytes: Buffer): void {
    if (this.#isAbandoned) return;
    const { latencyMs, bytesPerSecond } = this.#limits();
    const now = performance.now();
    const sendMs = (1_000 * bytes.length) / bytesPerSecond;
    const dueAt = Math.max(now + latencyMs, this.#lastDueAt) + sendMs;
    this.#lastDueAt = dueAt;
    this.#waiting.push({ bytes, dueAt });
    this.#waitingBytes += bytes.length;
    if (this.#waitingBytes >= WINDOW_BYTES) this.#from.pause();
    this.flush();
  }
}

export async function listening<S extends Server>(server: S): Promise<S> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, LOOPBACK, resolve);
  });
  return server;
}
