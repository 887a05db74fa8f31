import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HAPROXY_GATEWAYS, haproxy, haproxyVersion } from '../../scripts/lib/haproxy.ts';
import { freePorts } from '../../scripts/lib/ports.ts';
import { httpStatus, type ManagedProcess, nodeProcess, type Startable, start } from '../../scripts/lib/processes.ts';
import { type RedisServer, redisUrl, startRedisServer } from '../../scripts/lib/redis-server.ts';
import { httpUrl } from '../../scripts/lib/tollgate-processes.ts';
import { catalogueFolder } from '../../test/support/catalogues.ts';
import { type StackAddresses, StackProcesses } from '../../test/support/stack-processes.ts';
import { until } from '../../test/support/until.ts';
import { agents, PERMISSIONS_AND_TOOLS, PLANS, toolServers } from './catalogues.ts';
import { CAP, MESSAGE_RATE } from './limits.ts';
import { HttpLink, TcpLink } from './links.ts';

const WORKERS = 2;
const AGENT_SECRET = 'the key that signs requests to the agent of the round';
/** A process cannot start while Redis or the auth service is unavailable. */
const START_MS = 90_000;

const ENVIRONMENT = {
  MAX_CONNECTIONS_PER_USER: String(CAP),
  MESSAGE_RATE_PER_MINUTE: String(MESSAGE_RATE),
  EVENT_LOG_LENGTH: '1000000',
  EVENT_LOG_BYTES: String(2 ** 30),
  TOOL_TIMEOUT_SECONDS: '2',
  // A client that did not receive the acceptance of its run does not answer it; such a run must end within the round.
  INPUT_EXPIRES_SECONDS: '30',
  // Logged-in users need a refresh every few seconds, so that faults of the auth service have an effect.
  ACCESS_TOKEN_SECONDS: '40',
  LOG_LEVEL: 'error',
};

/** A process beside those of the product: Redis, HAProxy, tool server, agent. */
export class Helper {
  readonly #startable: Startable;
  #process: ManagedProcess;

  private constructor(startable: Startable, process: ManagedProcess) {
    this.#startable = startable;
    this.#process = process;
  }

  static async start(startable: Startable): Promise<Helper> {
    return new Helper(startable, await start(startable));
  }

  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#process.exited;
  }

  async restart(): Promise<void> {
    this.#process = await start(this.#startable);
  }

  signal(signal: NodeJS.Signals): void {
    this.#process.kill(signal);
  }
}

/** All processes of a round, and the links between them that can fail. */
export class Deployment {
  readonly stack: StackProcesses;
  readonly redisLink: TcpLink;
  readonly authLink: HttpLink;
  readonly toolServer: Helper;
  readonly agent: Helper;
  readonly modelServer: Helper;
  readonly agUiAgent: Helper;
  readonly balancer: Helper | undefined;
  /** Where clients connect: the load balancer, or the gateways without one. */
  readonly urls: readonly string[];
  readonly redis: RedisHost;
  readonly #folder: string;

  private constructor(processes: Omit<Deployment, 'addresses' | 'executions' | 'failures' | 'close'>, folder: string) {
    this.stack = processes.stack;
    this.redisLink = processes.redisLink;
    this.authLink = processes.authLink;
    this.toolServer = processes.toolServer;
    this.agent = processes.agent;
    this.modelServer = processes.modelServer;
    this.agUiAgent = processes.agUiAgent;
    this.balancer = processes.balancer;
    this.urls = processes.urls;
    this.redis = processes.redis;
    this.#folder = folder;
  }

  /** Starts everything. A failure ends this process, and with it what has started. */
  static async start({ balancer: wanted }: { readonly balancer: boolean }): Promise<Deployment> {
    const folder = await mkdtemp(join(tmpdir(), 'tollgate-torture-'));
    const [toolPort = 0, agentPort = 0, balancerPort = 0, modelPort = 0, agUiPort = 0] = await freePorts(5);
    await writeFile(join(folder, 'executions'), '');
    await writeFile(join(folder, 'tool-servers.json'), JSON.stringify(toolServers(httpUrl(toolPort))));
    const redis = await RedisHost.start(join(folder, 'redis'));
    const redisLink = await TcpLink.start(redis.port);
    const authLink = await HttpLink.start();
    const [toolServer, agent, modelServer, agUiAgent] = await Promise.all([
      Helper.start(toolServerProcess(toolPort, join(folder, 'executions'))),
      Helper.start(agentProcess(agentPort)),
      Helper.start(upstreamProcess('model server', modelPort)),
      Helper.start(upstreamProcess('AG-UI agent', agUiPort)),
    ]);
    const offered = agents({ http: httpUrl(agentPort), agUi: httpUrl(agUiPort) });
    const catalogue = { 'plans.json': PLANS, 'tools.json': PERMISSIONS_AND_TOOLS, 'agents.json': offered };
    const stack = await StackProcesses.start({
      gateways: HAPROXY_GATEWAYS,
      workers: WORKERS,
      redisUrl: redisUrl(redisLink.port),
      authProxy: async (authUrl) => authLink.to(authUrl),
      env: {
        ...ENVIRONMENT,
        AGENT_SECRET,
        AGENT_MODEL_URL: `${httpUrl(modelPort)}/v1`,
        AGENT_MODEL_NAME: 'small',
        CATALOGUE_DIR: catalogueFolder(catalogue, 'file'),
        TOOL_SERVERS: join(folder, 'tool-servers.json'),
      },
    });
    const gatewayUrls = stack.addresses.gateways.map(({ url }) => url);
    const hasBalancer = wanted && haproxyVersion() !== undefined;
    const balancer = hasBalancer ? await Helper.start(haproxy(balancerPort, gatewayUrls)) : undefined;
    const urls = balancer ? [httpUrl(balancerPort)] : gatewayUrls;
    const upstreams = { toolServer, agent, modelServer, agUiAgent };
    return new Deployment({ stack, redisLink, authLink, ...upstreams, balancer, urls, redis }, folder);
  }

