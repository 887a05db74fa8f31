import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { freePorts } from '../../scripts/lib/ports.ts';
import { ManagedProcess } from '../../scripts/lib/processes.ts';
import { findRedisServer } from '../../scripts/lib/redis-server.ts';
import { Catalogues } from '../../src/catalogue/catalogues.ts';
import { ConnectionRegistry } from '../../src/cluster/connection-registry.ts';
import { UserLogWriter } from '../../src/events/user-log-writer.ts';
import { createLogger } from '../../src/lib/logger.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import type { UsageRecord } from '../../src/protocol/usage.ts';
import { connectRedis, disconnectRedis, masters } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { LedgerWriter } from '../../src/usage/ledger/ledger-writer.ts';
import { usageRecord } from '../../src/usage/records.ts';
import { startCpuClock } from '../lib/cpu.ts';
import { progress, type ReportTable } from '../lib/report.ts';
import { thinkingFields } from '../lib/user-events.ts';
import { Traffic } from './traffic.ts';

const MASTERS = 3;
const AT_ONCE = 64;
const LEASE_MS = 600_000;
const JOIN_TIMEOUT_MS = 30_000;

/**
 * Measures the registry, the event log and the ledger of users on a Redis Cluster through the code of the gateway and
 * the worker: each operation alone, then all together at the rates of a large deployment for some seconds, whose CPU is
 * compared with the sum of the operations.
 */
export async function clusterTraffic(users: number, seconds: number): Promise<ReportTable> {
  progress(`growth: ${users} users on a cluster of ${MASTERS} masters`);
  const cluster = await Cluster.start();
  const redis = await connectRedis(cluster.url, 'commands', createLogger('bench', 'silent'));
  try {
    const keys = new Keys('growth');
    const registry = new ConnectionRegistry(
      { redis, keys, plans: new Catalogues().plans },
      { leaseMs: LEASE_MS, maxConnectionsPerUser: 3 },
    );
    const log = new UserLogWriter(
      { redis, keys, metrics: new Metrics(), tracing: NO_TRACING },
      { length: 1_000, maxAgeMs: 24 * 3_600_000, maxBytes: 8_388_608 },
    );
    const ids = Array.from({ length: users }, (_, at) => `user-${at}`);
    const details = { node: 'node_simulated', endpoint: '/ws', opened_at: new Date().toISOString() };
    const writer = new LedgerWriter({ redis, keys });
    const memory = async () => {
      const infos = await Promise.all(masters(redis).map((master) => master.info('memory')));
      return infos.reduce((sum, info) => sum + Number(/used_memory:(\d+)/.exec(info)?.[1]), 0);
    };
    const micros = new Map<string, number>();
    const measure = async (operation: string, work: () => Promise<unknown>): Promise<string[]> => {
      const before = await memory();
      const since = startCpuClock(cluster.pids);
      await work();
      const perMaster = since();
      const bytes = ((await memory()) - before) / users;
      const total = perMaster.reduce((sum, one) => sum + one, 0);
      const shares = perMaster.map((one) => `${Math.round((100 * one) / total)} %`).join(', ');
      micros.set(operation, total / users);
      return [operation, (total / users).toFixed(1), shares, String(Math.round(bytes))];
    };
    const admit = (userId: string) =>
      registry.admit({ userId, connectionId: `ws_${userId}`, plan: 'free', tokenIssuedAt: Date.now(), details });
    const renew = (some: readonly string[]) => registry.renew(new Map(some.map((id) => [id, [`ws_${id}`]])));
    const append = (userId: string) =>
      log.append({ userId, events: [{ type: 'agent_thinking', fields: thinkingFields(userId, 1) }] });
    let calls = 0;
    const record = (userId: string) => {
      const usageRecord = recordOf(userId, ++calls);
      const fields = thinkingFields(userId, 1);
      return log.append({ userId, events: [{ type: 'tool_completed', fields, usageRecord }] });
    };
    const ingest = async () => {
      while ((await writer.ingest(Date.now())).completeUntil === undefined);
    };
    const rows = [
      await measure('admission', () => forEach(ids, admit)),
      await measure('renewal of a lease', () => renew(ids)),
      await measure('first event of a log', () => forEach(ids, append)),
      await measure('further event', () => forEach(ids, append)),
      await measure('event with a usage record', () => forEach(ids, record)),
      await measure('ingestion of a record', ingest),
    ];
    const traffic = new Traffic({ ids, seconds, renew, admit, append, record, ingest });
    rows.push(await compared(cluster.pids, traffic, micros));
    return {
      title: `Redis Cluster of ${MASTERS} masters, ${users.toLocaleString('en')} users`,
      header: ['operation', 'Redis µs', 'shares of the masters', 'bytes per user'],
      rows,
    };
  } finally {
    await disconnectRedis(redis);
    await cluster.stop();
  }
}

