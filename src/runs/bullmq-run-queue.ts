import type { Queue } from 'bullmq';
import { AGENT_RUN_ATTEMPTS, type AgentRunJob } from '../jobs.ts';
import type { RunQueue } from './run-queue.ts';

/** The run queue in BullMQ. */
export class BullMqRunQueue implements RunQueue {
  readonly #queue: Pick<Queue<AgentRunJob>, 'add'>;

  /** @param queue the queue `QUEUES.agentRuns` */
  constructor(queue: Pick<Queue<AgentRunJob>, 'add'>) {
    this.#queue = queue;
  }

  async add(job: AgentRunJob, wakeUp?: string): Promise<void> {
    // The job id is derived from the run id, so BullMQ ignores a repetition while the job exists.
    const jobId = wakeUp === undefined ? job.run_id : `${job.run_id}-${wakeUp}`;
    await this.#queue.add('run', job, { jobId, ...AGENT_RUN_ATTEMPTS });
  }
}