  /** Addresses of the processes. That of the auth service is its proxy, which is also the issuer. */
  get addresses(): StackAddresses {
    return this.stack.addresses;
  }

  /** Keys of the executed calls, once per execution. */
  async executions(): Promise<string[]> {
    const text = await readFile(join(this.#folder, 'executions'), 'utf8');
    return text.split('\n').filter((line) => line !== '');
  }

  /** Returns the processes that ended by themselves. */
  async failures(): Promise<string[]> {
    const ends = await Promise.all(this.stack.all.map((process) => process.unexpectedEnd()));
    return ends.filter((end) => end !== undefined);
  }

  /** Stops everything. @throws Error if a process ended by itself or printed an unhandled error */
  async close(): Promise<void> {
    let failure: unknown;
    await this.stack.close().catch((error: unknown) => {
      failure = error;
    });
    const others = [this.balancer, this.toolServer, this.agent, this.modelServer, this.agUiAgent, this.redis];
    await Promise.all(others.map((process) => process?.kill()));
    await Promise.all([this.redisLink.close(), this.authLink.close()]);
    await rm(this.#folder, { recursive: true, force: true });
    if (failure !== undefined) throw failure;
  }
}

/**
 * A single Redis with an append-only file, which the kernel has before each reply: a kill loses no acknowledged write.
 */
export class RedisHost {
  readonly port: number;
  readonly #dir: string;
  #server: RedisServer;

  private constructor(dir: string, server: RedisServer) {
    this.#dir = dir;
    this.#server = server;
    this.port = server.port;
  }

  static async start(dir: string): Promise<RedisHost> {
    return new RedisHost(dir, await startRedisServer({ dir, persistent: true, appendfsync: 'no' }));
  }

  async kill(): Promise<void> {
    this.#server.process.kill('SIGKILL');
    await this.#server.process.exited;
  }

  async restart(): Promise<void> {
    const options = { dir: this.#dir, port: this.port, persistent: true, appendfsync: 'no' } as const;
    this.#server = await startRedisServer(options);
  }

  signal(signal: NodeJS.Signals): void {
    this.#server.process.kill(signal);
  }
}

/** Starts a killed process again, as an orchestrator does: until it is ready. */
export async function startAgain(process: { readonly name: string; start(): Promise<void> }): Promise<void> {
  const started = () => process.start().then(() => true);
  await until(started, { timeoutMs: START_MS, everyMs: 200, label: `${process.name} again` });
}

function toolServerProcess(port: number, executions: string): Startable {
  const env = { ...process.env, PORT: String(port), EXECUTIONS: executions };
  return answering('tool server', 'torture/servers/tool-server.ts', env, `${httpUrl(port)}/mcp`);
}

function agentProcess(port: number): Startable {
  const env = { ...process.env, PORT: String(port), AGENT_SECRET };
  return answering('agent', 'examples/agents/typescript/agent.ts', env, `${httpUrl(port)}/turn`);
}

function upstreamProcess(name: 'model server' | 'AG-UI agent', port: number): Startable {
  const entry = name === 'model server' ? 'torture/servers/model-server.ts' : 'torture/servers/ag-ui-agent.ts';
  return answering(name, entry, { ...process.env, PORT: String(port) }, httpUrl(port));
}

/** A process that is ready once it answers with any status. */
function answering(name: string, entry: string, env: NodeJS.ProcessEnv, url: string): Startable {
  const startable = nodeProcess({ name, entry, env, readyUrl: url });
  return { ...startable, isReady: async () => (await httpStatus(url)) !== undefined };
}
