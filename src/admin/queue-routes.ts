import { Queue } from 'bullmq';
import type { FastifyInstance } from 'fastify';
import { typedRoutes } from '../http/route-docs.ts';
import type { IdentifyService } from '../http/services.ts';
import { QUEUES } from '../jobs.ts';
import type { Closers } from '../lib/closers.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import type { StreamRunQueue } from '../runs/stream-run-queue.ts';
import { ACTION_ERRORS, ACTS, READ_ERRORS, READS, requires } from './admin-guard.ts';
import { JobPath, QueuesBody, RetriedJob } from './user-schemas.ts';

/** Failed jobs that are listed, the newest first. */
const FAILED_LISTED = 50;
const REASON_CHARS = 500;

export interface QueueRoutesDeps {
  readonly identifyService: IdentifyService;
  readonly redis: Redis;
  readonly keys: Keys;
  readonly closers: Closers;
  readonly runQueue: Pick<StreamRunQueue, 'counts'>;
}

/** Registers the routes about the run queue and the jobs of the maintenance queue. */
export function registerQueueRoutes(app: FastifyInstance, deps: QueueRoutesDeps): void {
  const maintenance = lazyQueue(deps);
  listRoute(app, deps, maintenance);
  retryRoute(app, deps, maintenance);
}

function listRoute(
  app: FastifyInstance,
  { identifyService, runQueue }: QueueRoutesDeps,
  maintenance: () => Queue,
): void {
  typedRoutes(app).get(
    '/v1/admin/queues',
    {
      ...requires(identifyService, 'admin:read'),
      schema: {
        ...READS,
        operationId: 'listQueues',
        summary: 'List the queues',
        description: `Runs that wait for a worker, jobs of the maintenance queue, and the latest ${FAILED_LISTED} jobs that failed.`,
        'x-errors': READ_ERRORS,
        response: { 200: QueuesBody },
      },
    },
    () => readQueues(runQueue, maintenance()),
  );
}

/** @throws RedisUnavailable */
async function readQueues(runQueue: QueueRoutesDeps['runQueue'], maintenance: Queue) {
  const [runs, jobs, failed] = await Promise.all([
    runQueue.counts(),
    mapRedisErrors(maintenance.getJobCounts('waiting', 'active', 'delayed', 'failed')),
    mapRedisErrors(maintenance.getFailed(0, FAILED_LISTED - 1)),
  ]);
  const { waiting = 0, active = 0, delayed = 0, failed: total = 0 } = jobs;
  return {
    queues: [
      { name: QUEUES.agentRuns, ...runs, delayed: 0, failed: 0 },
      { name: QUEUES.maintenance, waiting, active, delayed, failed: total },
    ],
    failed: failed.map(({ id, name, failedReason, attemptsMade, finishedOn }) => ({
      queue: QUEUES.maintenance,
      job_id: id ?? '',
      name,
      reason: (failedReason ?? '').slice(0, REASON_CHARS),
      attempts: attemptsMade,
      at: finishedOn === undefined ? null : new Date(finishedOn).toISOString(),
    })),
  };
}

function retryRoute(app: FastifyInstance, { identifyService }: QueueRoutesDeps, maintenance: () => Queue): void {
  typedRoutes(app).post(
    '/v1/admin/queues/maintenance/jobs/:job_id/retry',
    {
      ...requires(identifyService, 'admin'),
      schema: {
        ...ACTS,
        operationId: 'retryJob',
        summary: 'Retry a failed job',
        description: 'Adds a failed job of the maintenance queue to the waiting ones again.',
        params: JobPath,
        'x-errors': [...ACTION_ERRORS, 'RECORD_NOT_FOUND'],
        response: { 202: RetriedJob },
      },
    },
    async ({ params: { job_id: id } }, reply) => {
      const job = await mapRedisErrors(maintenance().getJob(id));
      if (!job || !(await job.isFailed())) throw new TollgateError('RECORD_NOT_FOUND', { text: 'No such failed job.' });
      await mapRedisErrors(job.retry('failed'));
      return reply.status(202).send({ job_id: id, outcome: 'requested' });
    },
  );
}

/** Opens the queue at its first use: most nodes never show it. */
function lazyQueue({ redis, keys, closers }: QueueRoutesDeps): () => Queue {
  let queue: Queue | undefined;
  return () => {
    if (!queue) {
      const opened = new Queue(QUEUES.maintenance, { connection: redis, prefix: keys.queues });
      // Without a listener, an error of the connection would end the process.
      opened.on('error', () => undefined);
      closers.add('maintenance queue', () => opened.close());
      queue = opened;
    }
    return queue;
  };
}
