import type { AddressInfo } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { logReloads } from '../catalogue/catalogues.ts';
import type { Config } from '../config.ts';
import { createApp, type InputWatch } from '../http/app.ts';
import { describeRoutes } from '../http/openapi.ts';
import { serveMetrics } from '../http/operations-routes.ts';
import { Readiness } from '../http/readiness.ts';
import { traceRequests } from '../http/request-traces.ts';
import { type Clock, systemClock } from '../lib/clock.ts';
import { Closers } from '../lib/closers.ts';
import { newId } from '../lib/ids.ts';
import type { Logger } from '../lib/logger.ts';
import { AuthFailureLimiter } from '../limits/auth-failure-limiter.ts';
import { LongTasks } from '../limits/long-tasks.ts';
import { PendingConnections } from '../limits/pending-connections.ts';
import { TollgateError } from '../protocol/errors.ts';
import { startTelemetry } from '../telemetry/telemetry.ts';
import { ConnectionGuard } from '../transports/connection-guard.ts';
import { matchEndpoint } from '../transports/endpoints.ts';
import { isHandshake } from '../transports/engine-requests.ts';
import { requestTarget } from '../transports/handshake-request.ts';
import { Origins } from '../transports/origins.ts';
import { RawWebSockets } from '../transports/raw-websocket.ts';
import { SOCKET_IO_PATH, SocketIo } from '../transports/socket-io.ts';
import { listenForUpgrades } from '../transports/upgrades.ts';
import { type Authentication, composeAuthentication } from './authentication.ts';
import { type Connections, composeConnections } from './connections.ts';
import { registerFrontEnds } from './front-ends.ts';
import { registerHttpRoutes } from './http-routes.ts';
import { composeServices, type GatewayServices } from './services.ts';

/** Time for polling clients to fetch the last packets of a draining node. */
const FINAL_POLL_MS = 2_000;
/**
 * Delay that a draining node requests when it refuses a client. A proxy sends the client elsewhere as soon as it has
 * detected the drain, within about three seconds, so the client must not wait for the end of the drain.
 */
const REFUSED_RETRY_MS = 1_000;
/**
 * A draining node serves MCP requests for this time, at most half of the drain, so that a proxy detects the drain
 * before a client is refused. Later requests are refused, because the closing node would cut those that are slow.
 */
const MCP_SERVED_MS = 4_000;

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
  options: { readonly logger?: Logger; readonly clock?: Clock; readonly onDrainRequested?: () => void } = {},
): Promise<RunningGateway> {
  const closers = new Closers();
  const nodeId = newId('node');
  const telemetry = await startTelemetry(config, { role: 'gateway', instance: nodeId, logger: options.logger });
  closers.add('tracing', () => telemetry.tracing.close());
  const clock = options.clock ?? systemClock;
  try {
    const services = await composeServices(config, {
      ...telemetry,
      nodeId,
      clock,
      closers,
      onDrainRequested: options.onDrainRequested,
    });
    logReloads(services.catalogues, services);
    const authentication = composeAuthentication(config, services);
    const connections = await composeConnections(config, services, authentication);
    return await startServers(config, services, authentication, connections);
  } catch (error) {
    await closers.close().catch((cause) => telemetry.logger.warn({ err: cause }, 'close after a failed start failed'));
    throw error;
  }
}

