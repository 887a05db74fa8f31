import type { AddressInfo } from 'node:net';
import { Queue } from 'bullmq';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { Accounts } from '../accounts/accounts.ts';
import { InvalidationReader } from '../accounts/invalidation-reader.ts';
import { invalidateCatalogues } from '../accounts/invalidations.ts';
import { RevocationCache } from '../accounts/revocation-cache.ts';
import { Revocations } from '../accounts/revocations.ts';
import { Authenticator } from '../auth/authenticator.ts';
import { AUTH_SERVICE_TIMEOUT_MS, AuthServiceClient, authServiceOptions } from '../auth/client/auth-service-client.ts';
import { TokenIntrospection } from '../auth/introspection.ts';
import { Tickets } from '../auth/tickets.ts';
import { TokenSeal } from '../auth/token-refresh/token-seal.ts';
import { TokenSessions, tokenLifecycleTimes } from '../auth/token-refresh/token-sessions.ts';
import { TokenVerifier } from '../auth/tokens.ts';
import { loadAgentCatalogue } from '../catalogue/agent-catalogue.ts';
import { logReloads } from '../catalogue/catalogues.ts';
import { ConnectionRegistry } from '../cluster/connection-registry.ts';
import { NodeRegistry } from '../cluster/node-registry.ts';
import type { Config } from '../config.ts';
import { type ConnectionContext, createHandlers } from '../connections/handlers.ts';
import { Hub } from '../connections/hub.ts';
import { InvalidationHandler, type InvalidationHandlerDeps } from '../connections/invalidation-handler.ts';
import { connectionLimits } from '../connections/limits.ts';
import { LiveAttachments } from '../connections/live-attachments.ts';
import { countTokenEvents, type TokenEvent } from '../connections/token-lifecycle.ts';
import { Welcome } from '../connections/welcome.ts';
import { LiveTail } from '../events/live-tail.ts';
import { registerAdminRoutes } from '../http/admin-routes.ts';
import { createApp, type InputWatch } from '../http/app.ts';
import { registerConfigRoutes } from '../http/config-routes.ts';
import { registerConsoleRoutes } from '../http/console-routes.ts';
import { ProtectedResource, registerProtectedResourceRoutes } from '../http/mcp-metadata-routes.ts';
import { MCP_PATH, type McpRoutesDeps, registerMcpRoutes } from '../http/mcp-routes.ts';
import { describeRoutes } from '../http/openapi.ts';
import { registerHealthRoutes, serveMetrics } from '../http/operations-routes.ts';
import { Readiness } from '../http/readiness.ts';
import { traceRequests } from '../http/request-traces.ts';
import type { IdentifyService } from '../http/services.ts';
import { registerSessionEventRoutes } from '../http/session-event-routes.ts';
import { registerTicketRoutes, TICKETS_PATH } from '../http/ticket-routes.ts';
import { registerToolServerRoutes } from '../http/tool-server-routes.ts';
import { registerUserDataRoutes } from '../http/user-data-routes.ts';
import { registerWsConfigRoutes } from '../http/ws-config-routes.ts';
import { AGENT_RUN_ATTEMPTS, type AgentRunJob, QUEUES } from '../jobs.ts';
import { type Clock, systemClock } from '../lib/clock.ts';
import { Closers } from '../lib/closers.ts';
import { newId } from '../lib/ids.ts';
import { Listeners } from '../lib/listeners.ts';
import type { Logger } from '../lib/logger.ts';
import { AuthFailureLimiter } from '../limits/auth-failure-limiter.ts';
import { LongTasks } from '../limits/long-tasks.ts';
import { MessageLimiter } from '../limits/message-limiter.ts';
import { PendingConnections } from '../limits/pending-connections.ts';
import { InFlight } from '../mcp/in-flight.ts';
import { McpDispatcher } from '../mcp/mcp-dispatcher.ts';
import { McpResources } from '../mcp/mcp-resources.ts';
import { McpServer } from '../mcp/mcp-server.ts';
import { RequestStates } from '../mcp/request-states.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import { connectRedis, disconnectRedis, type Redis } from '../redis/client.ts';
import { Keys } from '../redis/keys.ts';
import { watchRedis } from '../redis/latency.ts';
import { Runs } from '../runs/runs.ts';
import { startTelemetry, type Telemetry } from '../telemetry/telemetry.ts';
import { depthOf } from '../tools/built-in/health-tools.ts';
import { INPUT_TTL_MS } from '../tools/call-store.ts';
import { BUILT_IN_TOOLS } from '../tools/executors.ts';
import type { ToolsPort } from '../tools/tool-call.ts';
import { ConnectionGuard } from '../transports/connection-guard.ts';
import { matchEndpoint, PUBLIC_PATHS } from '../transports/endpoints.ts';
import { isHandshake } from '../transports/engine-requests.ts';
import { presentedCredentials, requestTarget } from '../transports/handshake-request.ts';
import { Origins } from '../transports/origins.ts';
import { RawWebSockets } from '../transports/raw-websocket.ts';
import { SOCKET_IO_PATH, SocketIo } from '../transports/socket-io.ts';
import { listenForUpgrades } from '../transports/upgrades.ts';
import { composeCatalogues } from './catalogues.ts';
import { composeEventLog } from './event-log.ts';
import { composeProviders } from './identity-providers.ts';
import { toolServerReport } from './tool-servers.ts';
import { composeTools } from './tools.ts';
import { openArchive, registerUsage } from './usage-routes.ts';

