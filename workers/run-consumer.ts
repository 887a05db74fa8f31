import type { AgentRunJob } from '../src/jobs.ts';
import { type Clock, sleep } from '../src/lib/clock.ts';
import type { Logger } from '../src/lib/logger.ts';
import type { Redis } from '../src/redis/client.ts';
import type { QueuedRun } from '../src/runs/run-queue.ts';
import { isGroupMissing, type StreamRunQueue } from '../src/runs/stream-run-queue.ts';

/** Wait of one read. A closing worker waits for the read in progress, so that no run is delivered to it and lost. */
const READ_WAIT_MS = 1_000;
/** Maximum number of runs per read, so that a burst is distributed over all workers. */
const MAX_PER_READ = 10;
/** Pause after a failed read: Redis is unavailable. */
const ERROR_PAUSE_MS = 500;
/** Attempts per delivery. A run may arrive before it is stored, or lose Redis before its end. */
const ATTEMPTS = 3;
const ATTEMPT_PAUSE_MS = 250;
/**
 * Maximum number of runs that pause between attempts. Those above it are delivered again like those of a dead worker.
 */
const MAX_PAUSED = 1_000;

export interface RunConsumerDeps {
  readonly queue: StreamRunQueue;
  /** A connection of its own, on which the reads wait. */
  readonly blocking: Redis;
  readonly clock: Clock;
  readonly logger: Logger;
  /**
   * Executes a run. Rejects to be called again, at most `ATTEMPTS` times per delivery.
   * @param takeovers number of workers that died while they executed the run
   */
  readonly execute: (run: QueuedRun, takeovers: number) => Promise<unknown>;
  /** Returns whether another attempt is useless after this error of `execute`. */
  readonly isFinal: (error: unknown) => boolean;
  /** Called when every attempt failed, or one failed for good. Never rejects. */
  readonly onFailed: (job: AgentRunJob, error: unknown) => Promise<void>;
}

export interface RunConsumerOptions {
  /** Maximum number of runs in progress. */
  readonly concurrency: number;
  /** A run whose worker has not renewed it for this long is taken over. */
  readonly lockMs: number;
  /** Interval of the search for runs of dead workers. */
  readonly takeoverCheckMs: number;
}

/** A run in progress on this worker, also while it pauses between two attempts. */
interface Held {
  readonly run: QueuedRun;
  readonly since: number;
}

/** Receives runs from the queue and executes them concurrently; takes over the runs of dead workers. */
export class RunConsumer {
  readonly #deps: RunConsumerDeps;
  readonly #options: RunConsumerOptions;
  readonly #held = new Map<string, Held>();
  readonly #work = new Set<Promise<void>>();
  #executing = 0;
  #paused = 0;
  #closing = false;
  #freed: () => void = () => undefined;
  #reading: Promise<void> = Promise.resolve();
  #stopTimers: () => void = () => undefined;

  constructor(deps: RunConsumerDeps, options: RunConsumerOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Resolves when Redis has the queue. */
  async start(): Promise<void> {
    const { clock, queue } = this.#deps;
    await queue.prepare();
    const stops = [
      clock.every(this.#options.lockMs / 4, () => void this.#renew()),
      clock.every(this.#options.takeoverCheckMs, () => void this.#takeOver()),
    ];
    this.#stopTimers = () => {
      for (const stop of stops) stop();
    };
    this.#reading = this.#read();
  }

  /** Takes no more runs, and waits for those in progress. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#freed();
    await this.#reading;
    while (this.#work.size > 0) await Promise.all(this.#work);
    this.#stopTimers();
  }

  get #free(): number {
    return this.#options.concurrency - this.#executing;
  }

  async #read(): Promise<void> {
    const { queue, blocking, clock, logger } = this.#deps;
    while (!this.#closing) {
      if (this.#free <= 0) {
        await new Promise<void>((resolve) => {
          this.#freed = resolve;
        });
        continue;
      }
      try {
        for (const run of await queue.take(blocking, Math.min(this.#free, MAX_PER_READ), READ_WAIT_MS))
          this.#begin(run);
      } catch (error) {
        if (this.#closing) return;
        logger.warn({ queue: 'agent-runs', err: error }, 'queue worker error');
        await sleep(clock, ERROR_PAUSE_MS);
        if (isGroupMissing(error)) await queue.prepare().catch(() => undefined);
      }
    }
  }

  async #takeOver(): Promise<void> {
    const { queue, logger } = this.#deps;
    if (this.#closing || this.#free <= 0) return;
    try {
      const runs = await queue.takeOver(Math.min(this.#free, MAX_PER_READ), this.#options.lockMs);
      for (const run of runs) this.#begin(run);
    } catch (error) {
      logger.debug({ err: error }, 'the search for runs of dead workers failed');
    }
  }

  #begin(run: QueuedRun): void {
    // This process was suspended, and found its own run.
    if (this.#held.has(run.id)) return;
    this.#held.set(run.id, { run, since: this.#deps.clock.now() });
    this.#track(this.#attempt(run, 1));
  }

  #track(work: Promise<void>): void {
    const tracked = work.finally(() => this.#work.delete(tracked));
    this.#work.add(tracked);
  }

  async #attempt(run: QueuedRun, attempt: number): Promise<void> {
    const { onFailed, logger } = this.#deps;
    this.#executing += 1;
    try {
      await this.#deps.execute(run, await this.#takeovers(run, attempt));
    } catch (error) {
      if (attempt < ATTEMPTS && !this.#deps.isFinal(error)) return this.#pause(run, attempt);
      await onFailed(run.job, error);
    } finally {
      this.#executing -= 1;
      this.#freed();
    }
    this.#held.delete(run.id);
    // Without the removal the run is delivered once more, and found to have ended.
    await this.#deps.queue.end(run.id).catch((error: unknown) => logger.debug({ err: error }, 'run was not removed'));
  }

  /** The number of a run that was taken over is read once, at its first attempt. */
  async #takeovers({ id, isTakenOver }: QueuedRun, attempt: number): Promise<number> {
    if (!isTakenOver || attempt > 1) return 0;
    return (await this.#deps.queue.deliveries(id)) - 1;
  }

  /** Waits without a slot: jobs without a run, which any refused message leaves, must not delay others. */
  #pause(run: QueuedRun, attempt: number): void {
    if (this.#paused >= MAX_PAUSED || this.#closing) {
      this.#held.delete(run.id);
      return;
    }
    this.#paused += 1;
    this.#track(
      sleep(this.#deps.clock, ATTEMPT_PAUSE_MS).then(() => {
        this.#paused -= 1;
        return this.#attempt(run, attempt + 1);
      }),
    );
  }

  /** Renews what has been in progress for a while. A short run is never renewed. */
  async #renew(): Promise<void> {
    const { queue, clock, logger } = this.#deps;
    const before = clock.now() - this.#options.lockMs / 4;
    const due = [...this.#held.values()].filter(({ since }) => since <= before);
    await queue.renew(due.map(({ run }) => run.id)).catch((error: unknown) => {
      logger.debug({ err: error }, 'renewal of runs failed');
    });
  }
}
