import type { FastifyInstance } from 'fastify';
import { UserPath } from '../http/admin-schemas.ts';
import { typedRoutes } from '../http/route-docs.ts';
import type { IdentifyService } from '../http/services.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import { QUERY_ERRORS, READS, requires } from './admin-guard.ts';
import type { RunReader } from './run-reader.ts';
import { asResponse } from './run-routes.ts';
import type { UserReader } from './user-reader.ts';
import { RefusedUsersBody, RefusedUsersQuery, UserBody, UsersBody, UsersQuery } from './user-schemas.ts';
import type { UserSearch } from './user-search.ts';

const RUNS_SHOWN = 20;

export interface UserRoutesDeps {
  readonly identifyService: IdentifyService;
  readonly redis: Redis;
  readonly keys: Keys;
  readonly search: UserSearch;
  readonly users: UserReader;
  readonly reader: RunReader;
}

/** Registers the routes about users. */
export function registerUserRoutes(app: FastifyInstance, deps: UserRoutesDeps): void {
  searchRoute(app, deps);
  refusedRoute(app, deps);
  userRoute(app, deps);
}

function searchRoute(app: FastifyInstance, { identifyService, search, users }: UserRoutesDeps): void {
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
        const { account, plan = null, email = null, connectionsTotal: connections } = await users.account(id);
        return { user_id: id, email, plan, blocked: account.blocked, connections };
      };
      return { users: await Promise.all(userIds.map(describe)), next_cursor: next ?? null };
    },
  );
}

function refusedRoute(app: FastifyInstance, { identifyService, users }: UserRoutesDeps): void {
  typedRoutes(app).get(
    '/v1/admin/refused-users',
    {
      ...requires(identifyService, 'admin:read'),
      schema: {
        ...READS,
        operationId: 'listRefusedUsers',
        summary: 'List users that were refused lately',
        description: `The users of the latest 2,000 entries about refusals, at most of the last day, the latest first. A process
writes one entry per user and code, at most one per minute. Refusals without a known user are in the figures only.`,
        querystring: RefusedUsersQuery,
        'x-errors': QUERY_ERRORS,
        response: { 200: RefusedUsersBody },
      },
    },
    async ({ query: { code, limit } }) => {
      const refused = await users.refused(code, limit);
      return { users: refused.map(({ at, ...user }) => ({ ...user, last_at: new Date(at).toISOString() })) };
    },
  );
}

function userRoute(app: FastifyInstance, { identifyService, users, reader, redis, keys }: UserRoutesDeps): void {
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
      const [user, { runs }, [epoch, seq], refusals] = await Promise.all([
        users.account(id),
        reader.ofUser(id, { agent: undefined, status: undefined }, RUNS_SHOWN, undefined),
        mapRedisErrors(redis.hmget(keys.user(id).logState, 'epoch', 'seq')),
        users.refusalsOf(id),
      ]);
      const { account, plan = null, email = null, connections, connectionsTotal } = user;
      const { usage, threads, limits, refused } = await users.limits(id, user);
      const { blocked, revokedBefore } = account;
      return {
        user_id: id,
        email,
        account: {
          plan: account.plan ?? null,
          blocked,
          revoked_before: revokedBefore === 0 ? null : new Date(revokedBefore).toISOString(),
        },
        plan,
        refused,
        limits,
        refusals: refusals.map(({ at, user_id: _, ...rest }) => ({ ...rest, at: new Date(at).toISOString() })),
        connections: [...connections],
        connections_total: connectionsTotal,
        usage: usage && { ...usage },
        threads,
        event_log: { epoch: epoch ?? null, seq: Number(seq ?? 0) },
        runs: runs.map(asResponse),
      };
    },
  );
}
