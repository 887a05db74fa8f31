import type { AddressInfo } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Config } from '../config.ts';
import type { Closers } from '../lib/closers.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import { createApp } from './app.ts';
import type { Readiness } from './readiness.ts';
import { acceptZodSchemas, PUBLIC, PUBLIC_ERRORS, typedRoutes } from './route-docs.ts';

const DOCUMENTED = { tags: ['operations'], security: PUBLIC, 'x-errors': PUBLIC_ERRORS };
const PROMETHEUS = 'text/plain';

const Live = z.object({ status: z.literal('live') }).meta({ id: 'Live', examples: [{ status: 'live' }] });
const CHECKS = {
  redis: z.boolean().describe('Redis responds, on the connections for commands and for subscriptions.'),
  auth_service: z.boolean().describe('The auth service responds; informative only.'),
  identity_keys: z
    .boolean()
    .describe('The keys of at least one identity provider are known, so that tokens can be verified.'),
  providers_without_keys: z
    .array(z.string())
    .describe(
      'Names of the identity providers whose keys have not been fetched since the start; the log has the reason.',
    ),
  draining: z.boolean().describe('The node is about to stop.'),
};
const KEYS = { identity_keys: true, providers_without_keys: [] };
const Ready = z.object({ status: z.literal('ready'), checks: z.object(CHECKS) }).meta({
  id: 'Ready',
  examples: [{ status: 'ready', checks: { redis: true, auth_service: true, ...KEYS, draining: false } }],
});
const NotReady = z.object({ status: z.literal('not_ready'), checks: z.object(CHECKS) }).meta({
  id: 'NotReady',
  examples: [{ status: 'not_ready', checks: { redis: false, auth_service: true, ...KEYS, draining: false } }],
});
const MetricsText = z.unknown().meta({
  type: 'string',
  examples: [
    '# HELP tollgate_connections Open connections.\n# TYPE tollgate_connections gauge\ntollgate_connections 12\n',
  ],
});

/**
 * `/health/live` and `/health/ready`. An unavailable auth service does not make a node unready: the node verifies
 * issued tokens itself, and taking every node out of service would turn an outage of the auth service into one of the
 * gateway.
 */
export function registerHealthRoutes(app: FastifyInstance, { readiness }: { readonly readiness: Readiness }): void {
  const routes = typedRoutes(app);
  routes.get(
    '/health/live',
    {
      schema: {
        ...DOCUMENTED,
        operationId: 'getLiveness',
        summary: 'Check that the process runs',
        description: 'For liveness probes: checks no dependency.',
        response: { 200: Live },
      },
    },
    async () => ({ status: 'live' as const }),
  );
  routes.get(
    '/health/ready',
    {
      schema: {
        ...DOCUMENTED,
        operationId: 'getReadiness',
        summary: 'Check that the node accepts connections',
        description: 'For load balancers and readiness probes. A result is cached for one second.',
        response: { 200: Ready, 503: NotReady },
      },
    },
    async (_request, reply) => {
      const { redis, authService, identityKeys, withoutKeys, draining } = await readiness.check();
      const checks = {
        redis,
        auth_service: authService,
        identity_keys: identityKeys,
        providers_without_keys: [...withoutKeys],
        draining,
      };
      if (redis && identityKeys && !draining) return reply.status(200).send({ status: 'ready', checks });
      return reply.status(503).send({ status: 'not_ready', checks });
    },
  );
}

/** `/metrics`, in the Prometheus text format. */
function metricsRoute(app: FastifyInstance, { metrics }: { readonly metrics: Metrics }): void {
  typedRoutes(app).get(
    '/metrics',
    {
      schema: {
        ...DOCUMENTED,
        operationId: 'getMetrics',
        summary: 'Get the metrics',
        description: 'Metrics of this node in the Prometheus text format; on a separate port if `METRICS_PORT` is set.',
        response: {
          200: { description: 'Prometheus text format.', content: { [PROMETHEUS]: { schema: MetricsText } } },
        },
      },
    },
    async (_request, reply) => {
      return reply.header('content-type', metrics.registry.contentType).send(await metrics.registry.metrics());
    },
  );
}

/**
 * Serves `/metrics` on a separate port if `METRICS_PORT` is set, so that the public port does not expose it.
 * @returns that port; undefined if `/metrics` is on the public port
 */
export async function serveMetrics(
  app: FastifyInstance,
  { HOST: host, METRICS_PORT: port }: Pick<Config, 'HOST' | 'METRICS_PORT'>,
  { logger, metrics, closers }: { readonly logger: Logger; readonly metrics: Metrics; readonly closers: Closers },
): Promise<number | undefined> {
  if (port === undefined) {
    metricsRoute(app, { metrics });
    return undefined;
  }
  const metricsApp = createApp({ logger, trustedProxyHops: 0 });
  acceptZodSchemas(metricsApp);
  metricsRoute(metricsApp, { metrics });
  await metricsApp.listen({ host, port });
  closers.add('metrics server', () => metricsApp.close());
  return (metricsApp.server.address() as AddressInfo).port;
}