/** Time for polling clients to fetch the last packets of a draining node. */
const FINAL_POLL_MS = 2_000;

export interface RunningGateway {
  readonly port: number;
  /** Port of the metrics server if it is a separate one. */
  readonly metricsPort: number | undefined;
  /** Reloads plans and tools on this node. */
  reload(): void;
  /** Drains the node within `DRAIN_SECONDS`, then stops it. */
  close(): Promise<void>;
}

/** Composition root of a gateway node: creates its objects in the order of their dependencies. */
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
    const services = await createServices(config, { ...telemetry, nodeId, clock, closers });
    const connections = await createConnections(config, services);
    return await startServers(config, services, connections);
  } catch (error) {
    await closers.close().catch((cause) => telemetry.logger.warn({ err: cause }, 'close after a failed start failed'));
    throw error;
  }
}

type GatewayServices = Awaited<ReturnType<typeof createServices>>;
type Connections = Awaited<ReturnType<typeof createConnections>>;

/** Creates what all other components use: Redis connections, keys and catalogues. */
async function createServices(
  config: Config,
  telemetry: Telemetry & { nodeId: string; clock: Clock; closers: Closers },
) {
  const { logger, closers } = telemetry;
  // First, so that errors in the catalogues are reported even if Redis is unavailable.
  const { catalogues, upstreams } = composeCatalogues(telemetry, config, BUILT_IN_TOOLS);
  const open = async (name: string, role: 'commands' | 'subscriber'): Promise<Redis> => {
    const connection = await connectRedis(config, role, logger);
    closers.add(name, () => disconnectRedis(connection));
    return connection;
  };
  const redis = await open('redis', 'commands');
  closers.add('redis watch', watchRedis(redis, telemetry));
  return {
    ...telemetry,
    keys: new Keys(config.REDIS_KEY_PREFIX),
    redis,
    subscriber: await open('subscriber', 'subscriber'),
    adapterSubscriber: await open('adapter subscriber', 'subscriber'),
    catalogues,
    upstreams,
    agents: loadAgentCatalogue(config.CATALOGUE_DIR),
  };
}

