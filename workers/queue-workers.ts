import { type Job, Worker } from 'bullmq';
import { type Clock, sleep } from '../src/lib/clock.ts';
import type { Logger } from '../src/lib/logger.ts';
import type { Redis } from '../src/redis/client.ts';

/** Time for all jobs in progress together; another worker takes over those that need longer. */
export const CLOSE_TIMEOUT_MS = 20_000;

interface QueueWorkersDeps {
  readonly blocking: Redis;
  readonly prefix: string;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * The workers of one process, of BullMQ and of the run queue. They close together, so that the time of a shutdown does
 * not grow with the queues.
 */
export class QueueWorkers {
  readonly #deps: QueueWorkersDeps;
  readonly #workers: { close(): Promise<void> }[] = [];

  constructor(deps: QueueWorkersDeps) {
    this.#deps = deps;
  }

  /** Starts to process a queue, and resolves when Redis has answered. */
  async start(queue: string, process: (job: Job) => Promise<unknown>, options: object): Promise<Worker> {
    const { blocking, prefix, logger } = this.#deps;
    const worker = new Worker(queue, process, { connection: blocking, prefix, ...options });
    worker.on('error', (error) => logger.warn({ queue, error: error.message }, 'queue worker error'));
    this.#workers.push(worker);
    await worker.waitUntilReady();
    return worker;
  }

  /** Closes a worker with the others. */
  add(worker: { close(): Promise<void> }): void {
    this.#workers.push(worker);
  }

  /** Takes no more jobs, and waits for those in progress: at most `CLOSE_TIMEOUT_MS`, also if Redis is unavailable. */
  async close(): Promise<void> {
    const closing = this.#workers.map((worker) => worker.close());
    // A failure to close must not keep the other workers from waiting for their jobs.
    const closed = Promise.allSettled(closing).then((results) => {
      for (const result of results) {
        if (result.status === 'rejected') this.#deps.logger.warn({ err: result.reason }, 'queue worker did not close');
      }
    });
    await Promise.race([closed, sleep(this.#deps.clock, CLOSE_TIMEOUT_MS)]);
  }
}
