import { randomBytes } from 'node:crypto';
import { freePorts } from '../../scripts/lib/ports.ts';
import {
  describeExit,
  type Environment,
  type Exit,
  type ManagedProcess,
  type Startable,
  whenReady,
} from '../../scripts/lib/processes.ts';
import { authService, gateway, httpUrl, type ServiceOptions, worker } from '../../scripts/lib/tollgate-processes.ts';
import { VARIABLE_NAMES } from '../../src/config.ts';

/** Addresses and secrets of a stack; plain data, because it crosses process boundaries. */
export interface StackAddresses {
  readonly gateways: readonly { readonly url: string; readonly wsUrl: string }[];
  readonly workers: readonly { readonly url: string }[];
  readonly authUrl: string;
  readonly redisUrl: string;
  readonly keyPrefix: string;
  readonly secrets: { readonly jwt: string; readonly service: string };
  readonly demoPassword: string;
}

export interface StackOptions {
  readonly gateways?: number;
  readonly workers?: number;
  /** Environment variables that override those of every test stack. */
  readonly env?: Environment;
  /** Further variables of one process, by its name: `auth`, `gateway-1`, `worker-1`. */
  readonly envOf?: (name: string) => Environment;
  readonly redisUrl: string;
  /** A checkout of an earlier version, which gateways and workers run until `switchTo('current')`. */
  readonly earlierRoot?: string;
  /** Puts a proxy in front of the auth service: gets its URL, returns the one that all processes use. */
  readonly authProxy?: (authUrl: string) => Promise<string>;
  /** Receives every line that any of the processes prints, and its name. */
  readonly onLine?: (line: string, name: string) => void;
}

/** Short intervals where a test would otherwise wait; otherwise defaults. */
const TEST_ENVIRONMENT: Environment = {
  ENVIRONMENT: 'test',
  HOST: '127.0.0.1',
  LOG_LEVEL: 'warn',
  CONNECTION_LEASE_SECONDS: '3',
  DRAIN_SECONDS: '1',
  ACCESS_TOKEN_SECONDS: '600',
  // All clients of all tests share one address.
  AUTH_FAILURES_PER_MINUTE: '1000000',
  PENDING_CONNECTIONS_PER_ADDRESS: '1000000',
  BLOCKING_MS_PER_MINUTE: '60000',
};
const STOP_GRACE_MS = 5_000;
/** Origin of the pages of browser tests. */
const PAGE_ORIGIN = 'http://app.example.test';
/** Output that no process may print: an unhandled error or a listener leak. */
const UNHANDLED = /unhandled|uncaught|MaxListenersExceededWarning/i;

/** The version of a checkout that a process runs. */
export type Version = 'current' | 'earlier';

/** One process of a stack. It can be stopped and restarted at the same address. */
export class StackProcess {
  readonly name: string;
  readonly url: string;
  readonly #versions: Readonly<Record<Version, Startable>>;
  #startable: Startable;
  #process: ManagedProcess | undefined;
  /** Whether a test ended it; any other exit is a failure. */
  #endWanted = false;
  /** Whether the latest start has succeeded; `start` reports the exit of a process that fails to start. */
  #hasStarted = false;

