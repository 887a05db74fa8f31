import type { Client } from '@modelcontextprotocol/client';
import type { Connection } from './connection.ts';
import { SessionLost, UpstreamFault } from './faults.ts';

interface Shared {
  readonly opened: Promise<Connection>;
  users: number;
  retired: boolean;
}

/** Opens a connection. @param onClose called when the connection ends by itself @throws UpstreamFault */
export type Open = (onClose: () => void) => Promise<Connection>;

/**
 * Shares one connection to a server between all requests. The first request opens it, and the first one after a fault
 * or a lost session opens a new one. Such a connection closes after its last request, because the other requests may
 * still succeed.
 */
export class SharedConnection {
  readonly #open: Open;
  readonly #all = new Set<Shared>();
  #current: Shared | undefined;

  constructor(open: Open) {
    this.#open = open;
  }

  /** Runs `work` with the shared client. @throws UpstreamFault when connecting fails; any error of `work` */
  async use<T>(work: (client: Client) => Promise<T>): Promise<T> {
    this.#current ??= this.#openShared();
    const shared = this.#current;
    shared.users += 1;
    try {
      const { client } = await shared.opened;
      return await work(client);
    } catch (error) {
      if (error instanceof UpstreamFault || error instanceof SessionLost) this.#retire(shared);
      throw error;
    } finally {
      shared.users -= 1;
      this.#closeUnused(shared);
    }
  }

  /** Closes all connections. Requests in flight fail. */
  async close(): Promise<void> {
    this.#current = undefined;
    await Promise.all([...this.#all].map((shared) => this.#close(shared)));
  }

  #openShared(): Shared {
    // `shared` is initialized before use here: a connection can only close after it has been opened.
    const onClose = () => this.#retire(shared);
    const shared: Shared = { opened: this.#open(onClose), users: 0, retired: false };
    this.#all.add(shared);
    return shared;
  }

  #retire(shared: Shared): void {
    shared.retired = true;
    if (this.#current === shared) this.#current = undefined;
    this.#closeUnused(shared);
  }

  #closeUnused(shared: Shared): void {
    if (shared.retired && shared.users === 0 && this.#all.has(shared)) void this.#close(shared);
  }

  async #close(shared: Shared): Promise<void> {
    this.#all.delete(shared);
    const connection = await shared.opened.catch(() => undefined);
    await connection?.close();
  }
}
