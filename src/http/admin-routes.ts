import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Accounts } from '../accounts/accounts.ts';
import type { InvalidationReader } from '../accounts/invalidation-reader.ts';
import type { Revocations } from '../accounts/revocations.ts';
import type { Plans } from '../catalogue/plans.ts';
import { type ConnectionRegistry, LISTED_CONNECTIONS } from '../cluster/connection-registry.ts';
import type { NodeRegistry } from '../cluster/node-registry.ts';
import { appendForUser, PUBLISHED_KEYS, PUBLISHED_PER_MINUTE } from '../events/published-events.ts';
import { publishToUser } from '../events/user-channel.ts';
import type { UserLogWriter } from '../events/user-log-writer.ts';
import type { Clock } from '../lib/clock.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import {
  Appended,
  BlockStatus,
  ChangedPlan,
  ClosedConnections,
  ConnectionPath,
  Connections,
  Event,
  EventHeaders,
  Nodes,
  Plan,
  Published,
  Revocation,
  Revoked,
  UserPath,
  userId,
} from './admin-schemas.ts';
import { BODY_ERRORS, SERVICE_ERRORS, serviceToken, typedRoutes } from './route-docs.ts';
import { type IdentifyService, serviceGuard } from './services.ts';

/** Bound of a published event: the gateway writes it to each connection of the user. */
const MAX_EVENT_BYTES = 8 * 1024;
/** A `before` in the future would revoke tokens that are not issued yet. Clocks may differ by this much. */
const CLOCK_DIFFERENCE_MS = 5_000;

const DOCUMENTED = { tags: ['admin'], security: serviceToken('admin') };
const READING = { tags: ['admin'], security: serviceToken('admin:read') };
/** Errors of routes with a user id in the path, and of those with a body too. */
const PATH_ERRORS = [...SERVICE_ERRORS, 'FORMAT_ERROR'] as const;
const PATH_AND_BODY_ERRORS = [...SERVICE_ERRORS, ...BODY_ERRORS];

export interface AdminRoutesDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly identifyService: IdentifyService;
  readonly registry: Pick<ConnectionRegistry, 'list' | 'close'>;
  readonly nodes: Pick<NodeRegistry, 'list'>;
  readonly accounts: Accounts;
  readonly revocations: Pick<Revocations, 'revoke'>;
  /** Read before each response, so that this node has applied the change; the others follow within 250 ms. */
  readonly invalidations: Pick<InvalidationReader, 'read'>;
  readonly log: Pick<UserLogWriter, 'appendWith'>;
  readonly plans: Plans;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Registers the admin API, which requires a token with the scope `admin`, or `admin:read` for what changes nothing. Any
 * well-formed user id is accepted: the issuer owns the users, and the gateway knows them only by their tokens. Every
 * change is idempotent.
 */
export function registerAdminRoutes(app: FastifyInstance, deps: AdminRoutesDeps): void {
  const guard = serviceGuard(deps.identifyService);
  const authorized: Authorized = (action) => ({
    onRequest: guard.requires(action === undefined ? 'admin:read' : 'admin'),
    // The user of a revocation is in the body, which is parsed between the two hooks.
    preValidation: async (request: FastifyRequest) => {
      const { serviceId } = guard.caller(request);
      if (action) deps.logger.info({ service: serviceId, ...userOf(request) }, action);
    },
  });
  connectionRoutes(app, deps, authorized);
  planRoute(app, deps, authorized);
  blockRoutes(app, deps, authorized);
  revocationRoute(app, deps, authorized);
  eventRoute(app, deps);

  typedRoutes(app).get(
    '/v1/nodes',
    {
      ...authorized(),
      schema: {
        ...READING,
        operationId: 'listNodes',
        summary: 'List the gateway nodes',
        description: 'Lists the live nodes of the cluster with their number of connections.',
        'x-errors': SERVICE_ERRORS,
        response: { 200: Nodes },
      },
    },
    async () => {
      const nodes = await deps.nodes.list();
      return { nodes: nodes.map(({ node_id, connections, started_at }) => ({ node_id, connections, started_at })) };
    },
  );
}

