import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import { integer, list, text, tuple } from '../redis/replies.ts';
import { LuaScript } from '../redis/scripts.ts';

const renewNode = LuaScript.load('renewNode-2', integer);
const listNodes = LuaScript.load('listNodes-2', list(tuple([text, text])));

/** A node that does not renew its lease for this long counts as disconnected. */
const LEASE_MS = 15_000;
const RENEW_MS = 5_000;
/** More nodes than a cluster of this kind has. */
const LISTED_NODES = 1_000;

/** A node, as of its last lease renewal up to five seconds ago. */
export interface ListedNode {
  readonly node_id: string;
  readonly connections: number;
  readonly started_at: string;
}

/**
 * Leases of the live gateway nodes, in Redis. While Redis is unavailable the last count stays valid: the local fallback
 * limiters divide their limits by it.
 */
export class NodeRegistry {
  readonly #deps: { redis: Redis; keys: Keys; clock: Clock; logger: Logger };
  readonly #nodeId: string;
  readonly #startedAt: string;
  #connections: () => number = () => 0;
  #alive = 1;
  #stop: (() => void) | undefined;

  constructor(deps: { redis: Redis; keys: Keys; clock: Clock; logger: Logger }, nodeId: string) {
    this.#deps = deps;
    this.#nodeId = nodeId;
    this.#startedAt = new Date(deps.clock.now()).toISOString();
  }

  /** Number of live nodes, including this one. */
  get alive(): number {
    return this.#alive;
  }

  /** @param connections returns the current number of connections, which each renewal stores */
  async start(connections: () => number): Promise<void> {
    this.#connections = connections;
    await this.#renew();
    this.#stop = this.#deps.clock.every(RENEW_MS, () => {
      this.#renew().catch((error: Error) => {
        this.#deps.logger.debug({ error: error.message }, 'node lease renewal failed, retrying');
      });
    });
  }

  async stop(): Promise<void> {
    this.#stop?.();
    const { redis, keys } = this.#deps;
    const removed = [redis.zrem(keys.nodes, this.#nodeId), redis.hdel(keys.nodeDetails, this.#nodeId)];
    // If this fails, the lease expires.
    await Promise.all(removed).catch(() => undefined);
  }

  /** Lists the live nodes. @throws RedisUnavailable */
  async list(): Promise<ListedNode[]> {
    const { redis, keys } = this.#deps;
    const rows = await listNodes.run(redis, [keys.nodes, keys.nodeDetails], [LISTED_NODES]);
    return rows.map(([node_id, details]) => ({ node_id, ...(JSON.parse(details) as Omit<ListedNode, 'node_id'>) }));
  }

  async #renew(): Promise<void> {
    const { redis, keys } = this.#deps;
    const details = JSON.stringify({ connections: this.#connections(), started_at: this.#startedAt });
    const args = [this.#nodeId, LEASE_MS, details];
    this.#alive = Math.max(1, await renewNode.run(redis, [keys.nodes, keys.nodeDetails], args));
  }
}
