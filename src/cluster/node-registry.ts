import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
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

/** A request to drain or to end that no process has noticed in this time has no process. */
const DRAIN_MS = 60_000;
const DRAIN = 'drain';
const KILL = 'kill';

/** What a process reports of itself with each renewal. Earlier versions report only `connections`. */
export interface NodeReport {
  readonly connections: number;
  readonly role?: 'gateway' | 'worker';
  readonly version?: string;
  readonly host?: string;
  readonly draining?: boolean;
  /** Runs that a worker executes. */
  readonly runs?: number;
  /** Figures of the last minute. */
  readonly live?: LiveReport;
}

export interface LiveReport {
  readonly seconds: number;
  readonly counters: Readonly<Record<string, number>>;
  readonly gauges: Readonly<Record<string, number>>;
}

/** A node, as of its last lease renewal up to five seconds ago. */
export interface ListedNode extends NodeReport {
  readonly node_id: string;
  readonly started_at: string;
}

/** The leases of one kind of process. */
export interface NodeLeases {
  readonly leases: string;
  readonly details: string;
}

export function gatewayLeases(keys: Keys): NodeLeases {
  return { leases: keys.nodes, details: keys.nodeDetails };
}

export function workerLeases(keys: Keys): NodeLeases {
  return { leases: keys.workers, details: keys.workerDetails };
}

interface NodeRegistryDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Called once if an administrator has requested this process to drain. */
  readonly onDrainRequested?: (() => void) | undefined;
  /**
   * Called if an administrator has requested this process to end without a drain. Without it, such a request has no
   * effect.
   */
  readonly onKillRequested?: (() => void) | undefined;
}

/**
 * Leases of the live gateway nodes, or of the workers, in Redis. While Redis is unavailable the last count stays valid:
 * the local fallback limiters divide their limits by it.
 */
export class NodeRegistry {
  readonly #deps: NodeRegistryDeps;
  readonly #leases: NodeLeases;
  readonly #nodeId: string;
  readonly #startedAt: string;
  #report: () => NodeReport = () => ({ connections: 0 });
  #drainRequested = false;
  #alive = 1;
  #stop: (() => void) | undefined;

  constructor(deps: NodeRegistryDeps, nodeId: string, leases = gatewayLeases(deps.keys)) {
    this.#deps = deps;
    this.#leases = leases;
    this.#nodeId = nodeId;
    this.#startedAt = new Date(deps.clock.now()).toISOString();
  }

  /** Number of live nodes, including this one. */
  get alive(): number {
    return this.#alive;
  }

  /** @param report returns what each renewal stores */
  async start(report: () => NodeReport): Promise<void> {
    this.#report = report;
    await this.#renew();
    this.#stop = this.#deps.clock.every(RENEW_MS, () => {
      this.#renew().catch((error: Error) => {
        this.#deps.logger.debug({ error: error.message }, 'node lease renewal failed, retrying');
      });
    });
  }

  async stop(): Promise<void> {
    this.#stop?.();
    const { redis } = this.#deps;
    const { leases, details } = this.#leases;
    const removed = [redis.zrem(leases, this.#nodeId), redis.hdel(details, this.#nodeId)];
    // If this fails, the lease expires.
    await Promise.all(removed).catch(() => undefined);
  }

  /** Requests a process to drain. It notices within a renewal period. @throws RedisUnavailable */
  async requestDrain(nodeId: string): Promise<void> {
    await mapRedisErrors(this.#deps.redis.set(this.#deps.keys.drainRequest(nodeId), DRAIN, 'PX', DRAIN_MS));
  }

  /** Requests a process to end at once, as in a crash. It notices within a renewal period. @throws RedisUnavailable */
  async requestKill(nodeId: string): Promise<void> {
    await mapRedisErrors(this.#deps.redis.set(this.#deps.keys.drainRequest(nodeId), KILL, 'PX', DRAIN_MS));
  }

  /** Returns those of the processes that are requested to drain and have not stopped yet. @throws RedisUnavailable */
  async drainRequested(nodeIds: readonly string[]): Promise<ReadonlySet<string>> {
    if (nodeIds.length === 0) return new Set();
    const { redis, keys } = this.#deps;
    const requests = await mapRedisErrors(redis.mget(nodeIds.map((id) => keys.drainRequest(id))));
    return new Set(nodeIds.filter((_, at) => requests[at] === DRAIN));
  }

  /** Lists the live nodes, or those of other leases. @throws RedisUnavailable */
  async list(of: NodeLeases = this.#leases): Promise<ListedNode[]> {
    const rows = await listNodes.run(this.#deps.redis, [of.leases, of.details], [LISTED_NODES]);
    return rows.map(([node_id, details]) => ({ node_id, ...(JSON.parse(details) as Omit<ListedNode, 'node_id'>) }));
  }

  async #renew(): Promise<void> {
    const { redis, keys } = this.#deps;
    const { leases, details } = this.#leases;
    const args = [
      this.#nodeId,
      LEASE_MS,
      JSON.stringify({ ...this.#report(), draining: this.#drainRequested, started_at: this.#startedAt }),
    ];
    // Pipelined: one round trip.
    const [alive, request] = await Promise.all([
      renewNode.run(redis, [leases, details], args),
      redis.get(keys.drainRequest(this.#nodeId)),
    ]);
    this.#alive = Math.max(1, alive);
    if (request === KILL) this.#deps.onKillRequested?.();
    else if (request !== null && !this.#drainRequested) {
      this.#drainRequested = true;
      this.#deps.logger.info({ node: this.#nodeId }, 'drain requested by an administrator');
      this.#deps.onDrainRequested?.();
    }
  }
}