/** Creates authentication, limits, event log and message handlers of connections. */
async function createConnections(config: Config, services: GatewayServices) {
  const { logger, tracing, clock, closers, nodeId, metrics, keys, redis, subscriber, catalogues, agents } = services;
  const { plans } = catalogues;
  logReloads(catalogues, services);
  const { own, providers } = composeProviders(config);
  const tokens = new TokenVerifier({ clock, logger, metrics }, providers);
  closers.add('identity keys', tokens.start());
  const tickets = new Tickets({ redis, keys, clock });
  const authService = new AuthServiceClient(
    { clock, metrics, logger, tracing },
    {
      ...authServiceOptions(config),
      // A JWT is accepted if introspection times out; half of the authentication deadline remains for that.
      timeoutMs: Math.min(AUTH_SERVICE_TIMEOUT_MS, config.AUTH_DEADLINE_SECONDS * 500),
    },
  );
  closers.add('auth service', () => authService.close());
  const introspection = new TokenIntrospection(
    { authService, clock, metrics },
    { mode: config.TOKEN_INTROSPECTION, provider: own },
  );
  const seal = new TokenSeal(config.SERVICE_SECRET);
  const revocationCache = new RevocationCache({ clock, logger });
  const authenticator = new Authenticator(
    { tokens, tickets, introspection, revoked: revocationCache, seal, clock, tracing, logger },
    { developmentBypass: config.DEV_AUTH_BYPASS },
  );
  const tokenSessions = new TokenSessions({ redis, keys, clock, seal }, tokenLifecycleTimes(config));
  const tokenEvents = new Listeners<TokenEvent>((error) => logger.error({ err: error }, 'token event listener failed'));
  countTokenEvents(tokenEvents, metrics);

  const nodes = new NodeRegistry({ redis, keys, clock, logger }, nodeId);
  const rate = { perMinute: config.MESSAGE_RATE_PER_MINUTE };
  const messageLimiter = new MessageLimiter({ redis, keys, plans, nodes, clock, logger }, rate);
  closers.add('message limiter', () => messageLimiter.close());
  const limits = connectionLimits(config);

  const { eventLog, log, acknowledgedRecords } = await composeEventLog(services, config);
  const liveTail = new LiveTail({ redis: subscriber, keys, clock, logger });
  await liveTail.attend(keys.nodeChannels(nodeId));
  const leaseMs = config.CONNECTION_LEASE_SECONDS * 1000;
  const caps = { leaseMs, maxConnectionsPerUser: config.MAX_CONNECTIONS_PER_USER };
  const registry = new ConnectionRegistry({ redis, keys, plans }, caps);
  const hub = new Hub({ registry, clock, metrics, logger }, { leaseMs });
  closers.add('hub', () => hub.stop());
  closers.add('nodes', () => nodes.stop());
  await nodes.start(() => hub.size);

  const { liveAttachments, ...invalidation } = await followInvalidations(services, {
    revocationCache,
    introspection,
    registry,
  });

  const runQueue = new Queue<AgentRunJob>(QUEUES.agentRuns, { connection: redis, prefix: keys.queues });
  closers.add('run queue', () => runQueue.close());
  await runQueue.waitUntilReady();
  const deps = { ...services, log, queueDepth: () => depthOf(runQueue) };
  const { threads, permissions, quotas, service } = composeTools(deps, config);
  closers.add('tool calls', () => service.close());
  const welcome = new Welcome({ plans, permissions, messageLimiter }, limits);
  const runs = new Runs(
    { redis, keys, agents, plans, clock, tracing },
    { timeoutMs: config.RUN_TIMEOUT_SECONDS * 1000 },
  );
  const tools: ToolsPort = {
    describe: (identity) => permissions.describeTools(identity),
    call: (request, allowed) => {
      return service.call(request, { allowed, messages: messageLimiter.limitOf(request.caller.plan) });
    },
    usage: (identity) => quotas.summary(identity.userId, identity),
    isUpstream: (tool) => catalogues.tools.get(tool)?.upstream !== undefined,
  };
  const trustsTraces = config.TRUST_CLIENT_TRACES;
  const states = new RequestStates({ clock }, { secret: config.SERVICE_SECRET, keptMs: INPUT_TTL_MS });
  const resources = new McpResources({ upstreams: services.upstreams, states, permissions });
  const server = new McpServer({ tools, resources, states, logger, tracing });
  const mcp = { server, inFlight: new InFlight(), tracing, trustsTraces };
  closers.add('mcp', () => mcp.server.close());
  const handlers = createHandlers({
    threads,
    tools,
    runs: {
      // The run id is the job id, so BullMQ ignores a repeated request while the job exists.
      start: (run, allowed) => {
        const messages = messageLimiter.limitOf(run.identity.plan);
        const enqueue = (job: AgentRunJob) => runQueue.add('run', job, { jobId: job.run_id, ...AGENT_RUN_ATTEMPTS });
        return runs.start(run, { allowed, messages }, enqueue);
      },
      cancel: (identity, runId, allowed) => {
        return runs.cancel(identity.userId, runId, { allowed, messages: messageLimiter.limitOf(identity.plan) });
      },
    },
  });
  const attachmentDeps = { registry, liveAttachments, liveTail, eventLog, plans, tokenSessions, tokenEvents };
  const createRpcDispatcher = (ctx: ConnectionContext, sendFrame: (frame: string) => void) =>
    new McpDispatcher(mcp, ctx, sendFrame);
  const context = { ...attachmentDeps, messageLimiter, handlers, createRpcDispatcher, welcome, hub };
  return {
    ...context,
    ...invalidation,
    mcp,
    nodes,
    authenticator,
    tokens,
    tickets,
    clock,
    logger,
    metrics,
    tracing,
    nodeId,
    limits,
    acknowledgedRecords,
    log,
  };
}

