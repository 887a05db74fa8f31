import type { AddressInfo } from 'node:net';
import type { FastifyInstance } from 'fastify';
import type { Config } from '../config.ts';
import type { Closers } from '../lib/closers.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import { createApp } from './app.ts';
import type { Readiness } from './readiness.ts';

const documented = (summary: string) => ({ tags: ['operations'], summary });

/**
 * `/health/live` and `/health/ready`. An auth service that is away does not make a node unready: tokens that were
 * issued are verified here, and taking every node out would turn its outage into ours.
 */
export function registerHealthRoutes(app: FastifyInstance, { readiness }: { readonly readiness: Readiness }): void {
  app.get('/health/live', { schema: documented('Whether the process runs.') }, async () => ({ status: 'live' }));
  const ready = documented('Whether this node should get new connections.');
  app.get('/health/ready', { schema: ready }, async (_request, reply) => {
    const checks = await readiness.check();
    const isReady = checks.redis && !checks.draining;
    return reply.status(isReady ? 200 : 503).send({
      status: isReady ? 'ready' : 'not_ready',
      checks: { redis: checks.redis, auth_service: checks.authService, draining: checks.draining },
    });
  });
}

/** `/metrics`, in the format of Prometheus. */
function metricsRoute(app: FastifyInstance, { metrics }: { readonly metrics: Metrics }): void {
  app.get('/metrics', { schema: documented('Metrics, in the format of Prometheus.') }, async (_request, reply) => {
    return reply.header('content-type', metrics.registry.contentType).send(await metrics.registry.metrics());
  });
}

/**
 * `/metrics` on a port of its own where one is configured, so that the public one does not show them.
 * @returns that port; undefined where they are on the public one
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
  metricsRoute(metricsApp, { metrics });
  await metricsApp.listen({ host, port });
  closers.add('metrics server', () => metricsApp.close());
  return (metricsApp.server.address() as AddressInfo).port;
}
