import type { AgentRunJob } from '../jobs.ts';

/** Queue of the runs that workers execute. */
export interface RunQueue {
  /**
   * Adds a job for a run. A repetition has no effect while the job exists. Rejects if the job was not stored.
   * @param wakeUp what ended the wait of the run, for a job that continues it: its earlier job may still exist
   */
  add(job: AgentRunJob, wakeUp?: string): Promise<void>;
}
