import type { Queue } from 'bullmq';
import type { Clock } from '../src/lib/clock.ts';
import type { Logger } from '../src/lib/logger.ts';
import type { Metrics } from '../src/lib/metrics.ts';

/** A third of the usual 15 s scrape interval of Prometheus. Each sample costs one round trip. */
const EVERY_MS = 5_000;
const STATES = ['waiting', 'active', 'delayed'] as const;

/**
 * Maintains `tollgate_queue_jobs` of a queue, by which workers are scaled. While Redis is unavailable the series is
 * removed, because an autoscaler would treat an old value as current.
 * @returns a function that stops the watch
 */
export function watchQueue(
  queue: Pick<Queue, 'name' | 'getJobCounts'>,
  { clock, metrics, logger }: { readonly clock: Clock; readonly metrics: Metrics; readonly logger: Logger },
): () => void {
  let isPending = false;
  const look = async () => {
    // If Redis is slow, the next sample waits for the reply.
    if (isPending) return;
    isPending = true;
    try {
      const counts = await queue.getJobCounts(...STATES);
      for (const state of STATES) metrics.queueJobs.set({ queue: queue.name, state }, counts[state] ?? 0);
    } catch (error) {
      for (const state of STATES) metrics.queueJobs.remove({ queue: queue.name, state });
      logger.debug({ err: error, queue: queue.name }, 'job count of queue failed');
    } finally {
      isPending = false;
    }
  };
  void look();
  return clock.every(EVERY_MS, () => void look());
}
