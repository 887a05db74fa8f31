import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HAPROXY_GATEWAYS, haproxyVersion } from '../../scripts/lib/haproxy.ts';
import { freePorts } from '../../scripts/lib/ports.ts';
import { type Environment, httpStatus, nodeProcess, type Startable } from '../../scripts/lib/processes.ts';
import { redisUrl } from '../../scripts/lib/redis-server.ts';
import { httpUrl } from '../../scripts/lib/tollgate-processes.ts';
import { catalogueFolder } from '../../test/support/catalogues.ts';
import { type StackAddresses, StackProcesses } from '../../test/support/stack-processes.ts';
import { until } from '../../test/support/until.ts';
import { agents, PERMISSIONS_AND_TOOLS, PLANS, toolServers } from './catalogues.ts';
import { faketimeLibrary, ProcessClock } from './clocks.ts';
import { INSPECTOR_OPTIONS, Inspectors } from './event-loop.ts';
import { Balancer, Helper } from './helpers.ts';
import { HttpLink } from './http-link.ts';
import { KeyServer } from './key-server.ts';
import { CAP, MESSAGE_RATE } from './limits.ts';
import { TcpLink } from './links.ts';
import { NameService, REDIS_NAME } from './name-service.ts';
import { type RedisKind, startRedis } from './redis-hosts.ts';

const WORKERS = 2;
const AGENT_SECRET = 'the key that signs requests to the agent of the round';
/** A process cannot start while Redis or the auth service is unavailable, which can last a minute. */
const START_MS = 180_000;

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

export interface DeploymentOptions {
  readonly balancer: boolean;
  readonly redis: RedisKind;
  /** Whether processes run with libfaketime, if it is installed. */
  readonly clocks: boolean;
}

/** The members of a deployment, as plain data. */
interface Members {
  readonly stack: StackProcesses;
  readonly redis: Awaited<ReturnType<typeof startRedis>>;
  /** The connection of each process to a single Redis, by the name of the process; empty for the other kinds. */
  readonly links: ReadonlyMap<string, TcpLink>;
  readonly authLink: HttpLink;
  readonly keyServer: KeyServer;
  readonly toolServer: Helper;
  readonly agent: Helper;
  readonly modelServer: Helper;
  readonly agUiAgent: Helper;
  readonly balancer: Balancer | undefined;
  /** Where clients connect: the load balancer, or the gateways without one. */
  readonly urls: readonly string[];
  readonly inspectors: Inspectors;
  /** Clocks that can be set, by process name; empty without libfaketime. */
  readonly clocks: ReadonlyMap<string, ProcessClock>;
  readonly names: NameService;
}

/** All processes of a round, and the links between them that can fail. */
export class Deployment {
  readonly members: Members;
  readonly #folder: string;

  private constructor(members: Members, folder: string) {
    this.members = members;
    this.#folder = folder;
  }

