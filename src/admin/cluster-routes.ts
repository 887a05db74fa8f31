import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { ServiceIdentity } from '../auth/tokens.ts';
import type { NodeRegistry } from '../cluster/node-registry.ts';
import { KEPT_STEPS, type SeriesStore, STEP_MS } from '../figures/series-store.ts';
import { typedRoutes } from '../http/route-docs.ts';
import type { IdentifyService } from '../http/services.ts';
import type { Clock } from '../lib/clock.ts';
import { TollgateError } from '../protocol/errors.ts';
import { ACTION_ERRORS, ACTS, describeCaller, QUERY_ERRORS, READ_ERRORS, READS, requires } from './admin-guard.ts';
import type { AdminStreams } from './admin-streams.ts';
import { ALERT_RULES, type AlertWatch } from './alerts.ts';
import type { AuditLog } from './audit-log.ts';
import { type ClusterFigures, describeNode, overviewOf } from './cluster-figures.ts';
import {
  AlertsBody,
  AuditBody,
  AuditQueryString,
  Draining,
  Killing,
  Me,
  NodePath,
  NodesBody,
  OverviewBody,
  SeriesBody,
  SeriesQueryString,
} from './schemas.ts';
import { columns } from './series.ts';

/** Range of a series by default. */
const DEFAULT_RANGE_MS = { minute: 3_600_000, hour: 86_400_000 } as const;
const EventStreamText = z.unknown().meta({
  type: 'string',
  examples: ['event: overview\ndata: {"at":"2026-11-30T12:00:00.000Z"}\n\n'],
});

export interface ClusterRoutesDeps {
  readonly identifyService: IdentifyService;
  readonly nodeId: string;
  readonly nodes: Pick<NodeRegistry, 'requestDrain' | 'requestKill' | 'drainRequested'>;
  /** Whether nodes can be killed: for experiments, never in production. */
  readonly allowsKill: boolean;
  readonly figures: ClusterFigures;
  readonly series: Pick<SeriesStore, 'read'>;
  readonly alerts: AlertWatch;
  readonly auditLog: Pick<AuditLog, 'read'>;
  readonly streams: AdminStreams;
  readonly clock: Pick<Clock, 'now'>;
}

/** Registers the routes about the cluster: caller, overview, stream, series, nodes, alerts, audit log. */
export function registerClusterRoutes(app: FastifyInstance, deps: ClusterRoutesDeps): void {
  overviewRoutes(app, deps);
  streamRoute(app, deps);
  seriesRoute(app, deps);
  nodeRoutes(app, deps);
  if (deps.allowsKill) killRoute(app, deps);
  auditRoute(app, deps);
}

function overviewRoutes(app: FastifyInstance, { identifyService, nodeId, figures, alerts }: ClusterRoutesDeps): void {
  const routes = typedRoutes(app);
  routes.get(
    '/v1/admin/me',
    {
      schema: {
        ...READS,
        operationId: 'getCaller',
        summary: 'Get the caller',
        description: 'Describes the token of the request: whom it names, and what it allows.',
        'x-errors': READ_ERRORS,
        response: { 200: Me },
      },
    },
    async (request) => ({ ...describeCaller(await identifyService(request, 'admin:read')), node_id: nodeId }),
  );
  routes.get(
    '/v1/admin/overview',
    {
      ...requires(identifyService, 'admin:read'),
      schema: {
        ...READS,
        operationId: 'getOverview',
        summary: 'Get the overview',
        description:
          'Figures of the whole cluster, at most five seconds old. Rates and percentiles are of the last minute.',
        'x-errors': READ_ERRORS,
        response: { 200: OverviewBody },
      },
    },
    async () => overviewOf(await figures.read()),
  );
  routes.get(
    '/v1/admin/alerts',
    {
      ...requires(identifyService, 'admin:read'),
      schema: {
        ...READS,
        operationId: 'listAlerts',
        summary: 'List the alerts that fire',
        description: 'Evaluates the conditions of the Prometheus alerts with the figures of the last minute.',
        'x-errors': READ_ERRORS,
        response: { 200: AlertsBody },
      },
    },
    async () => {
      const cluster = await figures.read();
      const evaluated = Object.keys(ALERT_RULES);
      return { at: new Date(cluster.at).toISOString(), alerts: alerts.look(cluster), evaluated };
    },
  );
}

function streamRoute(app: FastifyInstance, { identifyService, streams }: ClusterRoutesDeps): void {
  const callers = new WeakMap<object, ServiceIdentity>();
  typedRoutes(app).get(
    '/v1/admin/stream',
    {
      onRequest: async (request) => {
        callers.set(request, await identifyService(request, 'admin:read'));
      },
      schema: {
        ...READS,
        operationId: 'streamOverview',
        summary: 'Stream the overview',
        description: `Server-sent events: \`overview\` every five seconds, \`alerts\` when they change, \`audit\` with the newest
entry of the audit log, \`end\` with a \`code\`. One stream per caller and node.`,
        'x-errors': READ_ERRORS,
        response: {
          200: { description: 'The stream.', content: { 'text/event-stream': { schema: EventStreamText } } },
        },
      },
    },
    (request, reply) => {
      const caller = callers.get(request);
      if (!caller) throw new Error('the route has no guard');
      streams.admit(caller);
      reply.hijack();
      streams.open(caller, reply.raw);
    },
  );
  app.addHook('preClose', async () => streams.close());
}

