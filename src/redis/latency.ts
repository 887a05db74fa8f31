import type { Clock } from '../lib/clock.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Redis } from './client.ts';

/** Fifteen measurements between two scrapes of Prometheus as it comes, at a cost that cannot be seen. */
const EVERY_MS = 1_000;

/**
 * Measures round trips to Redis on a connection that commands share: a `PING` waits behind whatever waits there, so that
 * this is what every command of the process pays. While the connection is away nothing is measured.
 * @returns what ends it
 */
export function watchRedis(
  redis: Pick<Redis, 'status' | 'ping'>,
  { clock, metrics }: { readonly clock: Clock; readonly metrics: Pick<Metrics, 'redisSeconds' | 'redisFailures'> },
): () => void {
  let isPending = false;
  const look = async () => {
    // One that is slow is not asked again before it has answered.
    if (isPending) return;
    isPending = true;
    const startedAt = performance.now();
    try {
      if (redis.status !== 'ready') throw new Error('not connected');
      await redis.ping();
      metrics.redisSeconds.observe((performance.now() - startedAt) / 1000);
    } catch {
      metrics.redisFailures.inc();
    } finally {
      isPending = false;
    }
  };
  return clock.every(EVERY_MS, () => void look());
}
