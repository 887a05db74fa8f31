import type { AgentRunJob } from '../jobs.ts';

/** Queue of the runs that workers execute. */
export interface RunQueue {
  /** Adds the job of a run. A repetition has no effect while the job exists. Rejects if the job was not stored. */
  add(job: AgentRunJob): Promise<void>;
}
