import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Accounts } from '../accounts/accounts.ts';
import type { Permissions } from '../catalogue/permissions.ts';
import type { Plans } from '../catalogue/plans.ts';
import type { Config } from '../config.ts';
import type { RpcDispatcher } from '../connections/connection-context.ts';
import { ProtectedResource, registerProtectedResourceRoutes } from '../http/mcp-metadata-routes.ts';
import { MCP_PATH, type McpRoutesDeps, registerMcpRoutes } from '../http/mcp-routes.ts';
import { InFlight } from '../mcp/in-flight.ts';
import { McpDispatcher } from '../mcp/mcp-dispatcher.ts';
import { McpResources } from '../mcp/mcp-resources.ts';
import { McpServer } from '../mcp/mcp-server.ts';
import type { McpTools } from '../mcp/mcp-tools.ts';
import { RequestStates } from '../mcp/request-states.ts';
import { toTollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import type { RefusalSink } from '../protocol/refusals.ts';
import { INPUT_TTL_MS } from '../tools/call-store.ts';
import type { GatewayServices } from './services.ts';

/** MCP over WebSocket and HTTP. */
export interface Mcp {
  readonly server: McpServer;
  readonly inFlight: InFlight;
  readonly trustsTraces: boolean;
  /** Creates the dispatcher of the MCP messages on one connection. */
  readonly createDispatcher: (sendFrame: (frame: string) => void) => RpcDispatcher;
}

export function composeMcp(
  config: Pick<Config, 'SERVICE_SECRET' | 'TRUST_CLIENT_TRACES'>,
  { clock, logger, tracing, refusals, upstreams, closers }: GatewayServices,
  { tools, permissions }: { readonly tools: McpTools; readonly permissions: Permissions },
): Mcp {
  const states = new RequestStates({ clock }, { secret: config.SERVICE_SECRET, keptMs: INPUT_TTL_MS });
  const resources = new McpResources({ upstreams, states, permissions });
  const server = new McpServer({ tools, resources, states, refusals, logger, tracing });
  closers.add('mcp', () => server.close());
  const deps = { server, inFlight: new InFlight(), tracing, trustsTraces: config.TRUST_CLIENT_TRACES };
  return { ...deps, createDispatcher: (sendFrame) => new McpDispatcher(deps, sendFrame) };
}

export interface McpHttpDeps
  extends Omit<McpRoutesDeps, 'identify' | 'inFlight' | 'resource' | 'server' | 'trustsTraces'> {
  readonly mcp: Mcp;
  readonly accounts: Pick<Accounts, 'admit'>;
  readonly plans: Plans;
  readonly refusals: RefusalSink;
  /** Authorization servers that the metadata name. */
  readonly issuers: readonly string[];
  /** Authenticates the bearer token of a request. @throws TollgateError of the authentication rows */
  readonly bearer: (request: FastifyRequest) => Promise<Identity>;
}

/** Registers MCP over HTTP. */
export function registerMcp(
  app: FastifyInstance,
  { PUBLIC_URL: publicUrl }: Pick<Config, 'PUBLIC_URL'>,
  deps: McpHttpDeps,
): void {
  const { accounts, plans, refusals, mcp, bearer, issuers, allowedOrigins } = deps;
  const resource = new ProtectedResource({ publicUrl, issuers, path: MCP_PATH });
  // The account is read after authentication. With a slow Redis, the many clients behind a proxy would otherwise
  // count as pending connections of one address.
  const identify = async (request: FastifyRequest) => {
    const verified = await bearer(request);
    return accounts.admit(verified, plans).catch((error: unknown) => {
      refusals.refused(verified.userId, toTollgateError(error));
      throw error;
    });
  };
  registerMcpRoutes(app, { ...deps, ...mcp, resource, identify });
  registerProtectedResourceRoutes(app, { resource, allowedOrigins, path: MCP_PATH });
}