  /** Starts everything. After a failure the caller ends this process, and with it what has started. */
  static async start(options: DeploymentOptions): Promise<Deployment> {
    const folder = await mkdtemp(join(tmpdir(), 'tollgate-torture-'));
    const [toolPort = 0, agentPort = 0, balancerPort = 0, modelPort = 0, agUiPort = 0] = await freePorts(5);
    await writeFile(join(folder, 'executions'), '');
    await writeFile(join(folder, 'tool-servers.json'), JSON.stringify(toolServers(httpUrl(toolPort))));
    const redis = await startRedis(options.redis, join(folder, 'redis'));
    const links = redis.kind === 'single' ? await linksTo(redis.server.port) : new Map<string, TcpLink>();
    const [authLink, keyServer] = await Promise.all([HttpLink.start(), KeyServer.start()]);
    const [toolServer, agent, modelServer, agUiAgent] = await Promise.all([
      Helper.start(toolServerProcess(toolPort, join(folder, 'executions'))),
      Helper.start(agentProcess(agentPort)),
      Helper.start(upstreamProcess('model server', modelPort)),
      Helper.start(upstreamProcess('AG-UI agent', agUiPort)),
    ]);
    const inspectors = new Inspectors();
    const names = new NameService(folder);
    const clocks = options.clocks ? clocksIn(folder) : new Map<string, ProcessClock>();
    const offered = agents({ http: httpUrl(agentPort), agUi: httpUrl(agUiPort) });
    const catalogue = { 'plans.json': PLANS, 'tools.json': PERMISSIONS_AND_TOOLS, 'agents.json': offered };
    const stack = await StackProcesses.start({
      gateways: HAPROXY_GATEWAYS,
      workers: WORKERS,
      redisUrl: redis.url,
      authProxy: async (authUrl) => authLink.to(authUrl),
      env: {
        ...ENVIRONMENT,
        AGENT_SECRET,
        JWKS_URL: keyServer.url,
        AGENT_MODEL_URL: `${httpUrl(modelPort)}/v1`,
        AGENT_MODEL_NAME: 'small',
        CATALOGUE_DIR: catalogueFolder(catalogue, 'file'),
        TOOL_SERVERS: join(folder, 'tool-servers.json'),
      },
      envOf: (name) => environmentOf(name, { links, names, clocks }),
      onLine: (line, name) => inspectors.read(name, line),
    });
    const gatewayUrls = stack.addresses.gateways.map(({ url }) => url);
    const hasBalancer = options.balancer && haproxyVersion() !== undefined;
    const balancer = hasBalancer ? await Balancer.on(balancerPort, gatewayUrls) : undefined;
    const urls = balancer ? [httpUrl(balancerPort)] : gatewayUrls;
    const processes = { stack, redis, toolServer, agent, modelServer, agUiAgent, balancer };
    return new Deployment({ ...processes, links, authLink, keyServer, urls, inspectors, clocks, names }, folder);
  }

  get stack(): StackProcesses {
    return this.members.stack;
  }

  get urls(): readonly string[] {
    return this.members.urls;
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
    const { balancer, toolServer, agent, modelServer, agUiAgent, redis, links, authLink, keyServer } = this.members;
    await this.stack.close().catch((error: unknown) => {
      failure = error;
    });
    const others = [balancer, toolServer, agent, modelServer, agUiAgent];
    await Promise.all([...others.map((process) => process?.kill()), redis.close()]);
    await Promise.all([...links.values(), authLink, keyServer].map((link) => link.close()));
    await rm(this.#folder, { recursive: true, force: true });
    if (failure !== undefined) throw failure;
  }
}

/** Variables of one process, through which its faults reach it. */
function environmentOf(
  name: string,
  { links, names, clocks }: Pick<Members, 'links' | 'names' | 'clocks'>,
): Environment {
  const port = links.get(name)?.port;
  // A host name, so that each new connection to Redis needs the name service.
  const url = port === undefined ? {} : { REDIS_URL: redisUrl(port).replace(/\/\/[^:]+/, `//${REDIS_NAME}`) };
  const nodeOptions = [INSPECTOR_OPTIONS, names.nodeOptions].join(' ');
  return { ...url, NODE_OPTIONS: nodeOptions, ...names.environmentOf(name), ...clocks.get(name)?.environment };
}

/** Names of the processes, as `StackProcesses` gives them. */
const PROCESS_NAMES: readonly string[] = [
  'auth',
  ...Array.from({ length: HAPROXY_GATEWAYS }, (_, at) => `gateway-${at + 1}`),
  ...Array.from({ length: WORKERS }, (_, at) => `worker-${at + 1}`),
];

async function linksTo(port: number): Promise<ReadonlyMap<string, TcpLink>> {
  const links = PROCESS_NAMES.map(async (name) => [name, await TcpLink.start(port)] as const);
  return new Map(await Promise.all(links));
}

function clocksIn(folder: string): ReadonlyMap<string, ProcessClock> {
  const library = faketimeLibrary();
  if (library === undefined) return new Map();
  return new Map(PROCESS_NAMES.map((name) => [name, new ProcessClock(folder, name, library)]));
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
