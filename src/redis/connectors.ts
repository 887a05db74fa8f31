import { createConnection } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import { AbstractConnector, type RedisOptions } from 'ioredis';
import type { RedisNode } from '../lib/redis-url.ts';
import { Sentinels, type SentinelsOptions } from './sentinels.ts';

type Connector = NonNullable<RedisOptions['Connector']>;
type Report = Parameters<AbstractConnector['connect']>[0];
type Socket = Awaited<ReturnType<AbstractConnector['connect']>>;

/** A socket whose peer does not close it is destroyed after this time. The default of ioredis. */
const DISCONNECT_MS = 2_000;

/** Opens the sockets of a connection. Refuses a server that is a replica before the first command is sent to it. */
abstract class MasterConnector extends AbstractConnector {
  readonly #tls: ConnectionOptions | undefined;
  #socket: Socket | undefined;
  #report: Report = () => undefined;

  constructor(tls: ConnectionOptions | undefined) {
    super(DISCONNECT_MS);
    this.#tls = tls;
  }

  protected abstract locate(report: Report): Promise<RedisNode>;

  override async connect(report: Report): Promise<Socket> {
    this.connecting = true;
    this.#report = report;
    const { host, port } = await this.locate(report);
    // Closed meanwhile. This is the message of ioredis for that.
    if (!this.connecting) throw new Error('Connection is closed.');
    const socket = this.#tls ? connectTls({ host, port, ...this.#tls }) : createConnection({ host, port });
    socket.once('error', (error) => {
      this.firstError = error;
    });
    this.stream = socket;
    this.#socket = socket;
    return socket;
  }

  override disconnect(): void {
    this.connecting = false;
    // A socket that has closed already would keep the process alive for `DISCONNECT_MS`.
    if (this.#socket && !this.#socket.closed) super.disconnect();
  }

  /** ioredis passes the fields of INFO, and reconnects if the result is false. */
  override check({ role }: { readonly role?: string }): boolean {
    if (role !== 'slave') return true;
    this.#report('error', new Error('the server is a replica, which accepts no writes'));
    return false;
  }

  /** Ends the current socket, without the answers that are pending; ioredis then opens another one. */
  protected drop(): void {
    this.#socket?.destroy();
  }
}

/** Returns the connector for a server with a fixed address. */
export function serverConnector(node: RedisNode, tls: ConnectionOptions | undefined): Connector {
  return class extends MasterConnector {
    constructor() {
      super(tls);
    }

    protected override locate(): Promise<RedisNode> {
      return Promise.resolve(node);
    }
  };
}

/**
 * Returns the connector for the master that the Sentinels name. It leaves a master that they have replaced, even if it
 * still answers: writes to it are lost as soon as it becomes a replica.
 *
 * It replaces the connector of ioredis 6.0, which closes a connection for good if a Sentinel reports a failover while
 * the connector asks another one for the master: no reconnect follows, and the process stays without Redis.
 */
export function sentinelConnector(
  options: Omit<SentinelsOptions, 'onFailover' | 'onError'>,
  tls: ConnectionOptions | undefined,
): Connector {
  return class extends MasterConnector {
    readonly #sentinels: Sentinels;
    #reportSentinel: Report = () => undefined;

    constructor() {
      super(tls);
      this.#sentinels = new Sentinels({
        ...options,
        onFailover: () => this.drop(),
        onError: (error) => this.#reportSentinel('sentinelError', error),
      });
    }

    protected override async locate(report: Report): Promise<RedisNode> {
      this.#reportSentinel = report;
      for (let attempt = 1; ; attempt++) {
        try {
          return await this.#sentinels.newest();
        } catch (error) {
          if (!this.connecting) throw error;
          report('error', error as Error);
        }
        await delay(options.reconnectDelay(attempt));
        if (!this.connecting) throw new Error('Connection is closed.');
      }
    }

    override disconnect(): void {
      super.disconnect();
      this.#sentinels.close();
    }
  };
}
