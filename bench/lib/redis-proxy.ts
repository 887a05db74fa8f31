import { createHash } from 'node:crypto';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { readScript, scriptFiles } from '../../src/redis/scripts.ts';

/**
 * Requests that travel together: all that one connection sends after it waited for nothing, until the first byte of a
 * reply. What it sends after that byte belongs to the next flight, even while older replies are outstanding, so the
 * count errs upwards. A message published to a subscribed connection also ends a flight.
 *
 * The proxy delays replies by HOLD_MS, like a network. Over loopback Redis answers so fast that the second of two
 * independent requests can follow the reply to the first by chance.
 */
export interface Flight {
  /** The connection's name, as the client set it. */
  readonly connection: () => string;
  /** Names of Tollgate's scripts, `bullmq <queue>` for scripts of BullMQ, otherwise the Redis command in lower case. */
  readonly commands: string[];
}

const HOLD_MS = 5;

/** A proxy between one process and Redis. It passes every byte on unchanged and records the flights. */
export class RedisProxy {
  readonly url: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #flights: Flight[] = [];

  private constructor(server: Server) {
    this.#server = server;
    this.url = `redis://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  static async start(redisPort: number): Promise<RedisProxy> {
    const scriptNames = namesBySha();
    const server = createServer({ noDelay: true });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const proxy = new RedisProxy(server);
    server.on('connection', (client) => proxy.#connected(client, redisPort, scriptNames));
    return proxy;
  }

  /** Returns the flights since the last call. */
  take(): Flight[] {
    return this.#flights.splice(0);
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #connected(client: Socket, redisPort: number, scriptNames: ReadonlyMap<string, string>): void {
    const redis = connect({ port: redisPort, host: '127.0.0.1', noDelay: true });
    let name = 'unnamed';
    let open: Flight | undefined;
    const requests = new RequestReader((request) => {
      name = nameSetBy(request) ?? name;
      if (!open) {
        open = { connection: () => name, commands: [] };
        this.#flights.push(open);
      }
      open.commands.push(label(request, scriptNames));
    });
    client.on('data', (bytes) => {
      requests.feed(bytes);
      redis.write(bytes);
    });
    redis.on('data', (bytes) => {
      // Timers of equal length fire in the order of their creation, so replies stay in order.
      setTimeout(() => {
        open = undefined;
        client.write(bytes);
      }, HOLD_MS);
    });
    for (const [one, other] of [[client, redis] as const, [redis, client] as const]) {
      this.#sockets.add(one);
      one.on('error', () => other.destroy());
      one.on('close', () => {
        this.#sockets.delete(one);
        other.destroy();
      });
    }
  }
}

/** Parses requests (arrays of bulk strings, as all clients send them) from a byte stream. */
export class RequestReader {
  readonly #found: (request: string[], bytes: number) => void;
  #rest: Buffer = Buffer.alloc(0);

  constructor(found: (request: string[], bytes: number) => void) {
    this.#found = found;
  }

  feed(bytes: Buffer): void {
    this.#rest = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    for (;;) {
      const before = this.#rest.length;
      const request = this.#next();
      if (!request) return;
      this.#found(request, before - this.#rest.length);
    }
  }

  #next(): string[] | undefined {
    const head = this.#number(0, '*');
    if (!head) return undefined;
    const request: string[] = [];
    let at = head.end;
    for (let i = 0; i < head.value; i++) {
      const length = this.#number(at, '$');
      if (!length || this.#rest.length < length.end + length.value + 2) return undefined;
      request.push(this.#rest.toString('utf8', length.end, length.end + length.value));
      at = length.end + length.value + 2;
    }
    this.#rest = this.#rest.subarray(at);
    return request;
  }

  /**
   * Parses `<mark><number>\r
   * ` at a position of the buffer; undefined if it is incomplete.
   */
  #number(at: number, mark: string): { value: number; end: number } | undefined {
    if (at >= this.#rest.length) return undefined;
    if (this.#rest.toString('latin1', at, at + 1) !== mark) throw new Error('not a request of RESP');
    const end = this.#rest.indexOf('\r\n', at);
    return end < 0 ? undefined : { value: Number(this.#rest.toString('latin1', at + 1, end)), end: end + 2 };
  }
}

function label([command = '', ...args]: readonly string[], scriptNames: ReadonlyMap<string, string>): string {
  const name = command.toLowerCase();
  if (name === 'bzpopmin') return `${name} ${queueOf(args[0])}`;
  if (name !== 'evalsha' && name !== 'eval') return name;
  const sha = name === 'eval' ? sha1(args[0] ?? '') : (args[0] ?? '');
  const again = name === 'eval' ? ' (text)' : '';
  const own = scriptNames.get(sha);
  if (own) return own + again;
  // Scripts of libraries are identified by the prefix of their key.
  const queue = queueOf(args[2]);
  if (queue) return `bullmq ${queue}${again}`;
  return `${args[2]?.endsWith(':message-rate') ? 'limiter' : 'script'}${again}`;
}

/** Returns the BullMQ queue of a key, by the prefix of `Keys.queues`. */
function queueOf(key = ''): string | undefined {
  return /:bull}:([^:]+)/.exec(key)?.[1];
}

function nameSetBy(request: readonly string[]): string | undefined {
  const at = request.findIndex((part) => part.toLowerCase() === 'setname');
  return at > 0 ? request[at + 1] : undefined;
}

function namesBySha(): Map<string, string> {
  return new Map(scriptFiles().map((file) => [sha1(readScript(file)), file.replace(/-(?:\d+|n)\.lua$/, '')]));
}

function sha1(text: string): string {
  return createHash('sha1').update(text).digest('hex');
}
