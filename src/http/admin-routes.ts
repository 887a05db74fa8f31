import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Accounts } from '../accounts/accounts.ts';
import type { InvalidationReader } from '../accounts/invalidation-reader.ts';
import type { Revocations } from '../accounts/revocations.ts';
import type { Plans } from '../catalogue/plans.ts';
import { type ConnectionRegistry, LISTED_CONNECTIONS } from '../cluster/connection-registry.ts';
import type { NodeRegistry } from '../cluster/node-registry.ts';
import type { UserChannel } from '../events/user-channel.ts';
import type { Clock } from '../lib/clock.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import { TollgateError } from '../protocol/errors.ts';
import { formatError } from '../protocol/format-error.ts';
import { PublishedEventFields } from '../protocol/messages.ts';
import type { IdentifyService } from './services.ts';

/** As a token names one: it stands in Redis keys, so no spaces and no control characters. Services are users too. */
export const userId = z.string().regex(/^[\w.@:+-]{1,128}$/);
const UserPath = z.object({ id: userId });
const ConnectionPath = z.object({ id: userId, connection: z.string().regex(/^[\w-]{1,64}$/) });
const PlanBody = z.strictObject({ plan: z.string().min(1).max(64) });
const identifier = z.string().min(1).max(128);
const RevokeBody = z.union(
  [
    z.strictObject({ jti: identifier }),
    z.strictObject({ sid: identifier }),
    z.strictObject({ user_id: userId, before: z.iso.datetime({ offset: true }).optional() }),
  ],
  { error: 'exactly one of "jti", "sid" and "user_id"; "before", an ISO 8601 time, goes with "user_id" only' },
);

/** An event is written to each connection of the user at once. */
const MAX_EVENT_BYTES = 8 * 1024;
/** A `before` that lies ahead would refuse tokens that nobody has seen yet; clocks may differ by this much. */
const CLOCK_DIFFERENCE_MS = 5_000;

export interface AdminRoutesDeps {
  readonly identifyService: IdentifyService;
  readonly registry: Pick<ConnectionRegistry, 'list' | 'close'>;
  readonly nodes: Pick<NodeRegistry, 'list'>;
  readonly accounts: Accounts;
  readonly revocations: Pick<Revocations, 'revoke'>;
  /** This node's own ear: it has carried out what it answers for, the others follow within their 250 ms. */
  readonly invalidations: Pick<InvalidationReader, 'read'>;
  readonly userChannel: UserChannel;
  readonly plans: Plans;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * What operators may ask and decide, with a service token of the scope `admin`. Any well-formed user id is taken: the
 * users are the issuer's, and this side knows them only by their tokens. Every change may be made again.
 */
export function registerAdminRoutes(app: FastifyInstance, deps: AdminRoutesDeps): void {
  const operator = async (request: FastifyRequest, decision?: string): Promise<void> => {
    const { serviceId } = await deps.identifyService(request, 'admin');
    if (decision) deps.logger.info({ service: serviceId, ...about(request) }, decision);
  };
  connectionRoutes(app, deps, operator);
  accountRoutes(app, deps, operator);

  app.get('/v1/nodes', async (request) => {
    await operator(request);
    return { nodes: await deps.nodes.list() };
  });

  app.post('/v1/users/:id/events', { bodyLimit: MAX_EVENT_BYTES }, async (request, reply) => {
    await operator(request);
    const { id } = parsed(UserPath, request.params);
    const event = parsed(PublishedEventFields, request.body);
    const nodes = await deps.userChannel.publish(id, event);
    return reply.status(202).send({ user_id: id, type: event.type, nodes });
  });
}

type Operator = (request: FastifyRequest, decision?: string) => Promise<void>;

function connectionRoutes(app: FastifyInstance, { registry }: AdminRoutesDeps, operator: Operator): void {
  app.get('/v1/users/:id/connections', async (request) => {
    await operator(request);
    const { id } = parsed(UserPath, request.params);
    const { total, connections } = await registry.list(id);
    return { user_id: id, total, connections, has_more: total > LISTED_CONNECTIONS };
  });

  app.delete('/v1/users/:id/connections', async (request) => {
    await operator(request, 'connections closed');
    const { id } = parsed(UserPath, request.params);
    return { user_id: id, closed: await registry.close(id) };
  });

  app.delete('/v1/users/:id/connections/:connection', async (request) => {
    await operator(request, 'connection closed');
    const { id, connection } = parsed(ConnectionPath, request.params);
    return { user_id: id, closed: await registry.close(id, [connection]) };
  });
}

function accountRoutes(app: FastifyInstance, deps: AdminRoutesDeps, operator: Operator): void {
  const { accounts, plans, revocations, invalidations, clock } = deps;
  app.put('/v1/users/:id/plan', async (request) => {
    await operator(request, 'plan change');
    const { id } = parsed(UserPath, request.params);
    const { plan } = parsed(PlanBody, request.body);
    if (!plans.get(plan)) throw new TollgateError('FORMAT_ERROR', { text: 'No such plan.' });
    await accounts.setPlan(id, plan);
    await invalidations.read();
    return { user_id: id, plan };
  });

  for (const blocked of [true, false]) {
    app.post(`/v1/users/:id/${blocked ? 'block' : 'unblock'}`, async (request) => {
      await operator(request, blocked ? 'block' : 'unblock');
      const { id } = parsed(UserPath, request.params);
      await accounts.setBlocked(id, blocked);
      await invalidations.read();
      return { user_id: id, blocked };
    });
  }

  app.post('/v1/tokens/revoke', async (request) => {
    await operator(request, 'revocation');
    const body = parsed(RevokeBody, request.body);
    if ('user_id' in body) {
      const before = body.before === undefined ? undefined : Date.parse(body.before);
      if (before !== undefined && before > clock.now() + CLOCK_DIFFERENCE_MS) {
        throw new TollgateError('FORMAT_ERROR', { text: '"before" must not lie in the future.' });
      }
      const hasScope = await accounts.revokeTokens(body.user_id, before);
      await invalidations.read();
      return { user_id: body.user_id, before: new Date(hasScope).toISOString() };
    }
    const until = await revocations.revoke('jti' in body ? `jti:${body.jti}` : `sid:${body.sid}`);
    await invalidations.read();
    return { ...body, until: new Date(until).toISOString() };
  });
}

/** Whom a request is about, for the log. */
function about({ params, body }: FastifyRequest): { readonly user?: string } {
  const id = UserPath.safeParse(params).data?.id ?? z.object({ user_id: userId }).safeParse(body).data?.user_id;
  return id === undefined ? {} : { user: userHash(id) };
}

/** @throws TollgateError FORMAT_ERROR, saying what is wrong and where */
function parsed<T>(schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw formatError(result.error);
}
