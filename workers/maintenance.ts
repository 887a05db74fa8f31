import type { Job, Queue } from 'bullmq';
import { QUEUES } from '../src/jobs.ts';
import type { Clock } from '../src/lib/clock.ts';
import type { Closers } from '../src/lib/closers.ts';
import type { Logger } from '../src/lib/logger.ts';
import type { Redis } from '../src/redis/client.ts';
import type { PeriodicTask } from './periodic-tasks.ts';
import type { QueueWorkers } from './queue-workers.ts';

/** Interval at which the job schedules are written again. */
const SCHEDULE_AGAIN_MS = 60_000;
/** Completed jobs are not kept; the next job makes up for a missed one. Failed jobs are kept for operators to see. */
const KEPT = { removeOnComplete: { count: 0 }, removeOnFail: { count: 10 } };

interface MaintenanceDeps {
  readonly queueWorkers: QueueWorkers;
  readonly openQueue: (name: string) => Queue;
  readonly redis: Redis;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly closers: Closers;
}

/**
 * Processes and schedules the maintenance jobs in BullMQ: per period, one worker runs each. A job whose worker dies is
 * taken over as stalled, and failed jobs can be inspected with the tools for BullMQ. Tasks with a period of a second or
 * less are `PeriodicTasks`, because a job costs some twelve commands.
 */
export async function startMaintenance(deps: MaintenanceDeps, tasks: readonly PeriodicTask[]): Promise<void> {
  const { queueWorkers, openQueue, redis, clock, logger, closers } = deps;
  const byName = new Map(tasks.map((task) => [task.name, task]));
  const process = async ({ name }: Job) => byName.get(name)?.run();
  await queueWorkers.start(QUEUES.maintenance, process, { concurrency: tasks.length, ...KEPT });
  const queue = openQueue(QUEUES.maintenance);
  const schedule = async () => {
    for (const { name, everyMs } of tasks) await queue.upsertJobScheduler(name, { every: everyMs }, { name });
  };
  await schedule();
  // A Redis that lost its data has lost the schedules too.
  const renew = () => {
    schedule().catch((error: Error) => logger.warn({ error: error.message }, 'renewal of job schedules failed'));
  };
  const stop = clock.every(SCHEDULE_AGAIN_MS, renew);
  redis.on('ready', renew);
  closers.add('schedules', () => {
    stop();
    redis.off('ready', renew);
  });
}
