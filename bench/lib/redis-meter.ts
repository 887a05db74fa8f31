import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { commandName } from './command-names.ts';
import { RequestReader } from './redis-proxy.ts';
import { ReplySplitter } from './resp.ts';

/** What one process exchanged with Redis under one name of `commandName`. */
export interface Traffic {
  readonly calls: number;
  /** Bytes to Redis and from it. */
  readonly sent: number;
  readonly received: number;
}

export type TrafficByName = ReadonlyMap<string, Traffic>;

/** The name of messages that Redis publishes to the process. */
export const PUBLISHED = 'published message';

/**
 * A proxy between one process and Redis. It passes every byte on unchanged and at once, and counts requests with their
 * replies by name. Its counts depend on no clock.
 */
export class RedisMeter {
  readonly url: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #traffic = new Map<string, { calls: number; sent: number; received: number }>();

  private constructor(server: Server) {
    this.#server = server;
    this.url = `redis://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  static async start(redisPort: number): Promise<RedisMeter> {
    const server = createServer({ noDelay: true });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const meter = new RedisMeter(server);
    server.on('connection', (client) => meter.#connected(client, redisPort));
    return meter;
  }

  /** Returns the traffic since the last call. */
  take(): TrafficByName {
    const taken = this.#traffic;
    this.#traffic = new Map();
    return taken;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #connected(client: Socket, redisPort: number): void {
    const redis = connect({ port: redisPort, host: '127.0.0.1', noDelay: true });
    const unanswered: string[] = [];
    const requests = new RequestReader((request, bytes) => {
      const name = commandName(request);
      unanswered.push(name);
      const traffic = this.#of(name);
      traffic.calls += 1;
      traffic.sent += bytes;
    });
    const replies = new ReplySplitter(({ bytes, isPush, text }) => {
      // Subscriptions are answered with pushes too: only those answer a request.
      const isMessage = isPush && /^>\d+\r\n\$\d+\r\n(?:s|p)?message\r\n/.test(text());
      const traffic = this.#of(isMessage ? PUBLISHED : (unanswered.shift() ?? 'unrequested'));
      if (isMessage) traffic.calls += 1;
      traffic.received += bytes;
    });
    client.on('data', (bytes) => {
      requests.feed(bytes);
      redis.write(bytes);
    });
    redis.on('data', (bytes) => {
      replies.feed(bytes);
      client.write(bytes);
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

  #of(name: string): { calls: number; sent: number; received: number } {
    const traffic = this.#traffic.get(name) ?? { calls: 0, sent: 0, received: 0 };
    this.#traffic.set(name, traffic);
    return traffic;
  }
}