/** Creates the transports and the HTTP server, and starts to listen. */
async function startServers(
  config: Config,
  services: GatewayServices,
  authentication: Authentication,
  connections: Connections,
): Promise<RunningGateway> {
  const { logger, clock, closers, nodeId, redis, subscriber } = services;
  const { hub, mcp } = connections;
  const drainMs = config.DRAIN_SECONDS * 1000;
  const { tokens } = authentication;
  const readiness = new Readiness({ redis, subscriber, clock, tokens }, { authServiceUrl: config.AUTH_SERVICE_URL });
  const drainRetryMs = () => (readiness.draining ? REFUSED_RETRY_MS : undefined);
  const mcpRetryMs = () => {
    const drainingForMs = readiness.drainingForMs ?? 0;
    return drainingForMs >= Math.min(MCP_SERVED_MS, drainMs / 2) ? drainRetryMs() : undefined;
  };
  const origins = originsOf(config);
  const transports = composeTransports(config, services, connections, { origins, drainRetryMs });
  const { socketIo, guard } = transports;
  const watch = watchInput(transports);
  const app = composeApp(config, services, { readiness, socketIo, watch });
  traceRequests(app, services);
  await describeRoutes(app);
  app.get(SOCKET_IO_PATH, { schema: { hide: true } }, () => {
    throw new TollgateError('SERVER_DRAINING', { retryAfterMs: REFUSED_RETRY_MS });
  });
  const routes = { services, connections, authentication, origins, guard, readiness, watch, mcpRetryMs };
  registerHttpRoutes(app, config, routes);
  const frontEnds = registerFrontEnds(app, config, { ...routes, drainRetryMs });
  listenForUpgrades(app.server, { ...transports, origins, drainRetryMs });

  const metricsPort = await serveMetrics(app, config, services);
  await app.listen({ host: config.HOST, port: config.PORT });
  closers.add('http server', () => app.close());
  closers.add('final polls', () => socketIo.ended(FINAL_POLL_MS));
  closers.add('clients', () => {
    return Promise.all([frontEnds.drain(drainMs), hub.drain(drainMs), mcp.inFlight.drained(clock, drainMs)]);
  });
  closers.add('readiness', () => readiness.drain());
  const { port } = app.server.address() as AddressInfo;
  logger.info({ port, node: nodeId }, 'listening');
  return { port, metricsPort, reload: () => services.catalogues.reload(), close: () => closers.close() };
}

interface Transports {
  readonly raw: RawWebSockets;
  readonly socketIo: SocketIo;
  readonly guard: ConnectionGuard;
  readonly longTasks: LongTasks;
}

function originsOf({ CORS_ORIGINS: allowed, PUBLIC_URL: publicUrl, TRUSTED_PROXY_HOPS: trustedProxyHops }: Config) {
  return new Origins({ allowed, publicUrl, trustedProxyHops });
}

function composeTransports(
  config: Config,
  services: GatewayServices,
  { deps }: Connections,
  shared: { readonly origins: Origins; readonly drainRetryMs: () => number | undefined },
): Transports {
  const { clock, closers, metrics, keys, redis, adapterSubscriber } = services;
  const authFailureLimiter = new AuthFailureLimiter(
    { clock },
    { perMinute: config.AUTH_FAILURES_PER_MINUTE, blockingMsPerMinute: config.BLOCKING_MS_PER_MINUTE },
  );
  const longTasks = new LongTasks({ failures: authFailureLimiter, metrics });
  const pending = new PendingConnections({ perAddress: config.PENDING_CONNECTIONS_PER_ADDRESS });
  const guard = new ConnectionGuard(
    { authFailureLimiter, pending, metrics, clock },
    { trustedProxyHops: config.TRUSTED_PROXY_HOPS, authDeadlineMs: config.AUTH_DEADLINE_SECONDS * 1000 },
  );
  const raw = new RawWebSockets({ ...deps, guard, longTasks });
  const adapter = { publisher: redis, subscriber: adapterSubscriber, channelPrefix: keys.socketIo };
  const allowedOrigins = config.CORS_ORIGINS;
  const socketIo = new SocketIo({ ...deps, ...shared, guard, longTasks, adapter }, { allowedOrigins });
  closers.add('socket.io', () => socketIo.close());
  return { raw, socketIo, guard, longTasks };
}

/** Creates the Fastify instance, which leaves the long-polling requests of Socket.IO to its server. */
function composeApp(
  config: Config,
  { logger }: GatewayServices,
  deps: { readonly readiness: Readiness; readonly socketIo: SocketIo; readonly watch: InputWatch },
): FastifyInstance {
  const { readiness, socketIo, watch } = deps;
  return createApp({
    logger,
    watch,
    trustedProxyHops: config.TRUSTED_PROXY_HOPS,
    isUpgradePath: (path) => matchEndpoint(path) !== undefined,
    intercept: (request, response) => {
      // Otherwise a proxy could reuse the connection for a request that arrives while this node stops.
      if (readiness.draining) response.setHeader('connection', 'close');
      const ours = requestTarget(request).split('?')[0] === SOCKET_IO_PATH;
      // While draining, a route rejects new Socket.IO sessions with the usual HTTP error body.
      if (!ours || (readiness.draining && isHandshake(request))) return false;
      socketIo.handleRequest(request, response);
      return true;
    },
  });
}

/** Counts unreadable requests and long tasks per client address. */
function watchInput({ guard, longTasks }: Pick<Transports, 'guard' | 'longTasks'>): InputWatch {
  return {
    unreadable: (socket) => guard.unreadable(socket),
    run: (surface, request, work) => longTasks.run({ surface, address: () => guard.addressOf(request) }, work),
  };
}
