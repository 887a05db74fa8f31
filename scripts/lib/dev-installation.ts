import { join } from 'node:path';
import { Closers } from '../../src/lib/closers.ts';
import { type DevSecrets, devSecrets, writeDevState } from './dev-state.ts';
import { logPrinter } from './log-lines.ts';
import { takePidFile } from './pid-file.ts';
import { isPortFree, LOOPBACK, nextFreePort } from './ports.ts';
import type { Environment } from './processes.ts';
import { ensureRedisServer, redisStartable, redisUrl } from './redis-server.ts';
import type { Steps } from './steps.ts';
import { Supervisor } from './supervisor.ts';
import { authService, gateway, httpUrl, type ServiceOptions, worker } from './tollgate-processes.ts';
import { describeFailure, UserError } from './user-error.ts';

const DEFAULT_REDIS_PORT = 6_379;
/** A gateway drains for `DRAIN_SECONDS`; what takes longer than that and this is stuck. */
const STOP_GRACE_MS = 5_000;

export interface InstallationOptions {
  readonly nodes: number;
  readonly port: number;
  readonly authPort: number;
  readonly workerPort: number;
  readonly stateDir: string;
  readonly verbose: boolean;
  /** The caller's environment: its Tollgate variables win over what would be generated. */
  readonly env: Environment;
}

/** Where a running installation is reached, and with what. */
export interface Installation {
  readonly gatewayPorts: readonly number[];
  readonly workerPort: number;
  readonly authPort: number;
  readonly redisUrl: string;
  readonly secrets: DevSecrets;
}

/**
 * Redis, the auth service, a worker and gateways as processes of this machine, kept running until `stop`. They are
 * started in the order in which they need each other, and stopped in the reverse one.
 */
export class DevInstallation {
  readonly #options: InstallationOptions;
  readonly #steps: Steps;
  readonly #closers = new Closers();
  readonly #supervisors: Supervisor[] = [];
  /** Log lines of the start: shown after it, and not at all when it fails, since the failure shows them itself. */
  #heldLines: string[] | undefined = [];
  #stopping = false;

  constructor(options: InstallationOptions, steps: Steps) {
    this.#options = options;
    this.#steps = steps;
  }

