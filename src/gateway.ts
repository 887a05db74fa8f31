import type { AddressInfo } from 'node:net';
import { Queue } from 'bullmq';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { loadAgentCatalogue } from './agents/agent-catalogue.ts';
import { assembleEventLog } from './agents/assemble-log.ts';
import { assembleTools } from './agents/assemble-tools.ts';
import { Runs } from './agents/runs.ts';
import { ASKED_MS } from './agents/tool-calls.ts';
import { BUILT_IN_TOOLS } from './agents/tools/executors.ts';
import { depthOf } from './agents/tools/health-tools.ts';
import { AUTH_SERVICE_TIMEOUT_MS, AuthService, authServiceOptions } from './auth/auth-service.ts';
import { Authenticator } from './auth/authenticator.ts';
import { Introspection } from './auth/introspection.ts';
import { Tickets } from './auth/tickets.ts';
import { TokenSeal } from './auth/token-seal.ts';
import { TokenSessions, tokenLifeTimes } from './auth/token-sessions.ts';
import { Tokens } from './auth/tokens.ts';
import type { Config } from './config.ts';
import { Enforcement, type EnforcementDeps } from './connections/enforcement.ts';
import { createHandlers, type Speaker, type ToolsPort } from './connections/handlers.ts';
import { Hub } from './connections/hub.ts';
import { connectionLimits } from './connections/limits.ts';
import { LiveSessions } from './connections/live-sessions.ts';
import { Nodes } from './connections/nodes.ts';
import { Registry } from './connections/registry.ts';
import { countTokenEvents, type TokenEvent } from './connections/token-life.ts';
import { Welcome } from './connections/welcome.ts';
import { LiveTail } from './events/live-tail.ts';
import { UserChannel } from './events/user-channel.ts';
import { adminRoutes } from './http/admin-api.ts';
import { createApp, type InputWatch } from './http/app.ts';
import { configRoutes } from './http/config-api.ts';
import { consoleRoutes } from './http/console.ts';
import { MCP_PATH, type McpRoutesDeps, mcpRoutes } from './http/mcp-api.ts';
import { ProtectedResource, protectedResourceRoutes } from './http/mcp-metadata.ts';
import { describeRoutes } from './http/openapi.ts';
import { healthRoutes, serveMetrics } from './http/operations.ts';
import { Readiness } from './http/readiness.ts';
import { traceRequests } from './http/request-traces.ts';
import type { IdentifyService } from './http/services.ts';
import { TICKETS_PATH, ticketRoutes } from './http/tickets-api.ts';
import { addUsageRoutes } from './http/usage-routes.ts';
import { userDataRoutes } from './http/user-data-api.ts';
import { wsConfigRoutes } from './http/ws-config.ts';
import { AGENT_RUN_ATTEMPTS, type AgentRunJob, QUEUES } from './jobs.ts';
import { type Clock, systemClock } from './lib/clock.ts';
import { Closers } from './lib/closers.ts';
import { newId } from './lib/ids.ts';
import { Listeners } from './lib/listeners.ts';
import type { Logger } from './lib/logger.ts';
import { McpConversation } from './mcp/conversation.ts';
import { InFlight } from './mcp/in-flight.ts';
import { McpOffers } from './mcp/mcp-offers.ts';
import { McpServer } from './mcp/mcp-server.ts';
import type { McpTools } from './mcp/mcp-tools.ts';
import { RequestStates } from './mcp/request-states.ts';
import { Accounts } from './policy/accounts.ts';
import { AnnouncementReader } from './policy/announcement-reader.ts';
import { announceCatalogues } from './policy/announcements.ts';
import { AuthFailures } from './policy/auth-failures.ts';
import { logReloads } from './policy/catalogues.ts';
import { KnownRevocations } from './policy/known-revocations.ts';
import { LongTasks } from './policy/long-tasks.ts';
import { MessageRate } from './policy/message-rate.ts';
import { PendingConnections } from './policy/pending-connections.ts';
import { Revocations } from './policy/revocations.ts';
import { TollgateError } from './protocol/errors.ts';
import type { Identity } from './protocol/identity.ts';
import { connectRedis, disconnectRedis, type Redis } from './redis/client.ts';
import { Keys } from './redis/keys.ts';
import { watchRedis } from './redis/latency.ts';
import { startTelemetry, type Telemetry } from './telemetry.ts';
import { Door } from './transports/door.ts';
import { matchEndpoint, PUBLIC_PATHS } from './transports/endpoints.ts';
import { isHandshake } from './transports/engine-requests.ts';
import { originAllowed, presented, requestTarget } from './transports/handshake.ts';
import { RawWebSockets } from './transports/raw-websocket.ts';
import { SOCKET_IO_PATH, SocketIo } from './transports/socket-io.ts';
import { listenForUpgrades } from './transports/upgrades.ts';
import { assembleCatalogues } from './upstreams/assemble-upstreams.ts';

