import { freePorts, LOOPBACK } from '../../scripts/lib/ports.ts';
import { RedisProcess, type RedisProcessOptions, type Settings } from './redis-process.ts';
import { areInStep } from './replicas.ts';
import { until } from './until.ts';

const MASTER_NAME = 'tollgate';
/** The Redis user of Sentinels and replicas, so that a test can cut them off without cutting off the clients. */
const WATCHERS = 'watchers';
const WATCHERS_PASSWORD = 'of-the-tests-alone';
/** Time without an answer after which a Sentinel declares the master down. The default of Redis is 30 s. */
export const DOWN_AFTER_MS = 1_500;

export interface SentinelOptions {
  readonly replicas?: number;
  /** Password of the master and its replicas. */
  readonly password?: string;
  readonly sentinelPassword?: string;
  readonly settings?: Settings;
  /** Connection options for questions to the servers. */
  readonly ask?: RedisProcessOptions['ask'];
  /** TLS settings of servers and Sentinels on that port, and the matching connection options. */
  readonly tls?: { readonly settings: (port: number) => Settings; readonly ask: RedisProcessOptions['ask'] };
}

/** A master, its replicas, and three Sentinels that watch them, on loopback. */
export class SentinelProcesses {
  readonly servers: readonly RedisProcess[];
  readonly sentinels: readonly RedisProcess[];
  readonly url: string;

  private constructor(servers: readonly RedisProcess[], sentinels: readonly RedisProcess[], password: string) {
    this.servers = servers;
    this.sentinels = sentinels;
    const hosts = sentinels.map(({ port }) => `${LOOPBACK}:${port}`).join(',');
    this.url = `redis+sentinel://${password && `:${encodeURIComponent(password)}@`}${hosts}/${MASTER_NAME}`;
  }

  static async start(options: SentinelOptions = {}): Promise<SentinelProcesses> {
    const { replicas = 2, password = '', sentinelPassword = '' } = options;
    const ports = await freePorts(1 + replicas + 3);
    const [masterPort = 0] = ports;
    const ask = { ...(password ? { password } : {}), ...options.ask, ...options.tls?.ask };
    const serve = (port: number) => {
      return RedisProcess.start({ port, ask, settings: serverSettings(port, masterPort, options) });
    };
    const servers = await Promise.all(ports.slice(0, -3).map(serve));
    // Comes first: a Sentinel asks a master for its replicas when it starts, and then every ten seconds.
    const inStep = () => servers[0]?.ask((redis) => areInStep(redis, replicas));
    await until(inStep, { timeoutMs: 20_000, label: 'replicas that follow the master' });
    const watch = (port: number) => {
      const settings = sentinelSettings(port, masterPort, options);
      return RedisProcess.start({
        port,
        settings,
        sentinel: true,
        ask: { ...(sentinelPassword ? { password: sentinelPassword } : {}), ...options.tls?.ask },
      });
    };
    const sentinels = await Promise.all(ports.slice(-3).map(watch));
    const started = new SentinelProcesses(servers, sentinels, password);
    await started.complete();
    return started;
  }

  /** Returns the server that the Sentinels name as master. */
  async master(): Promise<RedisProcess> {
    const [sentinel] = this.sentinels;
    const address = await sentinel?.ask((redis) => redis.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', MASTER_NAME));
    const port = Number((address as string[])[1]);
    const master = this.servers.find((server) => server.port === port);
    if (!master) throw new Error(`the Sentinels name ${port}, which is none of ours`);
    return master;
  }

  /** Resolves when every Sentinel knows the others and all replicas, and the replicas follow the master. */
  async complete(): Promise<void> {
    const replicas = this.servers.length - 1;
    const knows = async (sentinel: RedisProcess) => {
      const reply = await sentinel.ask((redis) => redis.call('SENTINEL', 'MASTER', MASTER_NAME));
      const flat = reply as string[];
      const of = (name: string) => flat[flat.indexOf(name) + 1];
      const [others, slaves] = [Number(of('num-other-sentinels')), Number(of('num-slaves'))];
      return of('flags') === 'master' && others === 2 && slaves === replicas;
    };
    const isComplete = async () => {
      const known = await Promise.all(this.sentinels.map(knows));
      if (!known.every(Boolean)) return false;
      const master = await this.master();
      return master.ask((redis) => areInStep(redis, replicas));
    };
    await until(isComplete, { timeoutMs: 40_000, everyMs: 100, label: 'Sentinels and replicas that know each other' });
  }

  /**
   * Cuts a server off from the Sentinels and the other servers. Its clients stay connected and notice nothing.
   * @returns ends the partition
   */
  async partition(server: RedisProcess): Promise<() => Promise<unknown>> {
    await server.ask(async (redis) => {
      await redis.acl('SETUSER', WATCHERS, 'off');
      await redis.client('KILL', 'USER', WATCHERS);
    });
    return () => server.ask((redis) => redis.acl('SETUSER', WATCHERS, 'on'));
  }

  /** Resolves when the Sentinels name another master than `before`, and it answers as master. */
  async failedOver(before: RedisProcess, timeoutMs = 40_000): Promise<RedisProcess> {
    const other = async () => {
      const master = await this.master();
      const info = master === before ? '' : await master.ask((redis) => redis.info('replication'));
      return info.includes('role:master') ? master : undefined;
    };
    return until(other, { timeoutMs, everyMs: 50, label: 'another master' });
  }

  async close(): Promise<void> {
    await Promise.all([...this.sentinels, ...this.servers].map((server) => server.close()));
  }
}

function serverSettings(port: number, masterPort: number, { password, settings = [], tls }: SentinelOptions): Settings {
  const secret: Settings = password ? [['requirepass', `"${password}"`]] : [];
  const role: Settings = port === masterPort ? [] : [['replicaof', LOOPBACK, String(masterPort)]];
  return [
    ['port', String(port)],
    ['repl-diskless-sync-delay', '0'],
    ['maxmemory-policy', 'noeviction'],
    ['appendonly', 'yes'],
    ['appendfsync', 'everysec'],
    ['save', '""'],
    ['user', WATCHERS, 'on', `>${WATCHERS_PASSWORD}`, '~*', '&*', '+@all'],
    ['masteruser', WATCHERS],
    ['masterauth', WATCHERS_PASSWORD],
    ...secret,
    ...role,
    ...settings,
    ...(tls?.settings(port) ?? []),
  ];
}

function sentinelSettings(port: number, masterPort: number, { sentinelPassword, tls }: SentinelOptions): Settings {
  const secrets: Settings = sentinelPassword
    ? [
        ['requirepass', sentinelPassword],
        ['sentinel', 'sentinel-pass', sentinelPassword],
      ]
    : [];
  return [
    ['port', String(port)],
    ['sentinel', 'monitor', MASTER_NAME, LOOPBACK, String(masterPort), '2'],
    ['sentinel', 'auth-user', MASTER_NAME, WATCHERS],
    ['sentinel', 'auth-pass', MASTER_NAME, WATCHERS_PASSWORD],
    ['sentinel', 'down-after-milliseconds', MASTER_NAME, String(DOWN_AFTER_MS)],
    ['sentinel', 'failover-timeout', MASTER_NAME, '5000'],
    ['sentinel', 'parallel-syncs', MASTER_NAME, '1'],
    ...secrets,
    ...(tls?.settings(port) ?? []),
  ];
}