function seriesRoute(app: FastifyInstance, { identifyService, series, clock }: ClusterRoutesDeps): void {
  typedRoutes(app).get(
    '/v1/admin/series',
    {
      ...requires(identifyService, 'admin:read'),
      schema: {
        ...READS,
        operationId: 'getSeries',
        summary: 'Get figures over time',
        description: `The last ${KEPT_STEPS.minute} minutes or ${KEPT_STEPS.hour} hours, of the cluster or of one process. Counters
are counts per step.`,
        querystring: SeriesQueryString,
        'x-errors': QUERY_ERRORS,
        response: { 200: SeriesBody },
      },
    },
    async ({ query: { step, from: first, to: last, node } }) => {
      const now = clock.now();
      const to = last === undefined ? now : Math.min(now, Date.parse(last));
      const oldest = now - KEPT_STEPS[step] * STEP_MS[step];
      const from = Math.max(oldest, first === undefined ? to - DEFAULT_RANGE_MS[step] : Date.parse(first));
      if (from > to) throw new TollgateError('FORMAT_ERROR', { text: '"from" must not be later than "to".' });
      const points = await series.read({ step, from, to, process: node });
      return {
        step,
        from: new Date(from).toISOString(),
        to: new Date(to).toISOString(),
        node: node ?? null,
        at: points.map(({ at }) => new Date(at).toISOString()),
        series: columns(points),
      };
    },
  );
}

function nodeRoutes(app: FastifyInstance, { identifyService, nodeId, nodes, figures, clock }: ClusterRoutesDeps): void {
  const routes = typedRoutes(app);
  routes.get(
    '/v1/admin/nodes',
    {
      ...requires(identifyService, 'admin:read'),
      schema: {
        ...READS,
        operationId: 'listNodeDetails',
        summary: 'List gateways and workers',
        description: 'The live processes of the cluster with their figures, at most five seconds old.',
        'x-errors': READ_ERRORS,
        response: { 200: NodesBody },
      },
    },
    async () => {
      const { gateways, workers } = await figures.read();
      const about = { now: clock.now(), thisNode: nodeId };
      const all = [...gateways, ...workers];
      // A node reports its drain with its next renewal only.
      const requested = await nodes.drainRequested(all.map(({ node_id }) => node_id));
      return { nodes: all.map((node) => describeNode(node, { ...about, isRequested: requested.has(node.node_id) })) };
    },
  );
  routes.post(
    '/v1/admin/nodes/:node_id/drain',
    {
      ...requires(identifyService, 'admin'),
      schema: {
        ...ACTS,
        operationId: 'drainNode',
        summary: 'Drain a node',
        description: `The process stops as on SIGTERM: a gateway sends its clients to other nodes, a worker ends its runs or leaves
them to others. Its orchestrator starts a new one.`,
        params: NodePath,
        'x-errors': [...ACTION_ERRORS, 'RECORD_NOT_FOUND'],
        response: { 202: Draining },
      },
    },
    async ({ params: { node_id: id } }, reply) => {
      const { gateways, workers } = await figures.read();
      const node = [...gateways, ...workers].find((one) => one.node_id === id);
      if (!node) throw new TollgateError('RECORD_NOT_FOUND', { text: 'No such node.' });
      await nodes.requestDrain(id);
      return reply.status(202).send({ node_id: id, role: node.role ?? 'gateway', draining: true });
    },
  );
}

function killRoute(app: FastifyInstance, { identifyService, nodes, figures }: ClusterRoutesDeps): void {
  typedRoutes(app).post(
    '/v1/admin/nodes/:node_id/kill',
    {
      ...requires(identifyService, 'admin'),
      schema: {
        ...ACTS,
        operationId: 'killNode',
        summary: 'Kill a gateway',
        description: `The gateway ends within five seconds, as in a crash, so that its clients can be seen to resume at another node.
The route exists in development and test only.`,
        params: NodePath,
        'x-errors': [...ACTION_ERRORS, 'RECORD_NOT_FOUND'],
        response: { 202: Killing },
      },
    },
    async ({ params: { node_id: id } }, reply) => {
      const { gateways } = await figures.read();
      if (!gateways.some(({ node_id }) => node_id === id)) {
        throw new TollgateError('RECORD_NOT_FOUND', { text: 'No such gateway.' });
      }
      await nodes.requestKill(id);
      return reply.status(202).send({ node_id: id, outcome: 'requested' });
    },
  );
}

function auditRoute(app: FastifyInstance, { identifyService, auditLog }: ClusterRoutesDeps): void {
  typedRoutes(app).get(
    '/v1/audit',
    {
      ...requires(identifyService, 'admin:read'),
      schema: {
        ...READS,
        operationId: 'listAuditEntries',
        summary: 'List the audit log',
        description: 'Admin actions, newest first. A page of a filter can be empty although a later one is not.',
        querystring: AuditQueryString,
        'x-errors': QUERY_ERRORS,
        response: { 200: AuditBody },
      },
    },
    async ({ query: { cursor, limit, actor, action } }) => {
      const { entries, next } = await auditLog.read({ cursor, limit, actor, action });
      return { entries, next_cursor: next };
    },
  );
}