/** What clients that poll are given to fetch why the node goes. */
const LAST_WORDS_MS = 2_000;

export interface RunningGateway {
  readonly port: number;
  /** Of the metrics server, when it is a separate one. */
  readonly metricsPort: number | undefined;
  /** Reads plans and tools again on this node. */
  reload(): void;
  /** Sends the clients elsewhere over `DRAIN_SECONDS`, then stops. */
  close(): Promise<void>;
}

/** The composition root of a gateway node: every object of it, in the order in which they need each other. */
export async function startGateway(
  config: Config,
  options: { readonly logger?: Logger; readonly clock?: Clock } = {},
): Promise<RunningGateway> {
  const closers = new Closers();
  const nodeId = newId('node');
  const telemetry = await startTelemetry(config, { role: 'gateway', instance: nodeId, logger: options.logger });
  closers.add('tracing', () => telemetry.tracing.close());
  const clock = options.clock ?? systemClock;
  try {
    const foundation = await createFoundation(config, { ...telemetry, nodeId, clock, closers });
    const connections = await createConnections(config, foundation);
    return await startServers(config, foundation, connections);
  } catch (error) {
    await closers.close().catch((cause) => telemetry.logger.warn({ err: cause }, 'closing after a failed start'));
    throw error;
  }
}

type Foundation = Awaited<ReturnType<typeof createFoundation>>;
type Connections = Awaited<ReturnType<typeof createConnections>>;

/** Redis, and what every part above stands on. */
async function createFoundation(config: Config, base: Telemetry & { nodeId: string; clock: Clock; closers: Closers }) {
  const { logger, closers } = base;
  // First: what is wrong with them shows also where Redis is not there yet.
  const { catalogues, upstreams } = assembleCatalogues(base, config, BUILT_IN_TOOLS);
  const open = async (name: string, role: 'commands' | 'subscriber'): Promise<Redis> => {
    const connection = await connectRedis(config, role, logger);
    closers.add(name, () => disconnectRedis(connection));
    return connection;
  };
  const redis = await open('redis', 'commands');
  closers.add('redis watch', watchRedis(redis, base));
  return {
    ...base,
    keys: new Keys(config.REDIS_KEY_PREFIX),
    redis,
    subscriber: await open('subscriber', 'subscriber'),
    adapterSubscriber: await open('adapter subscriber', 'subscriber'),
    catalogues,
    upstreams,
    agents: loadAgentCatalogue(config.CATALOGUE_DIR),
  };
}