/**
 * Route options: the service must have the scope `admin`, or `admin:read` without an action, which is checked before
 * the request is parsed, so that strangers learn nothing from other errors. An action is logged with the service and
 * the hash of the user, also if it fails.
 */
type Authorized = (action?: string) => {
  readonly onRequest: (request: FastifyRequest) => Promise<void>;
  readonly preValidation: (request: FastifyRequest) => Promise<void>;
};

function connectionRoutes(app: FastifyInstance, { registry }: AdminRoutesDeps, authorized: Authorized): void {
  const routes = typedRoutes(app);
  routes.get(
    '/v1/users/:id/connections',
    {
      ...authorized(),
      schema: {
        ...READING,
        operationId: 'listConnections',
        summary: 'List the connections of a user',
        description: `Lists the live connections on all nodes, at most ${LISTED_CONNECTIONS}.`,
        params: UserPath,
        'x-errors': PATH_ERRORS,
        response: { 200: Connections },
      },
    },
    async ({ params: { id } }) => {
      const { total, connections } = await registry.list(id);
      return { user_id: id, total, connections, has_more: total > LISTED_CONNECTIONS };
    },
  );

  routes.delete(
    '/v1/users/:id/connections',
    {
      ...authorized('connections closed'),
      schema: {
        ...DOCUMENTED,
        operationId: 'closeConnections',
        summary: 'Close all connections of a user',
        description: `Closes at most ${LISTED_CONNECTIONS} connections with \`CONNECTION_CLOSED\`. The user can
connect again.`,
        params: UserPath,
        'x-errors': PATH_ERRORS,
        response: { 200: ClosedConnections },
      },
    },
    async ({ params: { id } }) => ({ user_id: id, closed: await registry.close(id) }),
  );

  routes.delete(
    '/v1/users/:id/connections/:connection',
    {
      ...authorized('connection closed'),
      schema: {
        ...DOCUMENTED,
        operationId: 'closeConnection',
        summary: 'Close a connection of a user',
        description:
          'Closes the connection with `CONNECTION_CLOSED`. `closed` is empty if there is no such connection.',
        params: ConnectionPath,
        'x-errors': PATH_ERRORS,
        response: { 200: ClosedConnections },
      },
    },
    async ({ params: { id, connection } }) => ({ user_id: id, closed: await registry.close(id, [connection]) }),
  );
}

function planRoute(app: FastifyInstance, deps: AdminRoutesDeps, authorized: Authorized): void {
  const { accounts, plans, invalidations } = deps;
  typedRoutes(app).put(
    '/v1/users/:id/plan',
    {
      ...authorized('plan change'),
      schema: {
        ...DOCUMENTED,
        operationId: 'setPlan',
        summary: 'Set the plan of a user',
        description: 'Stores the plan, which takes precedence over the token and applies to open connections at once.',
        params: UserPath,
        body: Plan,
        'x-errors': PATH_AND_BODY_ERRORS,
        response: { 200: ChangedPlan },
      },
    },
    async ({ params: { id }, body: { plan } }) => {
      if (!plans.get(plan)) throw new TollgateError('FORMAT_ERROR', { text: 'No such plan.' });
      await accounts.setPlan(id, plan);
      await invalidations.read();
      return { user_id: id, plan };
    },
  );
}

const BLOCK = {
  operationId: 'blockUser',
  summary: 'Block a user',
  description: 'Closes the connections of the user with `USER_BLOCKED` and rejects new ones on every node.',
};
const UNBLOCK = {
  operationId: 'unblockUser',
  summary: 'Unblock a user',
  description: 'Lets the user connect again.',
};

function blockRoutes(app: FastifyInstance, { accounts, invalidations }: AdminRoutesDeps, authorized: Authorized): void {
  for (const blocked of [true, false]) {
    const action = blocked ? 'block' : 'unblock';
    typedRoutes(app).post(
      `/v1/users/:id/${action}`,
      {
        ...authorized(action),
        schema: {
          ...DOCUMENTED,
          ...(blocked ? BLOCK : UNBLOCK),
          params: UserPath,
          'x-errors': PATH_AND_BODY_ERRORS,
          response: { 200: BlockStatus },
        },
      },
      async ({ params: { id } }) => {
        await accounts.setBlocked(id, blocked);
        await invalidations.read();
        return { user_id: id, blocked };
      },
    );
  }
}

