import { QUEUES } from '../src/jobs.ts';
import type { Clock } from '../src/lib/clock.ts';
import type { Logger } from '../src/lib/logger.ts';
import type { Metrics } from '../src/lib/metrics.ts';
import type { QueueLoad } from '../src/runs/run-admission.ts';
import type { RunCounts } from '../src/runs/run-queue.ts';

/** A third of the usual 15 s scrape interval of Prometheus. Each sample costs one round trip. */
const EVERY_MS = 5_000;
/** The same while runs wait, or may wait: gateways refuse runs by these samples. */
const BUSY_EVERY_MS = 500;
/** `delayed` is always 0: dashboards of earlier versions read it. */
const STATES = ['waiting', 'active', 'delayed'] as const;
const QUEUE = QUEUES.agentRuns;
/** Bound of the expected wait: an autoscaler needs no larger number to add all the workers that it may. */
const LONGEST_WAIT_SECONDS = 3_600;

interface QueueWatchDeps {
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly logger: Logger;
  /** Time for which a run occupies a slot of this worker. */
  readonly durations: { readonly meanMs: number | undefined; readonly executing: number };
  /** Reports the queue to the gateways. */
  readonly report: (load: QueueLoad) => Promise<void>;
}

/**
 * Maintains `tollgate_queue_jobs` and `tollgate_run_queue_wait_seconds` of the run queue, by which workers are scaled,
 * and reports the queue to the gateways from the first waiting run until none waits. While Redis is unavailable the
 * series are removed, because an autoscaler would treat an old value as current.
 * @param options.concurrency runs that this worker executes at a time
 * @returns a function that stops the watch
 */
export function watchQueue(
  queue: { counts(): Promise<RunCounts> },
  { clock, metrics, logger, durations, report }: QueueWatchDeps,
  { concurrency }: { readonly concurrency: number },
): () => void {
  let isPending = false;
  let wasWaiting = false;
  let sampledAt = Number.NEGATIVE_INFINITY;
  const look = async () => {
    // If Redis is slow, the next sample waits for the reply.
    if (isPending) return;
    isPending = true;
    sampledAt = clock.now();
    try {
      const { waiting, active } = await queue.counts();
      const counts = { waiting, active, delayed: 0 };
      for (const state of STATES) metrics.queueJobs.set({ queue: QUEUE, state }, counts[state]);
      const wait = expectedWaitSeconds({ waiting, active, concurrency, meanMs: durations.meanMs });
      if (wait === undefined) metrics.runQueueWaitSeconds.remove();
      else metrics.runQueueWaitSeconds.set(wait);
      const isReported = (waiting > 0 || wasWaiting) && durations.meanMs !== undefined;
      wasWaiting = waiting > 0;
      if (isReported) await report({ waiting, slots: Math.max(active, concurrency), mean_ms: durations.meanMs ?? 0 });
    } catch (error) {
      for (const state of STATES) metrics.queueJobs.remove({ queue: QUEUE, state });
      metrics.runQueueWaitSeconds.remove();
      logger.debug({ err: error, queue: QUEUE }, 'job count of queue failed');
    } finally {
      isPending = false;
    }
  };
  void look();
  return clock.every(BUSY_EVERY_MS, () => {
    const isBusy = wasWaiting || durations.executing >= concurrency;
    const age = clock.now() - sampledAt;
    // Negative after the clock was set back.
    if (isBusy || age < 0 || age >= EVERY_MS - BUSY_EVERY_MS / 2) void look();
  });
}

/**
 * Returns the seconds until a run that is added now gets a slot: waiting runs times their mean duration, divided by the
 * slots of all workers. While runs wait, every slot is occupied, so the number of active runs is the number of slots;
 * it is at least the number of this worker's own, which a moment without active runs does not change.
 * @returns undefined if runs wait and this worker has not executed any yet; at most `LONGEST_WAIT_SECONDS`
 */
export function expectedWaitSeconds(queue: {
  readonly waiting: number;
  readonly active: number;
  readonly concurrency: number;
  readonly meanMs: number | undefined;
}): number | undefined {
  const { waiting, active, concurrency, meanMs } = queue;
  if (waiting === 0) return 0;
  if (meanMs === undefined) return undefined;
  return Math.min((waiting * meanMs) / 1_000 / Math.max(active, concurrency), LONGEST_WAIT_SECONDS);
}