/** Who may come in, what a connection may do, and what its messages do. */
async function createConnections(config: Config, foundation: Foundation) {
  const { logger, tracing, clock, closers, nodeId, metrics, keys, redis, subscriber, catalogues, agents } = foundation;
  const { plans } = catalogues;
  logReloads(catalogues, foundation);
  const secrets = [config.JWT_SECRET_KEY, config.JWT_SECRET_KEY_PREVIOUS].filter((secret) => secret !== undefined);
  const tokens = new Tokens(
    { clock },
    {
      issuer: config.JWT_ISSUER,
      audience: config.JWT_AUDIENCE,
      secrets,
      jwksUrl: config.JWKS_URL,
      acceptedTypes: config.JWT_ACCEPTED_TYPES,
    },
  );
  const tickets = new Tickets({ redis, keys, clock });
  const authService = new AuthService(
    { clock, metrics, logger, tracing },
    {
      ...authServiceOptions(config),
      // A JWT comes in without an answer: there must be time left for it after waiting for one in vain.
      timeoutMs: Math.min(AUTH_SERVICE_TIMEOUT_MS, config.AUTH_DEADLINE_SECONDS * 500),
    },
  );
  closers.add('auth service', () => authService.close());
  const introspection = new Introspection(
    { authService, clock, metrics },
    { mode: config.TOKEN_INTROSPECTION, issuer: config.JWT_ISSUER, audience: config.JWT_AUDIENCE },
  );
  const seal = new TokenSeal(config.SERVICE_SECRET);
  const known = new KnownRevocations({ clock, logger });
  const authenticator = new Authenticator(
    { tokens, tickets, introspection, revoked: known, seal, clock, tracing },
    { developmentBypass: config.DEV_AUTH_BYPASS },
  );
  const tokenSessions = new TokenSessions({ redis, keys, clock, seal }, tokenLifeTimes(config));
  const tokenEvents = new Listeners<TokenEvent>((error) => logger.error({ err: error }, 'a listener failed'));
  countTokenEvents(tokenEvents, metrics);

  const nodes = new Nodes({ redis, keys, clock, logger }, nodeId);
  const rate = { perMinute: config.MESSAGE_RATE_PER_MINUTE };
  const messageRate = new MessageRate({ redis, keys, plans, nodes, clock, logger }, rate);
  closers.add('message rate', () => messageRate.close());
  const limits = connectionLimits(config);

  const eventLog = await assembleEventLog(foundation, config);
  const liveTail = new LiveTail({ redis: subscriber, keys, clock, logger });
  await liveTail.attend(keys.nodeChannels(nodeId));
  const leaseMs = config.CONNECTION_LEASE_SECONDS * 1000;
  const caps = { leaseMs, maxConnectionsPerUser: config.MAX_CONNECTIONS_PER_USER };
  const registry = new Registry({ redis, keys, plans }, caps);
  const hub = new Hub({ registry, clock, metrics, logger }, { leaseMs });
  closers.add('hub', () => hub.stop());
  closers.add('nodes', () => nodes.stop());
  await nodes.start(() => hub.size);

  const { liveSessions, ...decisions } = await followDecisions(foundation, { known, introspection, registry });

  const runQueue = new Queue<AgentRunJob>(QUEUES.agentRuns, { connection: redis, prefix: keys.queues });
  closers.add('run queue', () => runQueue.close());
  await runQueue.waitUntilReady();
  const parts = { ...foundation, log: eventLog, queueDepth: () => depthOf(runQueue) };
  const { threads, permissions, quotas, service } = assembleTools(parts, config);
  closers.add('tool calls', () => service.close());
  const welcome = new Welcome({ plans, permissions, messageRate }, limits);
  const runs = new Runs(
    { redis, keys, agents, plans, clock, tracing },
    { timeoutMs: config.RUN_TIMEOUT_SECONDS * 1000 },
  );
  const tools: ToolsPort & McpTools = {
    describe: (identity) => permissions.describeTools(identity),
    call: (request, allowed) => {
      return service.call(request, { allowed, messages: messageRate.limitOf(request.caller.plan) });
    },
    usage: (identity) => quotas.summary(identity.userId, identity),
    isUpstream: (tool) => catalogues.tools.get(tool)?.upstream !== undefined,
  };
  const trustsTraces = config.TRUST_CLIENT_TRACES;
  const states = new RequestStates({ clock }, { secret: config.SERVICE_SECRET, keptMs: ASKED_MS });
  const offers = new McpOffers({ upstreams: foundation.upstreams, states, permissions });
  const server = new McpServer({ tools, offers, states, logger, tracing });
  const mcp = { server, inFlight: new InFlight(), tracing, trustsTraces };
  closers.add('mcp', () => mcp.server.close());
  const handlers = createHandlers({
    threads,
    tools,
    runs: {
      // The run's id is the job's: a request that is repeated while its job is known adds no second one.
      start: (run, allowed) => {
        const messages = messageRate.limitOf(run.identity.plan);
        const enqueue = (job: AgentRunJob) => runQueue.add('run', job, { jobId: job.run_id, ...AGENT_RUN_ATTEMPTS });
        return runs.start(run, { allowed, messages }, enqueue);
      },
      cancel: (identity, runId, allowed) => {
        return runs.cancel(identity.userId, runId, { allowed, messages: messageRate.limitOf(identity.plan) });
      },
    },
  });
  const sessions = { registry, liveSessions, liveTail, eventLog, plans, tokenSessions, tokenEvents };
  const converse = (speaker: Speaker, tell: (frame: string) => void) => new McpConversation(mcp, speaker, tell);
  const context = { ...sessions, messageRate, handlers, converse, welcome, hub };
  return {
    ...context,
    ...decisions,
    mcp,
    nodes,
    authenticator,
    tickets,
    clock,
    logger,
    metrics,
    tracing,
    nodeId,
    limits,
  };
}

