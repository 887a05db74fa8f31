import { type Job, Queue, UnrecoverableError, Worker } from 'bullmq';
import { ZodError } from 'zod';
import { loadAgentCatalogue } from '../src/agents/agent-catalogue.ts';
import { builtInAgent } from '../src/agents/built-in/built-in-agent.ts';
import { RunExecutor } from '../src/agents/run-executor.ts';
import { Runs } from '../src/agents/runs.ts';
import { Threads } from '../src/agents/threads.ts';
import { ToolRunner } from '../src/agents/tool-runner.ts';
import { builtInExecutors } from '../src/agents/tools/executors.ts';
import type { Config } from '../src/config.ts';
import { EventLog } from '../src/events/event-log.ts';
import { AgentRunJob, QUEUES, SCHEDULES } from '../src/jobs.ts';
import { type Clock, sleep, systemClock } from '../src/lib/clock.ts';
import { Closers } from '../src/lib/closers.ts';
import { createLogger, type Logger } from '../src/lib/logger.ts';
import { Metrics } from '../src/lib/metrics.ts';
import { Permissions } from '../src/policy/permissions.ts';
import { loadPlans } from '../src/policy/plans.ts';
import { loadToolCatalogue } from '../src/policy/tool-catalogue.ts';
import { connectRedis, disconnectRedis } from '../src/redis/client.ts';
import { Keys } from '../src/redis/keys.ts';
import { Ledger } from '../src/usage/ledger.ts';
import { RecentUsage } from '../src/usage/recent-usage.ts';
import { foldUsage } from './fold-usage.ts';
import { startOperations } from './operations.ts';
import { RunMissing, runAgent } from './run-agent.ts';
import { abandonRun, sweepRuns } from './sweep-runs.ts';

/**
 * A worker that died is noticed when its lock ends, at the next check: its runs are taken over within
 * LOCK_MS + STALLED_CHECK_MS, well inside the 45 s that a run may take.
 */
const LOCK_MS = 10_000;
const STALLED_CHECK_MS = 5_000;
/** What a stopping worker gives the runs it has; those that take longer are taken over by another. */
const CLOSE_PATIENCE_MS = 20_000;
const SCHEDULE_AGAIN_MS = 60_000;
/** Workers that may die under one run before it is given up. */
const MAX_TAKEOVERS = 3;

export interface RunningWorker {
  /** Of the health and metrics server. */
  readonly port: number;
  close(): Promise<void>;
}

