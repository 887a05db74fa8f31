import type { FastifyInstance, FastifyRequest } from 'fastify';
import { invalidateCatalogues } from '../accounts/invalidations.ts';
import { auditAdminActions } from '../admin/audit-hooks.ts';
import { AuditLog } from '../admin/audit-log.ts';
import type { Authenticator } from '../auth/authenticator.ts';
import { RunTokens } from '../auth/run-tokens.ts';
import type { Config } from '../config.ts';
import { registerAdminRoutes } from '../http/admin-routes.ts';
import type { InputWatch } from '../http/app.ts';
import { registerConfigRoutes } from '../http/config-routes.ts';
import { registerConsoleRoutes } from '../http/console-routes.ts';
import { ConsoleSignIn } from '../http/console-sign-in.ts';
import { MCP_PATH } from '../http/mcp-routes.ts';
import { registerHealthRoutes } from '../http/operations-routes.ts';
import type { Readiness } from '../http/readiness.ts';
import { registerSessionEventRoutes } from '../http/session-event-routes.ts';
import { registerTicketRoutes, TICKETS_PATH } from '../http/ticket-routes.ts';
import { registerToolServerRoutes } from '../http/tool-server-routes.ts';
import { registerUserDataRoutes } from '../http/user-data-routes.ts';
import { registerWsConfigRoutes } from '../http/ws-config-routes.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import type { ConnectionGuard } from '../transports/connection-guard.ts';
import { PUBLIC_PATHS } from '../transports/endpoints.ts';
import { presentedCredentials } from '../transports/handshake-request.ts';
import type { Origins } from '../transports/origins.ts';
import { registerAdminApi } from './admin-api.ts';
import { AdminCallers } from './admin-callers.ts';
import type { Authentication } from './authentication.ts';
import type { Connections } from './connections.ts';
import { registerMcp } from './mcp.ts';
import { RunCallers } from './run-callers.ts';
import type { GatewayServices } from './services.ts';
import { toolServerReport } from './tool-servers.ts';
import { openArchive, registerUsage } from './usage-routes.ts';

export interface HttpRoutesDeps {
  readonly services: GatewayServices;
  readonly connections: Connections;
  readonly authentication: Pick<Authentication, 'authenticator' | 'issuers' | 'tickets' | 'tokens' | 'revocationCache'>;
  readonly origins: Origins;
  readonly guard: ConnectionGuard;
  readonly readiness: Readiness;
  readonly watch: InputWatch;
  /** Milliseconds after which an MCP client should try another node; undefined while this node serves MCP requests. */
  readonly mcpRetryMs: () => number | undefined;
}

/** Registers the HTTP routes of a gateway node. */
export function registerHttpRoutes(app: FastifyInstance, config: Config, deps: HttpRoutesDeps): void {
  const { services, connections, authentication, origins, guard, readiness, watch, mcpRetryMs } = deps;
  const { authenticator, tickets, tokens } = authentication;
  const { clock, logger, metrics, tracing, redis, keys, catalogues, refusals, nodeId } = services;
  const { messageLimiter, mcp, accounts, plans } = connections;
  const allowedOrigins = config.CORS_ORIGINS;
  const callers = new AdminCallers({ authenticator, guard, accounts, clock, revoked: authentication.revocationCache });
  const identifyService = callers.identify;
  const auditLog = new AuditLog(services);
  const addressOf = ({ raw }: FastifyRequest) => guard.addressOf(raw);
  auditAdminActions(app, { ...services, auditLog, addressOf, callerOf: (request) => callers.callerOf(request) });
  const archive = openArchive(config, services);

  registerWsConfigRoutes(app, { config, readiness, clock, publicPaths: PUBLIC_PATHS });
  registerHealthRoutes(app, { readiness });
  const identify = bearerOf(authenticator, guard, TICKETS_PATH);
  registerTicketRoutes(app, { identify, tickets, allowedOrigins, origins });
  registerConfigRoutes(app, { identifyService, catalogues, logger, onReload: () => invalidateCatalogues(services) });
  const toolServers = () => services.upstreams.all.map(toolServerReport);
  registerToolServerRoutes(app, { identifyService, nodeId, toolServers });
  registerAdminRoutes(app, { ...connections, redis, keys, clock, logger, identifyService });
  const signIn = consoleSignIn(config, services);
  registerAdminApi(app, { ...deps, auditLog, callers, configuration: { config, readiness, signIn } });
  registerSessionEventRoutes(app, { ...connections, tokens, guard, logger });
  registerUserDataRoutes(app, { ...services, ...connections, identifyService, archive });
  registerUsage(app, { ...services, ...connections, identifyService, archive });
  registerConsoleRoutes(app, config, { signIn, clock });
  registerMcp(app, config, {
    mcp,
    accounts,
    plans,
    issuers: authentication.issuers,
    bearer: bearerOf(mcpAuthenticator(config, deps), guard, MCP_PATH),
    allowedOrigins,
    origins,
    drainRetryMs: mcpRetryMs,
    messageLimiter,
    watch,
    metrics,
    refusals,
    logger,
    tracing,
  });
}

/** The metadata of the console's issuer: its own, or those of the auth service at its internal URL. */
function consoleSignIn(config: Config, services: Pick<GatewayServices, 'clock' | 'logger'>): ConsoleSignIn {
  const { CONSOLE_ISSUER, JWT_ISSUER, AUTH_SERVICE_URL: internalUrl, AUTH_PUBLIC_URL: publicUrl } = config;
  const issuer = CONSOLE_ISSUER ?? JWT_ISSUER;
  const metadataAt = issuer === JWT_ISSUER ? internalUrl : issuer;
  return new ConsoleSignIn(services, { issuer, metadataAt, internalUrl, publicUrl });
}

/** Authenticates the bearer token of an HTTP request. As in a handshake, too many failures block the address. */
function bearerOf(authenticator: Pick<Authenticator, 'bearer'>, guard: ConnectionGuard, path: string) {
  return async ({ raw }: FastifyRequest): Promise<Identity> => {
    const { authorization } = presentedCredentials(raw).headers;
    // Not counted as an attempt: an OAuth client starts without a token to discover the authorization server.
    if (authorization === undefined) throw new TollgateError('NO_TOKEN');
    const handshake = guard.register(raw, path);
    return handshake.authenticate(() => authenticator.bearer(authorization)).finally(() => handshake.release());
  };
}

/** Accepts the tokens of runs beside those of users: the agents of other servers call tools with them. */
function mcpAuthenticator(
  { SERVICE_SECRET }: Pick<Config, 'SERVICE_SECRET'>,
  { services, connections, authentication }: Pick<HttpRoutesDeps, 'services' | 'connections' | 'authentication'>,
): Pick<Authenticator, 'bearer'> {
  const tokens = new RunTokens(services, SERVICE_SECRET);
  const callers = new RunCallers({ tokens, runs: connections.runs, agents: services.agents });
  return {
    bearer: async (authorization) =>
      (await callers.identify(authorization)) ?? authentication.authenticator.bearer(authorization),
  };
}
