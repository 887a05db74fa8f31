import type { Config } from '../src/config.ts';
import { createApp } from '../src/http/app.ts';
import type { Logger } from '../src/lib/logger.ts';
import type { Metrics } from '../src/lib/metrics.ts';
import { isResponsive, type Redis } from '../src/redis/client.ts';

const TIMEOUT_MS = 1_000;

/** Serves the health checks and metrics of the worker on `WORKER_PORT`. */
export async function startOperations(deps: {
  readonly config: Config;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly redis: Redis;
}): Promise<{ port: number; close: () => Promise<void> }> {
  const { config, logger, metrics, redis } = deps;
  const app = createApp({ logger, trustedProxyHops: 0 });
  app.get('/health/live', async () => ({ status: 'live' }));
  app.get('/health/ready', async (_request, reply) => {
    const ready = await isResponsive(redis, TIMEOUT_MS);
    return reply.status(ready ? 200 : 503).send({ status: ready ? 'ready' : 'not_ready', checks: { redis: ready } });
  });
  app.get('/metrics', async (_request, reply) => {
    return reply.header('content-type', metrics.registry.contentType).send(await metrics.registry.metrics());
  });
  await app.listen({ host: config.HOST, port: config.WORKER_PORT });
  const address = app.server.address();
  const port = typeof address === 'object' && address ? address.port : config.WORKER_PORT;
  return { port, close: async () => app.close() };
}