/** The composition root of a worker: agent runs, the ledger, and the sweep of runs that nobody works on. */
export async function startWorker(
  config: Config,
  options: { readonly logger?: Logger; readonly clock?: Clock } = {},
): Promise<RunningWorker> {
  const closers = new Closers();
  const logger = options.logger ?? createLogger('worker', config.LOG_LEVEL);
  const clock = options.clock ?? systemClock;
  try {
    const metrics = new Metrics();
    const keys = new Keys(config.REDIS_KEY_PREFIX);
    const redis = await connectRedis(config.REDIS_URL, 'commands', logger);
    closers.add('redis', () => disconnectRedis(redis));
    const subscriber = await connectRedis(config.REDIS_URL, 'subscriber', logger);
    closers.add('subscriber', () => disconnectRedis(subscriber));
    const blocking = await connectRedis(config.REDIS_URL, 'blocking', logger);
    closers.add('blocking redis', () => disconnectRedis(blocking));

    const plans = loadPlans();
    const catalogue = loadToolCatalogue();
    const agents = loadAgentCatalogue();
    const runLimits = { timeoutMs: config.RUN_TIMEOUT_SECONDS * 1000 };
    const runQueue = new Queue(QUEUES.agentRuns, { connection: redis, prefix: keys.queues });
    closers.add('run queue', () => runQueue.close());
    const log = new EventLog(
      { redis, keys, metrics },
      { length: config.EVENT_LOG_LENGTH, maxAgeMs: config.EVENT_LOG_HOURS * 3_600_000 },
    );
    const runs = new Runs({ redis, keys, agents, clock }, runLimits);
    const threads = new Threads({ redis, keys, clock });
    const usage = new RecentUsage({ redis, keys });
    const queueDepth = async () => {
      const { waiting = 0, active = 0, failed = 0 } = await runQueue.getJobCounts('waiting', 'active', 'failed');
      return { waiting, active, failed };
    };
    const executors = builtInExecutors({ redis, keys, clock, plans, agents, threads, usage, queueDepth });
    const permissions = new Permissions({ plans, tools: catalogue });
    const tools = new ToolRunner({ catalogue, permissions, executors, clock, logger });
    const executor = new RunExecutor({ log, agents, agent: builtInAgent, tools, clock, metrics, logger }, runLimits);
    const ledger = new Ledger({ redis, keys });
    const sweep = { runs, log, clock, logger };

    subscriber.on('message', (_channel: string, runId: string) => executor.cancel(runId));
    await subscriber.subscribe(keys.runControl);

    const queued = { connection: blocking, prefix: keys.queues };
    const runWorker = new Worker(QUEUES.agentRuns, (job) => final(runAgent(job.data, { runs, executor, clock })), {
      ...queued,
      concurrency: config.RUN_CONCURRENCY,
      lockDuration: LOCK_MS,
      stalledInterval: STALLED_CHECK_MS,
      maxStalledCount: MAX_TAKEOVERS,
      // A job that stayed would swallow the next one of the same id; whether a run has ended is the run's to know.
      removeOnComplete: { count: 0 },
      removeOnFail: { count: 0 },
    });
    closers.add('run worker', () => closeWorker(runWorker, clock));
    runWorker.on('failed', (job, error) => {
      // A message over the limit leaves a job without a run, as decided in docs/decisions/0002-one-flight.md.
      if (!job || !hasFailedForGood(job) || error instanceof RunMissing) return;
      logger.error({ err: error, job: job.id }, 'a run job failed');
      const payload = AgentRunJob.safeParse(job.data);
      if (payload.success) {
        abandonRun(payload.data, 'INTERNAL_ERROR', sweep).catch((cause) => {
          logger.error({ err: cause, job: job.id }, 'a failed run was not ended; the sweep does it');
        });
      }
    });

    const usageWorker = new Worker(QUEUES.usage, () => foldUsage({ ledger, clock, metrics }), {
      ...queued,
      ...SCHEDULED,
    });
    closers.add('usage worker', () => closeWorker(usageWorker, clock));
    const sweepWorker = new Worker(QUEUES.sweeps, () => sweepRuns(sweep), { ...queued, ...SCHEDULED });
    closers.add('sweep worker', () => closeWorker(sweepWorker, clock));
    for (const worker of [runWorker, usageWorker, sweepWorker]) {
      worker.on('error', (error) => logger.warn({ queue: worker.name, err: error }, 'worker error'));
      await worker.waitUntilReady();
    }
    const schedules = Object.values(SCHEDULES).map(({ queue: name, ...schedule }) => {
      const queue = new Queue(name, { connection: redis, prefix: keys.queues });
      closers.add(`${name} queue`, () => queue.close());
      return { queue, ...schedule };
    });
    const schedule = async () => {
      for (const { queue, name, everyMs } of schedules) await queue.upsertJobScheduler(name, { every: everyMs });
    };
    await schedule();
    // A Redis that lost its data has lost them too.
    const stopScheduling = clock.every(SCHEDULE_AGAIN_MS, () => {
      schedule().catch((error: Error) => logger.warn({ error: error.message }, 'schedules were not renewed'));
    });
    closers.add('schedules', stopScheduling);

    const operations = await startOperations({ config, logger, metrics, redis });
    closers.add('operations', operations.close);
    logger.info({ port: operations.port }, 'listening');
    return { port: operations.port, close: () => closers.close() };
  } catch (error) {
    await closers.close().catch((cause) => logger.warn({ err: cause }, 'closing after a failed start'));
    throw error;
  }
}

/** Waits for the jobs in hand, but not for a Redis that does not come back. */
async function closeWorker(worker: Worker, clock: Clock): Promise<void> {
  await Promise.race([worker.close(), sleep(clock, CLOSE_PATIENCE_MS)]);
}

/** Jobs of a schedule: one at a time, none kept, and a missed one is made up for by the next. */
const SCHEDULED = { concurrency: 1, removeOnComplete: { count: 0 }, removeOnFail: { count: 10 } };

/** A payload that does not parse stays wrong however often it is tried. */
async function final<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof ZodError) throw new UnrecoverableError(error.message);
    throw error;
  }
}

function hasFailedForGood(job: Job): boolean {
  return job.finishedOn !== undefined || job.attemptsMade >= (job.opts.attempts ?? 1);
}
