import type { FastifyInstance } from 'fastify';
import { AdminStreams } from '../admin/admin-streams.ts';
import { AlertWatch } from '../admin/alerts.ts';
import type { AuditLog } from '../admin/audit-log.ts';
import { ClusterFigures } from '../admin/cluster-figures.ts';
import { registerClusterRoutes } from '../admin/cluster-routes.ts';
import { SeriesStore } from '../figures/series-store.ts';
import type { AdminCallers } from './admin-callers.ts';
import type { Connections } from './connections.ts';
import type { GatewayServices } from './services.ts';

export interface AdminApiDeps {
  readonly services: GatewayServices;
  readonly connections: Connections;
  readonly auditLog: AuditLog;
  readonly callers: AdminCallers;
}

/** Registers the routes of the console. */
export function registerAdminApi(
  app: FastifyInstance,
  { services, connections, auditLog, callers }: AdminApiDeps,
): void {
  const { nodes } = connections;
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
  });
}