/** Applies admin actions and revocations to the attachments of this node as soon as they are published. */
async function followInvalidations(
  services: GatewayServices,
  deps: Pick<InvalidationHandlerDeps, 'revocationCache' | 'introspection' | 'registry'>,
) {
  const { redis, subscriber, keys, catalogues, clock, logger, metrics, tracing, closers } = services;
  const liveAttachments = new LiveAttachments({ revoked: deps.revocationCache });
  const [accounts, revocations] = [new Accounts(services), new Revocations(services)];
  const listener = new InvalidationHandler({
    ...deps,
    liveAttachments,
    revocations,
    accounts,
    catalogues,
    clock,
    metrics,
    tracing,
  });
  closers.add('invalidation handler', () => listener.stop());
  const invalidations = new InvalidationReader({ redis, subscriber, keys, clock, logger, listener });
  closers.add('invalidations', () => invalidations.stop());
  await invalidations.start();
  return { liveAttachments, accounts, revocations, invalidations };
}

/** Creates the transports, the HTTP routes and the HTTP server, and starts to listen. */
async function startServers(
  config: Config,
  services: GatewayServices,
  connections: Connections,
): Promise<RunningGateway> {
  const { logger, clock, closers, metrics, keys, redis, subscriber, adapterSubscriber, nodeId, catalogues } = services;
  const { authenticator, tickets, tokens, hub } = connections;
  const { CORS_ORIGINS: allowedOrigins, PUBLIC_URL: publicUrl, TRUSTED_PROXY_HOPS: trustedProxyHops } = config;
  const origins = new Origins({ allowed: allowedOrigins, publicUrl, trustedProxyHops });
  const drainMs = config.DRAIN_SECONDS * 1000;
  const readiness = new Readiness({ redis, subscriber, clock, tokens }, { authServiceUrl: config.AUTH_SERVICE_URL });
  const authFailureLimiter = new AuthFailureLimiter(
    { clock },
    { perMinute: config.AUTH_FAILURES_PER_MINUTE, blockingMsPerMinute: config.BLOCKING_MS_PER_MINUTE },
  );
  const longTasks = new LongTasks({ failures: authFailureLimiter, metrics });
  const pending = new PendingConnections({ perAddress: config.PENDING_CONNECTIONS_PER_ADDRESS });
  const guard = new ConnectionGuard({ authFailureLimiter, pending, metrics }, { trustedProxyHops });
  const drainingForMs = () => (readiness.draining ? drainMs : undefined);
  const raw = new RawWebSockets({ ...connections, guard, longTasks });
  const adapter = { publisher: redis, subscriber: adapterSubscriber, channelPrefix: keys.socketIo };
  const socketIo = new SocketIo(
    { ...connections, guard, longTasks, origins, drainingForMs, adapter },
    { allowedOrigins },
  );
  closers.add('socket.io', () => socketIo.close());

  const watch = watchInput({ guard, longTasks });
  const app = createApp({
    logger,
    watch,
    trustedProxyHops,
    isUpgradePath: (path) => matchEndpoint(path) !== undefined,
    intercept: (request, response) => {
      // Otherwise a proxy could reuse the connection for a request that arrives while this node stops.
      if (readiness.draining) response.setHeader('connection', 'close');
      const ours = requestTarget(request).split('?')[0] === SOCKET_IO_PATH;
      // While draining, the route below rejects new Socket.IO sessions with the usual HTTP error body.
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
  registerWsConfigRoutes(app, { config, readiness, clock, publicPaths: PUBLIC_PATHS });
  registerHealthRoutes(app, { readiness });
  registerTicketRoutes(app, {
    identify: bearerOf({ authenticator, guard }, TICKETS_PATH),
    tickets,
    allowedOrigins,
    origins,
  });
  const identifyService = serviceOf({ authenticator, guard });
  registerConfigRoutes(app, { identifyService, catalogues, logger, onReload: () => invalidateCatalogues(services) });
  const toolServers = () => services.upstreams.all.map(toolServerReport);
  registerToolServerRoutes(app, { identifyService, nodeId, toolServers });
  registerAdminRoutes(app, { ...connections, identifyService, redis, keys });
  registerSessionEventRoutes(app, { ...connections, guard });
  const archive = openArchive(config, services);
  registerUserDataRoutes(app, { ...services, ...connections, identifyService, archive });
  registerUsage(app, { ...services, ...connections, identifyService, archive });
  registerConsoleRoutes(app, { authServiceUrl: config.AUTH_PUBLIC_URL, environment: config.ENVIRONMENT });
  registerMcp(app, config, { ...connections, allowedOrigins, origins, guard, watch, drainingForMs });
  listenForUpgrades(app.server, { raw, socketIo, guard, longTasks, origins, drainingForMs });

  const metricsPort = await serveMetrics(app, config, services);
  await app.listen({ host: config.HOST, port: config.PORT });
  closers.add('http server', () => app.close());
  closers.add('final polls', () => socketIo.ended(FINAL_POLL_MS));
  closers.add('clients', async () => {
    await Promise.all([hub.drain(drainMs), connections.mcp.inFlight.drained(clock, drainMs)]);
  });
  closers.add('readiness', () => readiness.drain());
  const { port } = app.server.address() as AddressInfo;
  logger.info({ port, node: nodeId }, 'listening');
  return { port, metricsPort, reload: () => services.catalogues.reload(), close: () => closers.close() };
}

/** Authenticates the bearer token of an HTTP request. As in a handshake, too many failures block the address. */
function bearerOf({ authenticator, guard }: { authenticator: Authenticator; guard: ConnectionGuard }, path: string) {
  return async ({ raw }: FastifyRequest): Promise<Identity> => {
    const { authorization } = presentedCredentials(raw).headers;
    // Not counted as an attempt: an OAuth client starts without a token to discover the authorization server.
    if (authorization === undefined) throw new TollgateError('NO_TOKEN');
    const pending = guard.register(raw, path);
    return pending.authenticate(() => authenticator.bearer(authorization)).finally(pending.release);
  };
}

/** Authenticates the service of an HTTP request. As in a handshake, too many failures block the address. */
function serviceOf({
  authenticator,
  guard,
}: {
  authenticator: Authenticator;
  guard: ConnectionGuard;
}): IdentifyService {
  return async ({ raw }, scope) => {
    const { headers } = presentedCredentials(raw);
    if (headers.authorization === undefined) throw new TollgateError('NO_TOKEN');
    return guard.attempt(raw).authenticate(() => authenticator.service(headers, scope));
  };
}

/** Counts unreadable requests and long tasks per client address. */
function watchInput({ guard, longTasks }: { guard: ConnectionGuard; longTasks: LongTasks }): InputWatch {
  return {
    unreadable: (socket) => guard.unreadable(socket),
    run: (surface, request, work) => longTasks.run({ surface, address: () => guard.addressOf(request) }, work),
  };
}

/** Registers MCP over HTTP. */
function registerMcp(
  app: FastifyInstance,
  config: Config,
  deps: Pick<Connections, 'accounts' | 'authenticator' | 'mcp' | 'plans'> & { guard: ConnectionGuard } & Omit<
      McpRoutesDeps,
      'identify' | 'inFlight' | 'resource' | 'server' | 'trustsTraces'
    >,
): void {
  const { accounts, plans, mcp, allowedOrigins } = deps;
  const { PUBLIC_URL: publicUrl, JWT_ISSUER: issuer } = config;
  const resource = new ProtectedResource({ publicUrl, issuers: [issuer], path: MCP_PATH });
  const bearer = bearerOf(deps, MCP_PATH);
  // The account is read after authentication. With a slow Redis, the many clients behind a proxy would otherwise
  // count as pending connections of one address.
  const authenticate = async (request: FastifyRequest) => accounts.admit(await bearer(request), plans);
  registerMcpRoutes(app, { ...deps, ...mcp, resource, identify: authenticate });
  registerProtectedResourceRoutes(app, { resource, allowedOrigins, path: MCP_PATH });
}
