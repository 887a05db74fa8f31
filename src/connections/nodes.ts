import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import { LuaScript } from '../redis/scripts.ts';

const announceNode = LuaScript.load('announceNode-1');

/** A node that is not heard of for this long is gone. */
const LEASE_MS = 15_000;
const ANNOUNCE_MS = 5_000;

/**
 * The gateway nodes that are alive, as leases in Redis. While Redis is away the last count stands: that is when it is
 * needed, to share out what Redis can no longer count.
 */
export class Nodes {
  readonly #deps: { redis: Redis; keys: Keys; clock: Clock; logger: Logger };
  readonly #nodeId: string;
  #alive = 1;
  #stop: (() => void) | undefined;

  constructor(deps: { redis: Redis; keys: Keys; clock: Clock; logger: Logger }, nodeId: string) {
    this.#deps = deps;
    this.#nodeId = nodeId;
  }

  /** How many nodes share the load, this one included. */
  get alive(): number {
    return this.#alive;
  }

  async start(): Promise<void> {
    await this.#announce();
    this.#stop = this.#deps.clock.every(ANNOUNCE_MS, () => {
      this.#announce().catch((error: Error) => {
        this.#deps.logger.debug({ error: error.message }, 'this node was not announced; the next time does it');
      });
    });
  }

  async stop(): Promise<void> {
    this.#stop?.();
    // Without it the lease ends by itself.
    await this.#deps.redis.zrem(this.#deps.keys.nodes, this.#nodeId).catch(() => undefined);
  }

  async #announce(): Promise<void> {
    const { redis, keys } = this.#deps;
    this.#alive = Math.max(1, Number(await announceNode.run(redis, [keys.nodes], [this.#nodeId, LEASE_MS])));
  }
}
