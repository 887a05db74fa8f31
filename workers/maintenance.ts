import type { Job, Queue } from 'bullmq';
import { QUEUES } from '../src/jobs.ts';
import type { PeriodicTask } from './periodic-tasks.ts';
import type { QueueWorkers } from './queue-workers.ts';

/** Jobs that may wait for a worker. More are not added: the next job of a task makes up for a missed one. */
const MAX_WAITING = 20;
/** Completed jobs are not kept. Failed jobs are kept for operators to see. */
const KEPT = { removeOnComplete: { count: 0 }, removeOnFail: { count: 10 } };

/**
 * Processes the maintenance jobs in BullMQ. A job whose worker dies is taken over as stalled, and failed jobs can be
 * inspected with the tools for BullMQ. Tasks with a period of a second or less do not use a queue, because a job costs
 * some twelve commands.
 *
 * Removes the job schedulers of earlier versions. BullMQ computes the time of the next job with the clock of the worker
 * that takes the current one, and upserting a scheduler keeps that time (bullmq 6.7.0): a worker whose clock is five
 * minutes ahead would postpone a task for five minutes.
 */
export async function startMaintenance(
  { queueWorkers, queue }: { readonly queueWorkers: QueueWorkers; readonly queue: Queue },
  tasks: readonly PeriodicTask[],
): Promise<void> {
  const byName = new Map(tasks.map((task) => [task.name, task]));
  const process = async ({ name }: Job) => byName.get(name)?.run();
  await queueWorkers.start(QUEUES.maintenance, process, { concurrency: tasks.length, ...KEPT });
  for (const { name } of tasks) await queue.removeJobScheduler(name);
}

/** Returns tasks with the same names and periods that add a job for each run instead of doing the work. */
export function queuedTasks(queue: Queue, tasks: readonly PeriodicTask[]): PeriodicTask[] {
  return tasks.map(({ name, everyMs }) => ({
    name,
    everyMs,
    run: async () => {
      if ((await queue.getWaitingCount()) < MAX_WAITING) await queue.add(name, {});
    },
  }));
}