function revocationRoute(app: FastifyInstance, deps: AdminRoutesDeps, authorized: Authorized): void {
  const { accounts, revocations, invalidations, clock } = deps;
  typedRoutes(app).post(
    '/v1/tokens/revoke',
    {
      ...authorized('revocation'),
      schema: {
        ...DOCUMENTED,
        operationId: 'revokeTokens',
        summary: 'Revoke tokens',
        description:
          'Revokes one token, the tokens of a session, or all tokens of a user that were issued before a time.',
        body: Revocation,
        'x-errors': PATH_AND_BODY_ERRORS,
        response: { 200: Revoked },
      },
    },
    async ({ body }) => {
      if ('user_id' in body) {
        const before = body.before === undefined ? undefined : Date.parse(body.before);
        if (before !== undefined && before > clock.now() + CLOCK_DIFFERENCE_MS) {
          throw new TollgateError('FORMAT_ERROR', { text: '"before" must not lie in the future.' });
        }
        const revokedBefore = await accounts.revokeTokens(body.user_id, before);
        await invalidations.read();
        return { user_id: body.user_id, before: new Date(revokedBefore).toISOString() };
      }
      const until = await revocations.revoke('jti' in body ? `jti:${body.jti}` : `sid:${body.sid}`);
      await invalidations.read();
      return { ...body, until: new Date(until).toISOString() };
    },
  );
}

/** `admin` is the older scope of this route; `events:write` allows nothing else. */
const EVENT_SCOPES = ['events:write', 'admin'];

function eventRoute(app: FastifyInstance, deps: AdminRoutesDeps): void {
  const guard = serviceGuard(deps.identifyService);
  typedRoutes(app).post(
    '/v1/users/:id/events',
    {
      onRequest: guard.requires(EVENT_SCOPES),
      bodyLimit: MAX_EVENT_BYTES,
      schema: {
        tags: ['admin'],
        security: EVENT_SCOPES.flatMap(serviceToken),
        operationId: 'publishEvent',
        summary: 'Publish an event to a user',
        description: `Sends an event to all connections of the user, in the dialect of each. The body has at most
${MAX_EVENT_BYTES / 1024} KiB. \`type\` must not be a type of the gateway's own messages and events.

A durable event (\`durable: true\`) is appended to the event log of the user: it has a \`seq\`, and a client that connects
later receives it when it resumes. A user receives at most ${PUBLISHED_PER_MINUTE} of them per minute, further ones are
refused with \`RATE_LIMITED\`. Idempotency keys are per service and user; the latest ${PUBLISHED_KEYS} of the last 24 hours
are kept. Any other event is transient: it is not stored, and a client that is not connected does not receive it.`,
        params: UserPath,
        headers: EventHeaders,
        body: Event,
        'x-errors': [...PATH_AND_BODY_ERRORS, 'IDEMPOTENCY_CONFLICT'],
        response: { 201: Appended, 202: Published },
      },
    },
    async (request, reply) => {
      const { id } = request.params;
      const { durable, ...event } = request.body;
      const idempotencyKey = request.headers['idempotency-key'];
      if (!durable) {
        if (idempotencyKey !== undefined) throw new TollgateError('FORMAT_ERROR', { text: KEY_WITHOUT_DURABLE });
        const nodes = await publishToUser(deps, id, event);
        return reply.status(202).send({ user_id: id, type: event.type, nodes });
      }
      const { serviceId } = guard.caller(request);
      const position = await appendForUser(deps, { userId: id, ...event, serviceId, idempotencyKey });
      return reply.status(201).send({ user_id: id, type: event.type, ...position });
    },
  );
}

const KEY_WITHOUT_DURABLE = 'An Idempotency-Key needs "durable": true: a transient event is not stored.';

/** The hash of the user that a request concerns, for the log. */
function userOf({ params, body }: FastifyRequest): { readonly user?: string } {
  const id = UserPath.safeParse(params).data?.id ?? z.object({ user_id: userId }).safeParse(body).data?.user_id;
  return id === undefined ? {} : { user: userHash(id) };
}
