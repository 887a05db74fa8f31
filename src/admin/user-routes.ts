import type { FastifyInstance } from 'fastify';
import type { Accounts } from '../accounts/accounts.ts';
import { UNNAMED_PLAN } from '../auth/claims.ts';
import type { ConnectionRegistry, ListedConnection } from '../cluster/connection-registry.ts';
import { UserPath } from '../http/admin-schemas.ts';
import { typedRoutes } from '../http/route-docs.ts';
import type { IdentifyService } from '../http/services.ts';
import { newId } from '../lib/ids.ts';
import { NO_MESSAGE_LIMIT } from '../limits/message-limit.ts';
import type { Quotas } from '../limits/quotas.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import type { Runs } from '../runs/runs.ts';
import type { RecentUsage } from '../usage/reports/recent-usage.ts';
import { ACTION_ERRORS, ACTS, QUERY_ERRORS, READS, requires } from './admin-guard.ts';
import type { RunReader } from './run-reader.ts';
import {
  CancelledRun,
  RetriedRun,
  RunBody,
  RunPath,
  RunsBody,
  RunsQuery,
  UserBody,
  UsersBody,
  UsersQuery,
} from './user-schemas.ts';
import type { UserSearch } from './user-search.ts';

const RUNS_SHOWN = 20;
const RUN_ERRORS = ['RUN_NOT_FOUND', 'AGENT_NOT_FOUND', 'QUOTA_EXCEEDED'] as const;

export interface UserRoutesDeps {
  readonly identifyService: IdentifyService;
  readonly redis: Redis;
  readonly keys: Keys;
  readonly accounts: Pick<Accounts, 'read'>;
  readonly registry: Pick<ConnectionRegistry, 'list'>;
  readonly quotas: Pick<Quotas, 'summary'>;
  readonly search: UserSearch;
  readonly reader: RunReader;
  readonly runs: Pick<Runs, 'cancel' | 'start' | 'status'>;
  readonly recentUsage: Pick<RecentUsage, 'since'>;
}

/** Registers the routes about users and runs. */
export function registerUserRoutes(app: FastifyInstance, deps: UserRoutesDeps): void {
  searchRoute(app, deps);
  userRoute(app, deps);
  runRoutes(app, deps);
  runActions(app, deps);
}

function searchRoute(app: FastifyInstance, { identifyService, search, accounts, redis, keys }: UserRoutesDeps): void {
  typedRoutes(app).get(
    '/v1/admin/users',
    {
      ...requires(identifyService, 'admin:read'),
      schema: {
        ...READS,
        operationId: 'searchUsers',
        summary: 'Search users',
        description: `Finds users with an account, connections or an event log. A page reads a bounded part of Redis, so it can be
empty although a later one is not, and can have more users than \`limit\`.`,
        querystring: UsersQuery,
        'x-errors': QUERY_ERRORS,
        response: { 200: UsersBody },
      },
    },
    async ({ query: { query, cursor, limit } }) => {
      const { userIds, next } = await search.page(query, limit, cursor);
      const describe = async (id: string) => {
        const [{ plan = null, blocked }, connections] = await Promise.all([
          accounts.read(id),
          mapRedisErrors(redis.zcard(keys.user(id).leases)),
        ]);
        return { user_id: id, plan, blocked, connections };
      };
      return { users: await Promise.all(userIds.map(describe)), next_cursor: next ?? null };
    },
  );
}

function userRoute(app: FastifyInstance, deps: UserRoutesDeps): void {
  const { identifyService, accounts, registry, reader, quotas, redis, keys } = deps;
  typedRoutes(app).get(
    '/v1/admin/users/:id',
    {
      ...requires(identifyService, 'admin:read'),
      schema: {
        ...READS,
        operationId: 'getUser',
        summary: 'Get a user',
        description:
          'What the gateway stores about a user. The issuer owns the users, so every well-formed id has an answer.',
        params: UserPath,
        'x-errors': QUERY_ERRORS,
        response: { 200: UserBody },
      },
    },
    async ({ params: { id } }) => {
      const user = keys.user(id);
      const [account, { total, connections }, { runs }, [epoch, seq], threads] = await Promise.all([
        accounts.read(id),
        registry.list(id),
        reader.ofUser(id, { agent: undefined, status: undefined }, RUNS_SHOWN, undefined),
        mapRedisErrors(redis.hmget(user.logState, 'epoch', 'seq')),
        mapRedisErrors(redis.zcard(user.threads)),
      ]);
      const plan = account.plan ?? planOfLatest(connections) ?? (await planOfUsage(deps, id)) ?? null;
      const rights = { permissions: [], roles: [], featureFlags: {} };
      const usage = plan === null ? null : await quotas.summary(id, { ...rights, plan });
      const { blocked, revokedBefore } = account;
      return {
        user_id: id,
        account: {
          plan: account.plan ?? null,
          blocked,
          revoked_before: revokedBefore === 0 ? null : new Date(revokedBefore).toISOString(),
        },
        plan,
        connections: [...connections],
        connections_total: total,
        usage: usage && { ...usage },
        threads,
        event_log: { epoch: epoch ?? null, seq: Number(seq ?? 0) },
        runs: runs.map(asResponse),
      };
    },
  );
}

function runRoutes(app: FastifyInstance, { identifyService, reader, runs }: UserRoutesDeps): void {
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

function runActions(app: FastifyInstance, deps: UserRoutesDeps): void {
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

async function retry(deps: UserRoutesDeps, userId: string, runId: string) {
  const { reader, runs, accounts, registry } = deps;
  const [run, account, { connections }] = await Promise.all([
    reader.read(userId, runId),
    accounts.read(userId),
    registry.list(userId),
  ]);
  if (!run) throw new TollgateError('RUN_NOT_FOUND');
  if (run.ended_at === null) throw new TollgateError('FORMAT_ERROR', { text: 'The run has not ended.' });
  if (account.blocked) throw new TollgateError('USER_BLOCKED');
  const { agent, thread_id: threadId, transport } = run;
  const message = await reader.message(userId, runId, threadId);
  if (message === undefined) {
    throw new TollgateError('RUN_NOT_FOUND', { text: 'The message of the run is no longer stored.' });
  }
  const plan = account.plan ?? planOfLatest(connections) ?? (await planOfUsage(deps, userId)) ?? UNNAMED_PLAN;
  const identity = {
    plan,
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

/** Returns the plan that the token of the latest connection named; undefined without one. */
function planOfLatest(connections: readonly ListedConnection[]): string | undefined {
  const openedAt = ({ opened_at = '' }: ListedConnection) => opened_at;
  return connections.toSorted((one, other) => (openedAt(one) < openedAt(other) ? 1 : -1))[0]?.plan;
}

/** Returns the plan of the user's latest usage record, which the token of the user named; undefined without one. */
async function planOfUsage({ recentUsage }: UserRoutesDeps, userId: string): Promise<string | undefined> {
  return (await recentUsage.since(userId, new Date(0)))[0]?.plan;
}

function asResponse<Run extends { readonly status: string }>(run: Run) {
  return { ...run, status: run.status as 'queued' };
}