/** What operators and the auth service decide, carried out on this node's sessions from here on. */
async function followDecisions(
  foundation: Foundation,
  parts: Pick<EnforcementDeps, 'known' | 'introspection' | 'registry'>,
) {
  const { redis, subscriber, keys, catalogues, clock, logger, metrics, tracing, closers } = foundation;
  const liveSessions = new LiveSessions({ revoked: parts.known });
  const [accounts, revocations] = [new Accounts(foundation), new Revocations(foundation)];
  const listener = new Enforcement({
    ...parts,
    liveSessions,
    revocations,
    accounts,
    catalogues,
    clock,
    metrics,
    tracing,
  });
  closers.add('enforcement', () => listener.stop());
  const announcements = new AnnouncementReader({ redis, subscriber, keys, clock, logger, listener });
  closers.add('announcements', () => announcements.stop());
  await announcements.start();
  return { liveSessions, accounts, revocations, announcements };
}

/** The transports over the connections, and the HTTP server that both come in through. */
async function startServers(config: Config, foundation: Foundation, connections: Connections): Promise<RunningGateway> {
  const { logger, clock, closers, metrics, keys, redis, subscriber, adapterSubscriber, nodeId, catalogues } =
    foundation;
  const { authenticator, tickets, hub } = connections;
  const allowedOrigins = config.CORS_ORIGINS;
  const drainMs = config.DRAIN_SECONDS * 1000;
  const readiness = new Readiness({ redis, subscriber, clock }, { authServiceUrl: config.AUTH_SERVICE_URL });
  const authFailures = new AuthFailures(
    { clock },
    { perMinute: config.AUTH_FAILURES_PER_MINUTE, blockingMsPerMinute: config.BLOCKING_MS_PER_MINUTE },
  );
  const longTasks = new LongTasks({ failures: authFailures, metrics });
  const pending = new PendingConnections({ perAddress: config.PENDING_CONNECTIONS_PER_ADDRESS });
  const door = new Door({ authFailures, pending, metrics }, { trustedProxyHops: config.TRUSTED_PROXY_HOPS });
  const raw = new RawWebSockets({ ...connections, door, longTasks });
  const adapter = { publisher: redis, subscriber: adapterSubscriber, channelPrefix: keys.socketIo };
  const socketIo = new SocketIo({ ...connections, door, longTasks, adapter }, { allowedOrigins });
  closers.add('socket.io', () => socketIo.close());

  const watch = watchInput({ door, longTasks });
  const app = createApp({
    logger,
    watch,
    trustedProxyHops: config.TRUSTED_PROXY_HOPS,
    isUpgradePath: (path) => matchEndpoint(path) !== undefined,
    intercept: (request, response) => {
      // A proxy that kept the connection could send its next request into the end of this node.
      if (readiness.draining) response.setHeader('connection', 'close');
      const ours = requestTarget(request).split('?')[0] === SOCKET_IO_PATH;
      // A new session while draining is refused below, in the form of all HTTP errors.
      if (!ours || (readiness.draining && isHandshake(request))) return false;
      socketIo.handleRequest(request, response);
      return true;
    },
  });
  traceRequests(app, connections);
  await describeRoutes(app);
  app.get(SOCKET_IO_PATH, { schema: { hide: true } }, () => {
    throw new TollgateError('SERVER_DRAINING', { retryAfterMs: drainMs });
  });
  wsConfigRoutes(app, { config, readiness, clock, publicPaths: PUBLIC_PATHS });
  healthRoutes(app, { readiness });
  ticketRoutes(app, {
    identify: bearerOf({ authenticator, door }, TICKETS_PATH),
    tickets,
    allowedOrigins,
    originAllowed,
  });
  const identifyService = serviceOf({ authenticator, door });
  configRoutes(app, { identifyService, catalogues, logger, onReload: () => announceCatalogues(foundation) });
  adminRoutes(app, { ...connections, identifyService, userChannel: new UserChannel({ redis, keys }) });
  userDataRoutes(app, { ...foundation, ...connections, identifyService }, config);
  addUsageRoutes(app, { ...foundation, ...connections, identifyService }, config);
  consoleRoutes(app, { authServiceUrl: config.AUTH_PUBLIC_URL, environment: config.ENVIRONMENT });
  const drainingForMs = () => (readiness.draining ? drainMs : undefined);
  const origins = { allowedOrigins, originAllowed };
  addMcpRoutes(app, config, { ...connections, ...origins, door, watch, drainingForMs });
  listenForUpgrades(app.server, { raw, socketIo, door, longTasks, allowedOrigins, drainingForMs });

  const metricsPort = await serveMetrics(app, config, foundation);
  await app.listen({ host: config.HOST, port: config.PORT });
  closers.add('http server', () => app.close());
  closers.add('last words', () => socketIo.ended(LAST_WORDS_MS));
  closers.add('clients', async () => {
    await Promise.all([hub.drain(drainMs), connections.mcp.inFlight.drained(clock, drainMs)]);
  });
  closers.add('readiness', () => readiness.drain());
  const { port } = app.server.address() as AddressInfo;
  logger.info({ port, node: nodeId }, 'listening');
  return { port, metricsPort, reload: () => foundation.catalogues.reload(), close: () => closers.close() };
}

