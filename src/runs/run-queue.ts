import type { AgentRunJob } from '../jobs.ts';

/** Queue of the runs that workers execute. */
export interface RunQueue {
  /** Adds the job of a run. A second job of a run that a worker executes has no effect. Rejects if it was not stored. */
  add(job: AgentRunJob): Promise<void>;
}

/** A job of the queue, delivered to this worker. */
export interface QueuedRun {
  /** Identifies the job, also in later deliveries. */
  readonly id: string;
  readonly job: AgentRunJob;
  /** Whether another worker had received it and did not end it. */
  readonly isTakenOver: boolean;
}

export interface RunCounts {
  /** Runs that no worker has received yet. */
  readonly waiting: number;
  /** Runs that workers have received and not ended. */
  readonly active: number;
}
