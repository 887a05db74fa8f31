import { freePorts, LOOPBACK } from '../../scripts/lib/ports.ts';
import { RedisProcess, type RedisProcessOptions, type Settings } from './redis-process.ts';
import { until } from './until.ts';

const SLOTS = 16_384;
/** Time without an answer after which the other nodes declare a master failed, and its replica takes over. */
export const NODE_TIMEOUT_MS = 1_500;

export interface RedisClusterOptions {
  readonly masters?: number;
  /** Replicas per master. */
  readonly replicas?: number;
  /** Settings of the node on that port. */
  readonly settings?: (port: number) => Settings;
  readonly ask?: RedisProcessOptions['ask'];
}

/** A real Redis Cluster on loopback. */
export class RedisClusterProcesses {
  readonly masters: readonly RedisProcess[];
  readonly replicas: readonly RedisProcess[];
  readonly url: string;

  private constructor(masters: readonly RedisProcess[], replicas: readonly RedisProcess[]) {
    this.masters = masters;
    this.replicas = replicas;
    this.url = `redis+cluster://${masters.map(({ port }) => `${LOOPBACK}:${port}`).join(',')}`;
  }

  static async start(options: RedisClusterOptions = {}): Promise<RedisClusterProcesses> {
    const { masters: shards = 3, replicas = 0 } = options;
    const size = shards * (1 + replicas);
    const ports = await freePorts(2 * size);
    const nodes = await Promise.all(
      ports.slice(0, size).map((port, at) => startNode(port, ports[size + at] ?? 0, options)),
    );
    const cluster = new RedisClusterProcesses(nodes.slice(0, shards), nodes.slice(shards));
    try {
      await cluster.#join(ports.slice(size));
    } catch (error) {
      await cluster.close();
      throw error;
    }
    return cluster;
  }

  get all(): RedisProcess[] {
    return [...this.masters, ...this.replicas];
  }

  /** Resolves when every reachable node reports all slots as served. */
  async healthy(of: readonly RedisProcess[] = this.all, timeoutMs = 30_000): Promise<void> {
    const isHealthy = async (node: RedisProcess) => {
      const [info, role] = await node.ask((redis) => Promise.all([redis.cluster('INFO'), redis.info('replication')]));
      return /cluster_state:ok/.test(String(info)) && !/master_link_status:down/.test(role);
    };
    const label = 'a healthy cluster';
    await until(async () => (await Promise.all(of.map(isHealthy))).every(Boolean), { timeoutMs, label });
  }

  async close(): Promise<void> {
    await Promise.all(this.all.map((node) => node.close()));
  }

  async #join(busPorts: readonly number[]): Promise<void> {
    const [first] = this.masters;
    const share = SLOTS / this.masters.length;
    for (const [at, master] of this.masters.entries()) {
      const [from, to] = [Math.round(at * share), Math.round((at + 1) * share) - 1];
      await master.ask((redis) => redis.call('CLUSTER', 'ADDSLOTSRANGE', from, to));
    }
    for (const [at, { port }] of this.all.entries()) {
      await first?.ask((redis) => redis.call('CLUSTER', 'MEET', LOOPBACK, port, busPorts[at] ?? 0));
    }
    const ids = await Promise.all(this.masters.map((node) => node.ask((redis) => redis.call('CLUSTER', 'MYID'))));
    for (const [at, replica] of this.replicas.entries()) {
      const id = String(ids[at % ids.length]);
      // Waits until the replica knows its master.
      const label = 'a replica that knows its master';
      await until(() => replica.ask((redis) => redis.call('CLUSTER', 'REPLICATE', id)), { timeoutMs: 20_000, label });
    }
    await this.healthy();
  }
}

function startNode(port: number, busPort: number, { settings, ask }: RedisClusterOptions): Promise<RedisProcess> {
  return RedisProcess.start({
    port,
    ...(ask ? { ask } : {}),
    settings: [
      ['port', String(port)],
      ['cluster-enabled', 'yes'],
      ['cluster-port', String(busPort)],
      ['cluster-node-timeout', String(NODE_TIMEOUT_MS)],
      ['repl-diskless-sync-delay', '0'],
      ['maxmemory-policy', 'noeviction'],
      ['appendonly', 'yes'],
      // The kernel has every write before its reply: see killable-redis.ts.
      ['appendfsync', 'no'],
      ['save', '""'],
      ...(settings?.(port) ?? []),
    ],
  });
}
