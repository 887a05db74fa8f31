import type { FastifyInstance } from 'fastify';
import { UNNAMED_PLAN } from '../auth/claims.ts';
import { typedRoutes } from '../http/route-docs.ts';
import type { IdentifyService } from '../http/services.ts';
import { newId } from '../lib/ids.ts';
import { NO_MESSAGE_LIMIT } from '../limits/message-limit.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Runs } from '../runs/runs.ts';
import { ACTION_ERRORS, ACTS, QUERY_ERRORS, READS, requires } from './admin-guard.ts';
import type { RunReader } from './run-reader.ts';
import type { UserReader } from './user-reader.ts';
import { CancelledRun, RetriedRun, RunBody, RunPath, RunsBody, RunsQuery } from './user-schemas.ts';

const RUN_ERRORS = ['RUN_NOT_FOUND', 'AGENT_NOT_FOUND', 'QUOTA_EXCEEDED'] as const;

export interface RunRoutesDeps {
  readonly identifyService: IdentifyService;
  readonly reader: RunReader;
  readonly users: Pick<UserReader, 'account'>;
  readonly runs: Pick<Runs, 'cancel' | 'start' | 'status'>;
}

/** Registers the routes about runs. */
export function registerRunRoutes(app: FastifyInstance, deps: RunRoutesDeps): void {
  runRoutes(app, deps);
  runActions(app, deps);
}

function runRoutes(app: FastifyInstance, { identifyService, reader, runs }: RunRoutesDeps): void {
  const routes = typedRoutes(app);
  routes.get(
    '/v1/admin/runs',
    {
      ...requires(identifyService, 'admin:read'),
      schema: {
        ...READS,
        operationId: 'listRuns',
        summary: 'List runs',
        description: `The runs of a user of the last day, newest first. Without \`user_id\`, the runs of all users that have not
ended, then those of the last day that failed or were cancelled, newest first.`,
        querystring: RunsQuery,
        'x-errors': QUERY_ERRORS,
        response: { 200: RunsBody },
      },
    },
    async ({ query: { user_id: userId, agent, status, cursor, limit } }) => {
      const filter = { agent, status };
      const page =
        userId === undefined
          ? await reader.ofAll(filter, limit, cursor)
          : await reader.ofUser(userId, filter, limit, cursor);
      return { runs: page.runs.map(asResponse), next_cursor: page.next };
    },
  );
  routes.get(
    '/v1/admin/users/:id/runs/:run_id',
    {
      ...requires(identifyService, 'admin:read'),
      schema: {
        ...READS,
        operationId: 'getRunTimeline',
        summary: 'Get a run with its events',
        description: 'The run and its events as far as the event log of the user has them.',
        params: RunPath,
        'x-errors': [...QUERY_ERRORS, 'RUN_NOT_FOUND'],
        response: { 200: RunBody },
      },
    },
    async ({ params: { id, run_id: runId } }) => {
      const [run, timeline, status] = await Promise.all([
        reader.read(id, runId),
        reader.events(id, runId),
        runs.status(id, runId),
      ]);
      if (!run) throw new TollgateError('RUN_NOT_FOUND');
      const answer = 'final_response' in status ? status.final_response : null;
      return { run: { ...asResponse(run), final_response: answer ?? null }, ...timeline };
    },
  );
}

function runActions(app: FastifyInstance, deps: RunRoutesDeps): void {
  const { identifyService, runs } = deps;
  const routes = typedRoutes(app);
  routes.post(
    '/v1/admin/users/:id/runs/:run_id/cancel',
    {
      ...requires(identifyService, 'admin'),
      schema: {
        ...ACTS,
        operationId: 'cancelRunOfUser',
        summary: 'Cancel a run',
        description: 'Requests the cancellation, as the user can. A run that has ended stays as it is.',
        params: RunPath,
        'x-errors': [...ACTION_ERRORS, 'RUN_NOT_FOUND'],
        response: { 202: CancelledRun },
      },
    },
    async ({ params: { id, run_id: runId } }, reply) => {
      const outcome = await runs.cancel(id, runId, NO_MESSAGE_LIMIT);
      if (outcome === 'missing') throw new TollgateError('RUN_NOT_FOUND');
      return reply.status(202).send({ run_id: runId, outcome: 'requested' });
    },
  );
  routes.post(
    '/v1/admin/users/:id/runs/:run_id/retry',
    {
      ...requires(identifyService, 'admin'),
      schema: {
        ...ACTS,
        operationId: 'retryRun',
        summary: 'Retry a run',
        description: `Starts a run with the message, agent and thread of one that has ended, with the rights and limits of the
user's plan. A repetition returns the same run.`,
        params: RunPath,
        'x-errors': [...ACTION_ERRORS, ...RUN_ERRORS],
        response: { 202: RetriedRun },
      },
    },
    async ({ params: { id, run_id: runId } }, reply) => {
      const { run_id, thread_id } = await retry(deps, id, runId);
      return reply.status(202).send({ run_id, thread_id, retry_of: runId });
    },
  );
}

async function retry(deps: RunRoutesDeps, userId: string, runId: string) {
  const { reader, runs, users } = deps;
  const [run, { account, plan: known }] = await Promise.all([reader.read(userId, runId), users.account(userId)]);
  if (!run) throw new TollgateError('RUN_NOT_FOUND');
  if (run.ended_at === null) throw new TollgateError('FORMAT_ERROR', { text: 'The run has not ended.' });
  if (account.blocked) throw new TollgateError('USER_BLOCKED');
  const { agent, thread_id: threadId, transport } = run;
  const message = await reader.message(userId, runId, threadId);
  if (message === undefined) {
    throw new TollgateError('RUN_NOT_FOUND', { text: 'The message of the run is no longer stored.' });
  }
  const identity = {
    plan: known ?? UNNAMED_PLAN,
    permissions: [],
    roles: [],
    featureFlags: {},
    userId,
    email: undefined,
    sessionId: undefined,
    tokenId: '',
    tokenIssuedAt: 0,
    tokenExpiresAt: 0,
    method: 'run' as const,
  };
  const ids = { requestId: `retry_${runId}`, runId: newId('run'), threadId, connectionId: '' };
  return runs.start({ identity, ...ids, agent, message, transport, degraded: false }, NO_MESSAGE_LIMIT);
}

export function asResponse<Run extends { readonly status: string }>(run: Run) {
  return { ...run, status: run.status as 'queued' };
}