  /** @throws UserError when something cannot be started; `stop` then ends what could */
  async start(): Promise<Installation> {
    const { nodes, port, authPort, workerPort, stateDir } = this.#options;
    this.#takeStateDir();
    const gatewayPorts = Array.from({ length: nodes }, (_, index) => port + index);
    await this.#checkPorts(gatewayPorts);
    const secrets = this.#secrets();
    const redis = await this.#startRedis();
    const env = this.#environment({ gatewayPorts, redis, secrets });
    writeDevState(stateDir, {
      gateway_urls: gatewayPorts.map(httpUrl),
      worker_url: httpUrl(workerPort),
      auth_url: httpUrl(authPort),
      redis_url: redis,
      ...secrets,
    });
    await this.#startServices([authService(this.#service('auth', authPort, env))], [authPort]);
    await this.#startServices([worker(this.#service('worker', workerPort, env))], [workerPort]);
    const gateways = gatewayPorts.map((at, index) => gateway(this.#service(`gateway-${index + 1}`, at, env)));
    await this.#startServices(gateways, gatewayPorts);
    for (const line of this.#heldLines ?? []) this.#steps.plain(line);
    this.#heldLines = undefined;
    return { gatewayPorts, workerPort, authPort, redisUrl: redis, secrets };
  }

  /** Idempotent. */
  stop(): Promise<void> {
    this.#stopping = true;
    return this.#closers.close();
  }

  /** Ends every process at once, without asking. */
  kill(): void {
    for (const supervisor of this.#supervisors) supervisor.kill();
  }

  #takeStateDir(): void {
    const { stateDir } = this.#options;
    const taken = takePidFile(join(stateDir, 'start.pid'));
    if ('heldBy' in taken) {
      throw new UserError(
        `npm start is already running for ${stateDir} (pid ${taken.heldBy}). Use that one, or stop it with Ctrl-C in its terminal.`,
      );
    }
    this.#closers.add('the pid file', taken.release);
  }

  async #checkPorts(gatewayPorts: readonly number[]): Promise<void> {
    const { authPort, workerPort } = this.#options;
    const wanted = [
      ...gatewayPorts.map((port) => ({ port, who: 'a gateway', flag: '--port', variable: 'PORT' })),
      { port: authPort, who: 'the auth service', flag: '--auth-port', variable: 'AUTH_PORT' },
      { port: workerPort, who: 'the worker', flag: '--worker-port', variable: 'WORKER_PORT' },
    ];
    for (const { port, who, flag, variable } of wanted) {
      if (await isPortFree(port)) continue;
      throw new UserError(
        `Port ${port}, meant for ${who}, is in use by another program. Stop it, or choose another port: npm start -- ${flag} <port> (or ${variable}=<port>).`,
      );
    }
  }

  #secrets(): DevSecrets {
    const { env, stateDir } = this.#options;
    const kept = devSecrets(stateDir);
    return {
      jwt_secret: env.JWT_SECRET_KEY || kept.jwt_secret,
      service_secret: env.SERVICE_SECRET || kept.service_secret,
      demo_password: env.DEMO_PASSWORD || kept.demo_password,
    };
  }

  /** The address of the Redis that was named, or of our own. */
  async #startRedis(): Promise<string> {
    const given = this.#options.env.REDIS_URL;
    if (given) {
      this.#steps.note(`Redis at ${withoutPassword(given)} (REDIS_URL)`);
      return given;
    }
    const program = await ensureRedisServer((text) => this.#steps.note(text));
    const port = await nextFreePort(DEFAULT_REDIS_PORT);
    const dir = join(this.#options.stateDir, 'redis');
    const server = this.#supervise(redisStartable(program, { port, dir, persistent: true }));
    this.#closers.add('Redis', () => server.stop(STOP_GRACE_MS));
    const describe = () => `${program.command} ${program.version} on port ${port} (pid ${server.pid})`;
    await this.#steps.run(describe, () => server.start());
    return redisUrl(port);
  }

  #environment(known: { gatewayPorts: readonly number[]; redis: string; secrets: DevSecrets }): Environment {
    const { env, authPort, verbose } = this.#options;
    const own = known.gatewayPorts.flatMap((port) => [`http://localhost:${port}`, `http://${LOOPBACK}:${port}`]);
    const authUrl = httpUrl(authPort);
    return {
      HOST: LOOPBACK,
      DRAIN_SECONDS: '1',
      LOG_LEVEL: verbose ? 'info' : 'warn',
      ...env,
      ENVIRONMENT: 'development',
      REDIS_URL: known.redis,
      AUTH_SERVICE_URL: authUrl,
      JWT_SECRET_KEY: known.secrets.jwt_secret,
      SERVICE_SECRET: known.secrets.service_secret,
      DEMO_PASSWORD: known.secrets.demo_password,
      CORS_ORIGINS: [...own, ...(env.CORS_ORIGINS ? [env.CORS_ORIGINS] : [])].join(','),
    };
  }

  #service(name: string, port: number, env: Environment): ServiceOptions {
    const { verbose } = this.#options;
    const print = (text: string) => {
      if (verbose || !this.#heldLines) this.#steps.plain(text);
      else this.#heldLines.push(text);
    };
    return { name, port, env, onLine: logPrinter(name, { verbose, print }) };
  }

  /** Starts services side by side; they are registered for the end before the first of them is launched. */
  async #startServices(startables: readonly ReturnType<typeof gateway>[], ports: readonly number[]): Promise<void> {
    const started = startables.map((startable) => this.#supervise(startable));
    this.#closers.add(started.map(({ name }) => name).join(', '), () =>
      Promise.all(started.map((supervisor) => supervisor.stop(STOP_GRACE_MS))),
    );
    const results = await Promise.allSettled(
      started.map((supervisor, index) =>
        this.#steps.run(
          () => `${supervisor.name} on port ${ports[index]} (pid ${supervisor.pid})`,
          () => supervisor.start(),
        ),
      ),
    );
    for (const result of results) {
      if (result.status === 'fulfilled') continue;
      const advice = 'Put that right and run npm start again; with -- --verbose it shows every log line.';
      throw new UserError(`${describeFailure(result.reason)}\n${advice}`, { cause: result.reason });
    }
  }

  #supervise(startable: ReturnType<typeof gateway>): Supervisor {
    if (this.#stopping) throw new UserError('Stopped.');
    const supervisor = new Supervisor(startable, { report: (text) => this.#steps.note(text) });
    this.#supervisors.push(supervisor);
    return supervisor;
  }
}

function withoutPassword(url: string): string {
  if (!URL.canParse(url)) return 'an address that is no URL';
  const { protocol, host } = new URL(url);
  return `${protocol}//${host}`;
}
