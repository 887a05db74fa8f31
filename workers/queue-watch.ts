import type { Queue } from 'bullmq';
import type { Clock } from '../src/lib/clock.ts';
import type { Logger } from '../src/lib/logger.ts';
import type { Metrics } from '../src/lib/metrics.ts';

/** A third of the time between two scrapes of Prometheus as it comes, and one round trip. */
const EVERY_MS = 5_000;
const STATES = ['waiting', 'active', 'delayed'] as const;

/**
 * Keeps `tollgate_queue_jobs` of a queue: what workers are scaled by. While Redis is away there is no value, since an old
 * one would be taken for the present.
 * @returns what ends it
 */
export function watchQueue(
  queue: Pick<Queue, 'name' | 'getJobCounts'>,
  { clock, metrics, logger }: { readonly clock: Clock; readonly metrics: Metrics; readonly logger: Logger },
): () => void {
  let isPending = false;
  const look = async () => {
    // A Redis that is slow is not asked again before it has answered.
    if (isPending) return;
    isPending = true;
    try {
      const counts = await queue.getJobCounts(...STATES);
      for (const state of STATES) metrics.queueJobs.set({ queue: queue.name, state }, counts[state] ?? 0);
    } catch (error) {
      for (const state of STATES) metrics.queueJobs.remove({ queue: queue.name, state });
      logger.debug({ err: error, queue: queue.name }, 'the jobs of a queue were not counted');
    } finally {
      isPending = false;
    }
  };
  void look();
  return clock.every(EVERY_MS, () => void look());
}
