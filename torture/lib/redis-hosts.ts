import { execFile, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePort } from '../../scripts/lib/ports.ts';
import { redisUrl } from '../../scripts/lib/redis-server.ts';
import { RedisClusterProcesses } from '../../test/support/redis-cluster.ts';
import { RedisProcess } from '../../test/support/redis-process.ts';
import { SentinelProcesses } from '../../test/support/redis-sentinels.ts';

const run = promisify(execFile);

export const REDIS_KINDS = ['single', 'sentinel', 'cluster'] as const;
/** One server; a master, two replicas and three Sentinels; or a Redis Cluster of three masters and three replicas. */
export type RedisKind = (typeof REDIS_KINDS)[number];

/** The Redis servers of a deployment. */
export interface RedisHost {
  readonly kind: RedisKind;
  readonly url: string;
  /** The servers by name; replicas too. */
  readonly servers: ReadonlyMap<string, RedisProcess>;
  /** Resolves when every server serves in its role and every replica follows its master. */
  healthy(): Promise<unknown>;
  close(): Promise<void>;
}

/**
 * A server whose disk is full, whose clients are paused, or whose machine is busy, answers late; a lost command would
 * leave its fault unhealed.
 */
const PATIENT = { commandTimeout: 30_000 };

function named(servers: readonly RedisProcess[]): ReadonlyMap<string, RedisProcess> {
  return new Map(servers.map((server, at) => [`redis-${at + 1}`, server]));
}

/**
 * A single Redis with an append-only file, which the kernel has before each reply: a kill loses no acknowledged write.
 * As root its file is on a file system of its own, which can be full.
 */
export class SingleRedis implements RedisHost {
  readonly kind = 'single';
  readonly url: string;
  readonly servers: ReadonlyMap<string, RedisProcess>;
  readonly server: RedisProcess;
  readonly canBeFull: boolean;
  readonly #dir: string;

  private constructor(server: RedisProcess, dir: string, canBeFull: boolean) {
    this.server = server;
    this.servers = new Map([['redis', server]]);
    this.url = redisUrl(server.port);
    this.canBeFull = canBeFull;
    this.#dir = dir;
  }

  static async start(dir: string): Promise<SingleRedis> {
    await mkdir(dir);
    const isMounted = await mount(dir);
    // The mount would outlive a process that ends early.
    if (isMounted) process.once('exit', () => spawnSync('umount', ['-l', dir], { stdio: 'ignore' }));
    const port = await freePort();
    const settings = {
      port: String(port),
      dir,
      'maxmemory-policy': 'noeviction',
      appendonly: 'yes',
      appendfsync: 'no',
      save: '""',
      loglevel: 'warning',
    };
    const server = await RedisProcess.start({ port, ask: PATIENT, settings: Object.entries(settings) });
    return new SingleRedis(server, dir, isMounted);
  }

  async healthy(): Promise<void> {
    await this.server.ask((redis) => redis.ping());
  }

  /** Removes what a killed server has stored. */
  async clear(): Promise<void> {
    await rm(join(this.#dir, 'appendonlydir'), { recursive: true, force: true });
  }

  /** Makes the disk full. @returns makes it large again */
  async fillDisk(): Promise<() => Promise<unknown>> {
    for (let attempt = 1; ; attempt += 1) {
      const { blocks, bfree, bsize } = await statfs(this.#dir);
      // A few more pages, so that the file ends at any byte of an entry. It can outgrow them before the change.
      const full = await resize(this.#dir, `${(blocks - bfree + 2 * attempt) * bsize}`).catch((error: Error) => error);
      if (full === undefined) return () => resize(this.#dir, DISK_SIZE);
      if (attempt === RESIZES) throw full;
    }
  }

  async close(): Promise<void> {
    await this.server.close();
    if (this.canBeFull) await run('umount', [this.#dir]);
  }
}

const DISK_SIZE = '2g';
/** Attempts to shrink the file system to what is used, while Redis writes. */
const RESIZES = 20;

async function mount(dir: string): Promise<boolean> {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return false;
  const options = `size=${DISK_SIZE}`;
  // A container may lack the capability although its user is root.
  return run('mount', ['-t', 'tmpfs', '-o', options, 'tollgate-torture', dir]).then(
    () => true,
    () => false,
  );
}

async function resize(dir: string, size: string): Promise<void> {
  await run('mount', ['-o', `remount,size=${size}`, dir]);
}

/** A master, two replicas, and three Sentinels. */
export class SentinelRedis implements RedisHost {
  readonly kind = 'sentinel';
  readonly servers: ReadonlyMap<string, RedisProcess>;
  readonly group: SentinelProcesses;

  private constructor(group: SentinelProcesses) {
    this.group = group;
    this.servers = named(group.servers);
  }

  static async start(): Promise<SentinelRedis> {
    // With a password the default user cannot replace that of the Sentinels, which the isolation of the master disables.
    const password = randomBytes(12).toString('base64url');
    return new SentinelRedis(await SentinelProcesses.start({ password, ask: PATIENT }));
  }

  get url(): string {
    return this.group.url;
  }

  get sentinels(): ReadonlyMap<string, RedisProcess> {
    return new Map(this.group.sentinels.map((server, at) => [`sentinel-${at + 1}`, server]));
  }

  healthy(): Promise<void> {
    return this.group.complete();
  }

  close(): Promise<void> {
    return this.group.close();
  }
}

/** A failed master is declared and replaced late on a busy machine. */
const HEALTHY_MS = 120_000;

/** Three masters with a replica each. */
export class ClusterRedis implements RedisHost {
  readonly kind = 'cluster';
  readonly servers: ReadonlyMap<string, RedisProcess>;
  readonly nodes: RedisClusterProcesses;

  private constructor(nodes: RedisClusterProcesses) {
    this.nodes = nodes;
    this.servers = named(nodes.all);
  }

  static async start(): Promise<ClusterRedis> {
    return new ClusterRedis(await RedisClusterProcesses.start({ replicas: 1, ask: PATIENT }));
  }

  get url(): string {
    return this.nodes.url;
  }

  healthy(): Promise<void> {
    return this.nodes.healthy(this.nodes.all, HEALTHY_MS);
  }

  close(): Promise<void> {
    return this.nodes.close();
  }
}

/** Starts Redis of a kind. `dir` must not exist; only a single Redis has its files there. */
export async function startRedis(kind: RedisKind, dir: string): Promise<SingleRedis | SentinelRedis | ClusterRedis> {
  if (kind === 'sentinel') return SentinelRedis.start();
  if (kind === 'cluster') return ClusterRedis.start();
  return SingleRedis.start(dir);
}