/** Compares the CPU of the masters under mixed traffic with the sum of its operations. */
async function compared(
  pids: readonly number[],
  traffic: Traffic,
  micros: ReadonlyMap<string, number>,
): Promise<string[]> {
  const since = startCpuClock(pids);
  const startedAt = performance.now();
  const counts = await traffic.run();
  const elapsed = (performance.now() - startedAt) * 1_000;
  const perMaster = since();
  const measured = perMaster.reduce((sum, one) => sum + one, 0);
  const expected = Object.entries(counts).reduce((sum, [name, count]) => sum + count * (micros.get(name) ?? 0), 0);
  const shares = perMaster.map((one) => `${Math.round((100 * one) / measured)} %`).join(', ');
  const cores = `${(measured / elapsed).toFixed(3)} cores, by the sum ${(expected / elapsed).toFixed(3)}`;
  return [`all together (${JSON.stringify(counts)})`, cores, shares, '–'];
}

function recordOf(userId: string, call: number): UsageRecord {
  const now = Date.now();
  return usageRecord({
    ...{ callId: `call_${call}`, user_id: userId, plan: 'pro', tool: 'analyze_workload', permission: 'analytics' },
    ...{ status: 'success', units: 5, run_id: `run_${call}`, thread_id: `thread_${call}`, request_id: `req_${call}` },
    ...{ idempotency_key: null, transport: 'websocket', acceptedAt: now, startedAt: now, completedAt: now },
  });
}

async function forEach(ids: readonly string[], work: (id: string) => Promise<unknown>): Promise<void> {
  const rest = ids.values();
  const worker = async () => {
    for (const id of rest) await work(id);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

/** A Redis Cluster without replicas and without persistence. */
class Cluster {
  readonly url: string;
  readonly #processes: readonly ManagedProcess[];
  readonly #folder: string;

  private constructor(ports: readonly number[], processes: readonly ManagedProcess[], folder: string) {
    this.url = `redis+cluster://${ports.map((port) => `127.0.0.1:${port}`).join(',')}`;
    this.#processes = processes;
    this.#folder = folder;
  }

  static async start(): Promise<Cluster> {
    const program = await findRedisServer();
    if (!program) throw new Error('redis-server is missing');
    const ports = await freePorts(2 * MASTERS);
    const folder = mkdtempSync(join(tmpdir(), 'tollgate-cluster-'));
    const own = ports.slice(0, MASTERS);
    const processes = own.map((port, at) => {
      const settings = { port, 'cluster-port': ports[MASTERS + at] ?? 0, dir: folder };
      const files = { 'cluster-enabled': 'yes', 'cluster-config-file': `nodes-${port}.conf`, save: '' };
      const all = Object.entries({ ...settings, ...files, 'maxmemory-policy': 'noeviction' });
      const args = all.flatMap(([name, value]) => [`--${name}`, String(value)]);
      return new ManagedProcess({ name: `redis-${port}`, command: program.command, args, env: process.env });
    });
    const cluster = new Cluster(own, processes, folder);
    await cluster.#join(own);
    return cluster;
  }

  get pids(): number[] {
    return this.#processes.map(({ pid }) => pid ?? 0);
  }

  async stop(): Promise<void> {
    await Promise.all(this.#processes.map((process) => process.stop()));
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** `redis-cli --cluster create` waits for the nodes itself, except for their start. */
  async #join(ports: readonly number[]): Promise<void> {
    const addresses = ports.map((port) => `127.0.0.1:${port}`);
    const deadlineAt = Date.now() + JOIN_TIMEOUT_MS;
    for (;;) {
      try {
        execFileSync('redis-cli', ['--cluster', 'create', ...addresses, '--cluster-yes'], { stdio: 'pipe' });
        return;
      } catch (error) {
        if (Date.now() > deadlineAt) throw error;
        await delay(200);
      }
    }
  }
}
