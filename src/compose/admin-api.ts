import type { FastifyInstance } from 'fastify';
import { AdminStreams } from '../admin/admin-streams.ts';
import { AlertWatch } from '../admin/alerts.ts';
import type { AuditLog } from '../admin/audit-log.ts';
import { ClusterFigures } from '../admin/cluster-figures.ts';
import { registerClusterRoutes } from '../admin/cluster-routes.ts';
import { type ConfigurationRoutesDeps, registerConfigurationRoutes } from '../admin/configuration-routes.ts';
import { registerQueueRoutes } from '../admin/queue-routes.ts';
import { RunReader } from '../admin/run-reader.ts';
import { registerRunRoutes } from '../admin/run-routes.ts';
import { UserReader } from '../admin/user-reader.ts';
import { registerUserRoutes } from '../admin/user-routes.ts';
import { UserSearch } from '../admin/user-search.ts';
import { SeriesStore } from '../figures/series-store.ts';
import { MCP_PATH } from '../http/mcp-routes.ts';
import { ENDPOINTS } from '../transports/endpoints.ts';
import { SOCKET_IO_PATH } from '../transports/socket-io.ts';
import { RecentUsage } from '../usage/reports/recent-usage.ts';
import type { AdminCallers } from './admin-callers.ts';
import { type Connections, canBeKilled } from './connections.ts';
import type { GatewayServices } from './services.ts';
import { toolServerReport } from './tool-servers.ts';

export interface AdminApiDeps {
  readonly services: GatewayServices;
  readonly connections: Connections;
  readonly auditLog: AuditLog;
  readonly callers: AdminCallers;
  readonly configuration: Pick<ConfigurationRoutesDeps, 'config' | 'readiness' | 'signIn'>;
}

/** Registers the routes of the console. */
export function registerAdminApi(
  app: FastifyInstance,
  { services, connections, auditLog, callers, configuration }: AdminApiDeps,
): void {
  const { nodes, deps } = connections;
  const figures = new ClusterFigures({ ...services, nodes });
  const alerts = new AlertWatch();
  const recheck: AdminCallers['recheck'] = (caller) => callers.recheck(caller);
  const streams = new AdminStreams({ ...services, figures, alerts, auditLog, recheck });
  const shared = { ...services, identifyService: callers.identify };
  app.addHook('onSend', async (request, reply, payload) => {
    if (callers.callerOf(request) && !reply.hasHeader('cache-control')) reply.header('cache-control', 'no-store');
    return payload;
  });
  registerClusterRoutes(app, {
    ...shared,
    nodes,
    figures,
    alerts,
    auditLog,
    streams,
    series: new SeriesStore(services),
    allowsKill: canBeKilled(configuration.config),
  });
  const reader = new RunReader({ ...services, ...connections, eventLog: deps.eventLog });
  const users = new UserReader({ ...services, ...connections, recentUsage: new RecentUsage(services) });
  registerUserRoutes(app, { ...shared, reader, users, search: new UserSearch(services) });
  registerRunRoutes(app, { ...shared, reader, users, runs: connections.runs });
  registerQueueRoutes(app, { ...shared, runQueue: connections.runQueue });
  registerConfigurationRoutes(app, {
    ...connections,
    ...shared,
    ...configuration,
    toolServers: () => services.upstreams.all.map(toolServerReport),
    endpoints: describedEndpoints(),
  });
}

function describedEndpoints() {
  const webSockets = ENDPOINTS.map(({ path, dialect }) => ({ path, description: `WebSocket, ${dialect.format}` }));
  return [
    ...webSockets,
    { path: SOCKET_IO_PATH, description: 'Socket.IO' },
    { path: MCP_PATH, description: 'MCP over HTTP' },
  ];
}
