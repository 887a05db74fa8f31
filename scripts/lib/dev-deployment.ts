import { join } from 'node:path';
import { Closers } from '../../src/lib/closers.ts';
import { describeRedisUrl } from '../../src/lib/redis-url.ts';
import { type DevSecrets, devSecrets, writeDevState } from './dev-state.ts';
import { haproxy, haproxyVersion } from './haproxy.ts';
import { logPrinter } from './log-lines.ts';
import { lockPidFile } from './pid-file.ts';
import { isPortFree, LOOPBACK, nextFreePort } from './ports.ts';
import type { Environment, Startable } from './processes.ts';
import { ensureRedisServer, redisStartable, redisUrl } from './redis-server.ts';
import type { Steps } from './steps.ts';
import { Supervisor } from './supervisor.ts';
import { authService, gateway, httpUrl, type ServiceOptions, worker } from './tollgate-processes.ts';
import { describeFailure, UserError } from './user-error.ts';

const DEFAULT_REDIS_PORT = 6_379;
/** Drain time in development: Ctrl-C waits less long than a production deployment gives its clients. */
const DEV_DRAIN_SECONDS = '1';
/** A gateway drains for `DRAIN_SECONDS`; a process that needs longer than that and this is stuck. */
const STOP_GRACE_MS = 5_000;

export interface DeploymentOptions {
  readonly nodes: number;
  readonly workers: number;
  /** The port of the first gateway; the others follow. `workerPort` does the same for workers. */
  readonly port: number;
  readonly authPort: number;
  readonly workerPort: number;
  /** The port of HAProxy in front of the gateways; undefined without one. */
  readonly balancerPort: number | undefined;
  readonly stateDir: string;
  readonly verbose: boolean;
  /** The caller's environment. Its Tollgate variables override generated ones. */
  readonly env: Environment;
}

type Ports = Pick<Deployment, 'gatewayPorts' | 'workerPorts' | 'balancerPort'>;

/** Addresses and credentials of a running deployment. */
export interface Deployment {
  readonly gatewayPorts: readonly number[];
  readonly workerPorts: readonly number[];
  readonly authPort: number;
  /** Undefined without a load balancer. */
  readonly balancerPort: number | undefined;
  readonly redisUrl: string;
  readonly secrets: DevSecrets;
}

/**
 * Redis, the auth service, workers, gateways and optionally HAProxy as processes of this machine, restarted until
 * `stop`. They start in the order of their dependencies and stop in reverse.
 */
export class DevDeployment {
  readonly #options: DeploymentOptions;
  readonly #steps: Steps;
  readonly #closers = new Closers();
  readonly #supervisors: Supervisor[] = [];
  /** Log lines of the start: printed after it succeeds. If it fails, the failure contains them. */
  #bufferedLines: string[] | undefined = [];
  #stopping = false;

  constructor(options: DeploymentOptions, steps: Steps) {
    this.#options = options;
    this.#steps = steps;
  }

