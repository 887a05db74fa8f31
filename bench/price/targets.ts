import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePorts } from '../../scripts/lib/ports.ts';
import { httpStatus, ManagedProcess, PROJECT_ROOT, whenReady } from '../../scripts/lib/processes.ts';
import { Deployment, JWT_AUDIENCE, type Started } from '../lib/deployment.ts';
import type { PeerSettings } from '../peers/token-check.ts';
import { type Load, type LoadSettings, startLoad } from './load.ts';

/** What can stand beside the working tree: two peers, and an earlier commit. */
export const PEERS = ['p1k', 'p4r', 'today'] as const;
export type Peer = (typeof PEERS)[number];
export type TargetName = 'raw' | 'socket.io' | 'p1k' | 'p4r' | 'today raw' | 'today socket.io';

/** A measured system with its own Redis, so that the CPU time of Redis is that of this system alone. */
export interface Target {
  readonly name: TargetName;
  readonly deployment: Deployment;
  /** Starts one more server of it. @param isInspected opens the inspector, for collections of garbage */
  server(inspectorPort?: number): Promise<Started>;
  readonly worker: Started;
  readonly load: Load;
}

/** A checkout of a commit beside this one, with the same packages. */
export class Worktree {
  readonly root: string;

  constructor(commit: string) {
    this.root = mkdtempSync(join(tmpdir(), 'tollgate-today-'));
    const git = (...args: string[]) => execFileSync('git', args, { cwd: PROJECT_ROOT, stdio: 'pipe' });
    git('worktree', 'add', '--detach', this.root, commit);
    symlinkSync(join(PROJECT_ROOT, 'node_modules'), join(this.root, 'node_modules'));
    process.once('exit', () => this.remove());
  }

  remove(): void {
    rmSync(this.root, { recursive: true, force: true });
    execFileSync('git', ['worktree', 'prune'], { cwd: PROJECT_ROOT, stdio: 'pipe' });
  }
}

/** Starts the targets of a run; `close` ends everything that was started. */
export class Targets {
  readonly list: Target[] = [];
  readonly #closers: (() => unknown)[] = [];

  /** @param commit of `today` */
  static async start(against: readonly Peer[], commit: string): Promise<Targets> {
    const targets = new Targets();
    try {
      await targets.#tollgate(PROJECT_ROOT, ['raw', 'socket.io']);
      if (against.includes('today')) {
        const worktree = new Worktree(commit);
        targets.#closers.push(() => worktree.remove());
        await targets.#tollgate(worktree.root, ['today raw', 'today socket.io']);
      }
      for (const peer of ['p1k', 'p4r'] as const) if (against.includes(peer)) await targets.#peer(peer);
      return targets;
    } catch (error) {
      await targets.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    for (const close of this.#closers.splice(0).reverse()) await close();
  }

  /** Both transports share a deployment: they are measured in turn. */
  async #tollgate(root: string, [raw, socketIo]: readonly [TargetName, TargetName]): Promise<void> {
    const deployment = await this.#deployment(root);
    const worker = await deployment.worker();
    for (const [name, transport] of [[raw, 'ws'] as const, [socketIo, 'io'] as const]) {
      const server = (port?: number) => deployment.gateway(inspected(port));
      const load = this.#load({ redisUrl: deployment.redis.url, publishing: 'append', root, transport });
      this.list.push({ name, deployment, server, worker, load });
    }
  }

  async #peer(name: 'p1k' | 'p4r'): Promise<void> {
    const deployment = await Deployment.redisOnly();
    this.#closers.push(() => deployment.close());
    const start = (file: string, port?: number) => this.#start(deployment, file, inspected(port));
    const worker = await start(`${name}-worker`);
    const transport = name === 'p1k' ? 'io' : 'ws';
    const load = this.#load({ redisUrl: deployment.redis.url, publishing: name, root: PROJECT_ROOT, transport });
    this.list.push({ name, deployment, server: (port) => start(name, port), worker, load });
  }

  async #deployment(root: string): Promise<Deployment> {
    const deployment = await Deployment.start({}, root);
    this.#closers.push(() => deployment.close());
    return deployment;
  }

  #load(settings: LoadSettings): Load {
    const load = startLoad(settings);
    this.#closers.push(() => load.close());
    return load;
  }

  async #start(deployment: Deployment, file: string, env: Readonly<Record<string, string>>): Promise<Started> {
    const [port = 0] = await freePorts(1);
    const url = `http://127.0.0.1:${port}`;
    const settings: PeerSettings = {
      port,
      redisUrl: deployment.redis.url,
      secret: deployment.jwtSecret,
      issuer: deployment.issuer,
      audience: JWT_AUDIENCE,
    };
    const args = [`bench/peers/${file}.ts`, JSON.stringify(settings)];
    const started = new ManagedProcess({
      name: file,
      command: process.execPath,
      args,
      env: { ...process.env, ...env },
    });
    this.#closers.push(() => (started.running ? started.stop() : undefined));
    // A worker of a peer has no port; it is ready when it waits for jobs.
    if (!file.endsWith('-worker')) {
      await whenReady(started, { name: file, isReady: async () => (await httpStatus(url)) === 200 });
    }
    return { url, pid: started.pid ?? 0, stop: async () => void (await started.stop()) };
  }
}

/** Returns an environment that opens the inspector on a port. */
export function inspected(port?: number): Record<string, string> {
  return port === undefined ? {} : { NODE_OPTIONS: `--inspect=127.0.0.1:${port}` };
}

/** Returns new users of a target, with their tokens. */
export function newUsers({ deployment }: Pick<Target, 'deployment'>, count: number): { id: string; token: string }[] {
  const run = randomBytes(4).toString('hex');
  return Array.from({ length: count }, (_, at) => {
    const id = `${run}-${at}`;
    return { id, token: deployment.token(id) };
  });
}
