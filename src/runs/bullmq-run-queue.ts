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

  async add(job: AgentRunJob): Promise<void> {
    // The run id is the job id, so BullMQ ignores a repetition while the job exists.
    await this.#queue.add('run', job, { jobId: job.run_id, ...AGENT_RUN_ATTEMPTS });
  }
}