/** The bearer of an HTTP request, looked at like one of a handshake: too many that fail close the door for a while. */
function bearerOf({ authenticator, door }: { authenticator: Authenticator; door: Door }, path: string) {
  return async ({ raw }: FastifyRequest): Promise<Identity> => {
    const { authorization } = presented(raw).headers;
    // No attempt: an OAuth client begins without a token, to be told where to get one.
    if (authorization === undefined) throw new TollgateError('NO_TOKEN');
    const visit = door.enter(raw, path);
    return visit.identify(() => authenticator.bearer(authorization)).finally(visit.leave);
  };
}

/** The service of an HTTP request, counted like a handshake: too many bad tokens close the address for a while. */
function serviceOf({ authenticator, door }: { authenticator: Authenticator; door: Door }): IdentifyService {
  return async ({ raw }, scope) => {
    const { headers } = presented(raw);
    if (headers.authorization === undefined) throw new TollgateError('NO_TOKEN');
    return door.attempt(raw).identify(() => authenticator.service(headers, scope));
  };
}

/** Counts bad requests and long tasks for the addresses that they come from. */
function watchInput({ door, longTasks }: { door: Door; longTasks: LongTasks }): InputWatch {
  return {
    unreadable: (socket) => door.unreadable(socket),
    run: (surface, request, work) => longTasks.run({ surface, address: () => door.addressOf(request) }, work),
  };
}

/** MCP over HTTP. */
function addMcpRoutes(
  app: FastifyInstance,
  config: Config,
  deps: Pick<Connections, 'accounts' | 'authenticator' | 'mcp' | 'plans'> & { door: Door } & Omit<
      McpRoutesDeps,
      'identify' | 'inFlight' | 'resource' | 'server' | 'trustsTraces'
    >,
): void {
  const { accounts, plans, mcp, allowedOrigins } = deps;
  const { PUBLIC_URL: publicUrl, JWT_ISSUER: issuer } = config;
  const resource = new ProtectedResource({ publicUrl, issuer, path: MCP_PATH });
  const bearer = bearerOf(deps, MCP_PATH);
  // The account afterwards: a Redis that is slow must not make a proxy's many clients look like strangers that wait.
  const identify = async (request: FastifyRequest) => accounts.admit(await bearer(request), plans);
  mcpRoutes(app, { ...deps, ...mcp, resource, identify });
  protectedResourceRoutes(app, { resource, allowedOrigins, path: MCP_PATH });
}