  /** @throws UserError if a process cannot be started; `stop` then ends the others */
  async start(): Promise<Deployment> {
    const { nodes, workers, port, authPort, workerPort } = this.#options;
    this.#lockStateDir();
    const gatewayPorts = portsFrom(port, nodes);
    const workerPorts = portsFrom(workerPort, workers);
    const balancerPort = this.#wantedBalancerPort();
    await this.#checkPorts({ gatewayPorts, workerPorts, balancerPort });
    const secrets = this.#secrets();
    const redisUrl = await this.#startRedis();
    const deployment = { gatewayPorts, workerPorts, authPort, balancerPort, redisUrl, secrets };
    const env = this.#environment(deployment);
    this.#remember(deployment);
    await this.#startServices([authService(this.#service('auth', authPort, env))], [authPort]);
    const workerName = (index: number) => (workers > 1 ? `worker-${index + 1}` : 'worker');
    const workerProcesses = workerPorts.map((at, index) => worker(this.#service(workerName(index), at, env)));
    await this.#startServices(workerProcesses, workerPorts);
    const gateways = gatewayPorts.map((at, index) => gateway(this.#service(`gateway-${index + 1}`, at, env)));
    await this.#startServices(gateways, gatewayPorts);
    if (balancerPort !== undefined) {
      await this.#startServices([haproxy(balancerPort, gatewayPorts.map(httpUrl))], [balancerPort]);
    }
    for (const line of this.#bufferedLines ?? []) this.#steps.plain(line);
    this.#bufferedLines = undefined;
    return deployment;
  }

  /** Idempotent. */
  stop(): Promise<void> {
    this.#stopping = true;
    return this.#closers.close();
  }

  /** Kills every process at once. */
  kill(): void {
    for (const supervisor of this.#supervisors) supervisor.kill();
  }

  #lockStateDir(): void {
    const { stateDir } = this.#options;
    const lock = lockPidFile(join(stateDir, 'start.pid'));
    if ('heldBy' in lock) {
      throw new UserError(
        `npm start is already running for ${stateDir} (pid ${lock.heldBy}). Use that one, or stop it with Ctrl-C in its terminal.`,
      );
    }
    this.#closers.add('the pid file', lock.release);
  }

  /** Returns undefined with a warning if HAProxy is missing, because the deployment also works without it. */
  #wantedBalancerPort(): number | undefined {
    const { balancerPort } = this.#options;
    if (balancerPort === undefined || haproxyVersion() !== undefined) return balancerPort;
    this.#steps.note(
      'HAProxy is not installed (apt-get install haproxy): the gateways have no load balancer in front.',
    );
    return undefined;
  }

  async #checkPorts({ gatewayPorts, workerPorts, balancerPort }: Ports): Promise<void> {
    const { authPort } = this.#options;
    const wanted = [
      ...gatewayPorts.map((port) => ({ port, who: 'a gateway', flag: '--port', variable: 'PORT' })),
      { port: authPort, who: 'the auth service', flag: '--auth-port', variable: 'AUTH_PORT' },
      ...workerPorts.map((port) => ({ port, who: 'a worker', flag: '--worker-port', variable: 'WORKER_PORT' })),
      ...(balancerPort === undefined
        ? []
        : [{ port: balancerPort, who: 'HAProxy', flag: '--balancer-port', variable: 'BALANCER_PORT' }]),
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

  /** Returns the configured Redis, or starts one. */
  async #startRedis(): Promise<string> {
    const configured = this.#options.env.REDIS_URL;
    if (configured) {
      this.#steps.note(`Redis at ${describeRedisUrl(configured)} (REDIS_URL)`);
      return configured;
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

  /** Stores addresses for `npm run chat`, `bill` and `load`. */
  #remember({ gatewayPorts, workerPorts, authPort, balancerPort, redisUrl: redis_url, secrets }: Deployment): void {
    writeDevState(this.#options.stateDir, {
      ...(balancerPort === undefined ? {} : { balancer_url: httpUrl(balancerPort) }),
      gateway_urls: gatewayPorts.map(httpUrl),
      worker_url: httpUrl(workerPorts[0] ?? 0),
      auth_url: httpUrl(authPort),
      redis_url,
      ...secrets,
    });
  }

  #environment({ gatewayPorts, balancerPort, authPort, redisUrl, secrets }: Deployment): Environment {
    const { env, verbose } = this.#options;
    const pagePorts = balancerPort === undefined ? gatewayPorts : [balancerPort, ...gatewayPorts];
    const own = pagePorts.flatMap((port) => [`http://localhost:${port}`, `http://${LOOPBACK}:${port}`]);
    const authUrl = httpUrl(authPort);
    return {
      HOST: LOOPBACK,
      DRAIN_SECONDS: DEV_DRAIN_SECONDS,
      LOG_LEVEL: verbose ? 'info' : 'warn',
      // HAProxy adds the client's address. A client that connects to a gateway directly has no such header and counts
      // by its socket's address.
      ...(balancerPort === undefined ? {} : { TRUSTED_PROXY_HOPS: '1' }),
      ...env,
      ENVIRONMENT: 'development',
      REDIS_URL: redisUrl,
      AUTH_SERVICE_URL: authUrl,
      JWT_SECRET_KEY: secrets.jwt_secret,
      SERVICE_SECRET: secrets.service_secret,
      DEMO_PASSWORD: secrets.demo_password,
      CORS_ORIGINS: [...own, ...(env.CORS_ORIGINS ? [env.CORS_ORIGINS] : [])].join(','),
    };
  }

  #service(name: string, port: number, env: Environment): ServiceOptions {
    const { verbose } = this.#options;
    const print = (text: string) => {
      if (verbose || !this.#bufferedLines) this.#steps.plain(text);
      else this.#bufferedLines.push(text);
    };
    return { name, port, env, onLine: logPrinter(name, { verbose, print }) };
  }

  /** Starts services concurrently. Each is registered for the shutdown before the first one launches. */
  async #startServices(startables: readonly Startable[], ports: readonly number[]): Promise<void> {
    const started = startables.map((startable) => this.#supervise(startable));
    // An invalid value has already kept the gateways from starting.
    const drainMs = Number(this.#options.env.DRAIN_SECONDS ?? DEV_DRAIN_SECONDS) * 1000;
    const graceMs = STOP_GRACE_MS + (drainMs || 0);
    this.#closers.add(started.map(({ name }) => name).join(', '), () =>
      Promise.all(started.map((supervisor) => supervisor.stop(graceMs))),
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

  #supervise(startable: Startable): Supervisor {
    if (this.#stopping) throw new UserError('Stopped.');
    const supervisor = new Supervisor(startable, { report: (text) => this.#steps.note(text) });
    this.#supervisors.push(supervisor);
    return supervisor;
  }
}

function portsFrom(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => first + index);
}
