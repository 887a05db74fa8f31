import type { Clock } from '../lib/clock.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Redis } from './client.ts';

/** Gives 15 measurements per scrape at the default Prometheus interval, at a negligible cost. */
const EVERY_MS = 1_000;

/**
 * Measures round trips to Redis once per second, on the connection that all commands of the process share. A `PING`
 * queues behind pending commands, so it measures the latency that every command experiences. A ping that fails, or that
 * the connection cannot send, counts as a failure instead.
 * @returns a function that stops the measurement
 */
export function watchRedis(
  redis: Pick<Redis, 'status' | 'ping'>,
  { clock, metrics }: { readonly clock: Clock; readonly metrics: Pick<Metrics, 'redisSeconds' | 'redisFailures'> },
): () => void {
  let isPending = false;
  const look = async () => {
    // At most one ping is pending.
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
