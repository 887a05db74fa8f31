import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { freePorts } from '../../scripts/lib/ports.ts';
import { type Exit, ManagedProcess, type OnLine, PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { closeAfter } from './open-resources.ts';
import { until } from './until.ts';

const SCRIPTS = join(PROJECT_ROOT, 'k8s/components/redis-sentinel/scripts');
const PODS = [0, 1, 2] as const;
/** Loopback addresses that stay the same across restarts, as those of the Services do. */
const redisAddress = (pod: number) => `127.0.0.${11 + pod}`;
const sentinelAddress = (pod: number) => `127.0.0.${21 + pod}`;

export interface RedisPodsOptions {
  readonly password: string;
  /** The script of the StatefulSet tollgate-sentinel. */
  readonly sentinelScript: string;
  /**
   * Interval in which the Sentinels read the state of the servers, 10 s by default. A shorter one saves a test the wait
   * for the second reading, which is the first that has all replicas.
   */
  readonly readEveryMs?: number;
}

/** The pods of the component redis-sentinel as processes of this machine, with the scripts of the manifests. */
export class RedisPods {
  readonly port: number;
  readonly sentinelPort: number;
  readonly #options: RedisPodsOptions;
  readonly #root = mkdtempSync(join(tmpdir(), 'tollgate-pods-'));
  readonly #servers = new Map<number, ManagedProcess>();
  readonly #lines: string[] = [];

  private constructor(options: RedisPodsOptions, [port = 0, sentinelPort = 0]: readonly number[]) {
    this.#options = options;
    this.port = port;
    this.sentinelPort = sentinelPort;
    closeAfter('test', () => rmSync(this.#root, { recursive: true, force: true }));
  }

  /** Starts three Sentinels and three servers, and resolves when all are ready. */
  static async start(options: RedisPodsOptions): Promise<RedisPods> {
    const pods = new RedisPods(options, await freePorts(2));
    for (const pod of PODS) pods.startSentinel(pod);
    for (const pod of PODS) pods.startServer(pod);
    await Promise.all(PODS.map((pod) => pods.ready(pod)));
    await pods.#complete();
    return pods;
  }

  /** Resolves when every Sentinel knows the others and both replicas: before that they cannot fail over. */
  async #complete(): Promise<void> {
    const knows = async (pod: number) => {
      const options = { host: sentinelAddress(pod), port: this.sentinelPort, password: this.#options.password };
      const redis = new Redis({ ...options, lazyConnect: true, retryStrategy: () => null });
      redis.on('error', () => {});
      try {
        await redis.connect();
        const { readEveryMs } = this.#options;
        if (readEveryMs !== undefined) await redis.call('SENTINEL', 'DEBUG', 'INFO-PERIOD', readEveryMs);
        const flat = (await redis.call('SENTINEL', 'MASTER', 'tollgate')) as string[];
        const of = (name: string) => flat[flat.indexOf(name) + 1];
        return of('num-slaves') === '2' && of('num-other-sentinels') === '2';
      } finally {
        redis.disconnect();
      }
    };
    const isComplete = async () => (await Promise.all(PODS.map(knows))).every(Boolean);
    await until(isComplete, {
      timeoutMs: 40_000,
      everyMs: 200,
      label: 'Sentinels that know each other and all servers',
    });
  }

  get url(): string {
    const sentinels = PODS.map((pod) => `${sentinelAddress(pod)}:${this.sentinelPort}`).join();
    return `redis+sentinel://:${this.#options.password}@${sentinels}/tollgate`;
  }

  startSentinel(pod: number): ManagedProcess {
    const { password, sentinelScript } = this.#options;
    const local = sentinelScript
      .replaceAll('/data', this.#folder(`sentinel-${pod}`))
      .replaceAll('port 26379', `port ${this.sentinelPort}\nbind ${sentinelAddress(pod)}`)
      .replaceAll('(requirepass|port|', '(requirepass|bind|port|')
      .replaceAll('$HOSTNAME.tollgate-sentinel', sentinelAddress(pod))
      .replaceAll('tollgate-redis-0 6379', `${redisAddress(0)} ${this.port}`);
    const env = { PATH: process.env.PATH, REDIS_PASSWORD: password };
    const child = new ManagedProcess({ name: `sentinel-${pod}`, command: 'sh', args: ['-c', local], env });
    closeAfter('test', () => child.stop());
    return child;
  }

  startServer(pod: number): void {
    const child = this.#script(pod, 'start.sh', (line) => this.#lines.push(`${pod} ${line}`));
    closeAfter('test', () => child.stop());
    this.#servers.set(pod, child);
  }

  /** Returns whether the readiness probe succeeds. */
  async isReady(pod: number): Promise<boolean> {
    return (await this.#script(pod, 'ready.sh').exited).code === 0;
  }

  async ready(pod: number): Promise<void> {
    const options = { timeoutMs: 60_000, everyMs: 200, label: `a ready pod ${pod}: ${this.output(pod)}` };
    await until(() => this.isReady(pod), options);
  }

  /** Stops a pod as the kubelet does: preStop, then SIGTERM. Returns the output of preStop. */
  async stop(pod: number): Promise<string> {
    const preStop = this.#script(pod, 'stop.sh');
    await preStop.exited;
    await this.#server(pod).stop(20_000);
    return preStop.output;
  }

  kill(pod: number): Promise<Exit> {
    this.#server(pod).kill('SIGKILL');
    return this.#server(pod).exited;
  }

  /** Deletes the volume of a stopped pod. */
  wipe(pod: number): void {
    rmSync(this.#folder(`redis-${pod}`), { recursive: true });
  }

  /** Returns everything that the server of a pod has printed at all its starts. */
  output(pod: number): string {
    return this.#lines.filter((line) => line.startsWith(`${pod} `)).join('\n');
  }

  #server(pod: number): ManagedProcess {
    const server = this.#servers.get(pod);
    if (!server) throw new Error(`pod ${pod} has not been started`);
    return server;
  }

  #script(pod: number, script: string, onLine?: OnLine): ManagedProcess {
    const env = {
      PATH: process.env.PATH,
      NAME: redisAddress(pod),
      BIND: redisAddress(pod),
      PEERS: PODS.map(redisAddress).join(' '),
      SENTINELS: PODS.map(sentinelAddress).join(' '),
      REDIS_PASSWORD: this.#options.password,
      REDIS_PORT: String(this.port),
      SENTINEL_PORT: String(this.sentinelPort),
      DATA: this.#folder(`redis-${pod}`),
    };
    return new ManagedProcess({ name: `${script} ${pod}`, command: 'sh', args: [join(SCRIPTS, script)], env, onLine });
  }

  #folder(name: string): string {
    const folder = join(this.#root, name);
    mkdirSync(folder, { recursive: true });
    return folder;
  }
}