  /** @param earlier starts the process in an earlier version, which then is the first one */
  constructor(current: Startable, url: string, earlier?: Startable) {
    this.name = current.name;
    this.url = url;
    this.#versions = { current, earlier: earlier ?? current };
    this.#startable = this.#versions.earlier;
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  get running(): boolean {
    return this.#process?.running ?? false;
  }

  /** The last lines of output. */
  get output(): string {
    return this.#process?.output ?? '';
  }

  async start(): Promise<void> {
    this.#endWanted = false;
    this.#hasStarted = false;
    this.#process = this.#startable.launch();
    await whenReady(this.#process, this.#startable);
    this.#hasStarted = true;
  }

  /** Resolves when the process has ended. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<Exit> {
    this.#endWanted = true;
    this.#launched.kill(signal);
    return this.#launched.exited;
  }

  /** Stops the process with SIGTERM, like an orchestrator. */
  async stop(): Promise<Exit> {
    this.#endWanted = true;
    return this.#launched.stop(STOP_GRACE_MS);
  }

  async restart(): Promise<void> {
    if (this.running) await this.stop();
    await this.start();
  }

  /** Ends the process with a signal, and starts it in another version at the same address. */
  async switchTo(version: Version, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.kill(signal);
    this.#startable = this.#versions[version];
    await this.start();
  }

  /** Returns a sentence if the process ended after its start although no test wanted that. */
  async unexpectedEnd(): Promise<string | undefined> {
    if (!this.#process || this.running || this.#endWanted || !this.#hasStarted) return undefined;
    return `${this.name} ${describeExit(await this.#process.exited)}:\n${this.output}`;
  }

  get #launched(): ManagedProcess {
    if (!this.#process) throw new Error(`${this.name} has not been started`);
    return this.#process;
  }
}

type ProcessOptions = Pick<StackOptions, 'envOf' | 'onLine' | 'earlierRoot'> & { readonly env: Environment };

/** Real processes, started together with their own ports and key prefix. */
export class StackProcesses {
  readonly addresses: StackAddresses;
  readonly auth: StackProcess;
  readonly gateways: readonly StackProcess[];
  readonly workers: readonly StackProcess[];
  readonly #unhandled: string[] = [];

  private constructor(
    addresses: StackAddresses,
    ports: readonly number[],
    { env: common, envOf, onLine: forwardLine, earlierRoot }: ProcessOptions,
  ) {
    this.addresses = addresses;
    const [authPort = 0, ...others] = ports;
    const count = addresses.gateways.length;
    const build = (make: (options: ServiceOptions) => Startable, name: string, port: number) => {
      const onLine = (line: string) => {
        if (UNHANDLED.test(line)) this.#unhandled.push(`${name}: ${line}`);
        forwardLine?.(line, name);
      };
      const env = { ...common, ...envOf?.(name) };
      const earlier = earlierRoot === undefined ? undefined : make({ name, port, env, onLine, root: earlierRoot });
      return new StackProcess(make({ name, port, env, onLine }), httpUrl(port), earlier);
    };
    this.auth = build(authService, 'auth', authPort);
    this.gateways = others.slice(0, count).map((port, index) => build(gateway, `gateway-${index + 1}`, port));
    this.workers = others.slice(count).map((port, index) => build(worker, `worker-${index + 1}`, port));
  }

  /** Starts everything concurrently. If one process fails to start, all others are stopped. */
  static async start(options: StackOptions): Promise<StackProcesses> {
    const { gateways = 1, workers = 1, env = {}, envOf, redisUrl, onLine, earlierRoot, authProxy } = options;
    const ports = await freePorts(1 + gateways + workers);
    const [ownAuthUrl = '', ...urls] = ports.map(httpUrl);
    const addresses: StackAddresses = {
      gateways: urls.slice(0, gateways).map((url) => ({ url, wsUrl: url.replace('http', 'ws') })),
      workers: urls.slice(gateways).map((url) => ({ url })),
      authUrl: (await authProxy?.(ownAuthUrl)) ?? ownAuthUrl,
      redisUrl,
      keyPrefix: env.REDIS_KEY_PREFIX ?? `t${randomBytes(6).toString('hex')}`,
      secrets: {
        jwt: env.JWT_SECRET_KEY ?? randomBytes(32).toString('base64url'),
        service: env.SERVICE_SECRET ?? randomBytes(32).toString('base64url'),
      },
      demoPassword: env.DEMO_PASSWORD ?? randomBytes(12).toString('base64url'),
    };
    const processOptions = { env: environmentFor(addresses, env), envOf, onLine, earlierRoot };
    const stack = new StackProcesses(addresses, ports, processOptions);
    const started = await Promise.allSettled(stack.all.map((process) => process.start()));
    const failure = started.find((result) => result.status === 'rejected');
    if (!failure) return stack;
    await stack.#stopAll();
    throw failure.reason;
  }

  get all(): StackProcess[] {
    return [this.auth, ...this.gateways, ...this.workers];
  }

  /** Idempotent. @throws Error if a process ended by itself or printed an unhandled error */
  async close(): Promise<void> {
    const ends = await Promise.all(this.all.map((process) => process.unexpectedEnd()));
    await this.#stopAll();
    const faults = [...ends.filter((end) => end !== undefined), ...this.#unhandled.splice(0)];
    if (faults.length > 0) throw new Error(`processes of the test stack failed:\n${faults.join('\n')}`);
  }

  async #stopAll(): Promise<void> {
    await Promise.all(this.all.filter(({ running }) => running).map((process) => process.stop()));
  }
}

/** Removes Tollgate variables of the developer's shell and jest's own variables. */
function environmentFor(addresses: StackAddresses, env: Environment): Environment {
  const foreign = [...VARIABLE_NAMES, 'NODE_ENV', 'NODE_OPTIONS', 'JEST_WORKER_ID'];
  const inherited = Object.entries(process.env).filter(([name]) => !foreign.includes(name));
  return {
    ...Object.fromEntries(inherited),
    ...TEST_ENVIRONMENT,
    // The console, which the gateways serve, calls the auth service.
    CORS_ORIGINS: [PAGE_ORIGIN, ...addresses.gateways.map(({ url }) => url)].join(),
    REDIS_URL: addresses.redisUrl,
    REDIS_KEY_PREFIX: addresses.keyPrefix,
    AUTH_SERVICE_URL: addresses.authUrl,
    JWT_SECRET_KEY: addresses.secrets.jwt,
    SERVICE_SECRET: addresses.secrets.service,
    DEMO_PASSWORD: addresses.demoPassword,
    ...env,
  };
}
