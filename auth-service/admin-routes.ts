import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Plans } from '../src/catalogue/plans.ts';
import { type Logger, userHash } from '../src/lib/logger.ts';
import type { AccountStatuses } from './account-status.ts';
import type { Clients } from './clients.ts';
import { parameters, text } from './parameters.ts';

/** A user id is part of Redis keys, so it has no spaces and no control characters. The gateways accept the same ids. */
const UserPath = z.object({ id: z.string().regex(/^[\w.@:+|/=~,!$%-]{1,2400}$/) });
const PlanBody = z.object({ plan: text(64) });
/** Accepts a boolean from JSON or a word from a form. */
const BlockBody = z.object({
  blocked: z.union([z.boolean(), z.enum(['true', 'false']).transform((word) => word === 'true')]).default(true),
});

export interface AdminDeps {
  readonly clients: Clients;
  readonly accountStatuses: AccountStatuses;
  readonly plans: Plans;
  readonly logger: Logger;
}

/**
 * Registers the routes for admin actions about users. Any well-formed user id is accepted, even if the user does not
 * exist here. The actions also apply to gateways, whose users may come from another issuer.
 */
export function registerAccountRoutes(
  app: FastifyInstance,
  { clients, accountStatuses, plans, logger }: AdminDeps,
): void {
  const services = new WeakMap<FastifyRequest, string>();
  /** Before the request is parsed, so that strangers learn nothing from other errors. */
  const authorized = {
    onRequest: async (request: FastifyRequest) => {
      services.set(request, await clients.requireScope(request.headers.authorization, 'admin'));
    },
  };
  const operator = (request: FastifyRequest, decision: string): string => {
    const { id } = parameters(UserPath, request.params);
    logger.info({ service: services.get(request), user: userHash(id) }, decision);
    return id;
  };

  app.put('/auth/users/:id/plan', authorized, async (request) => {
    const userId = operator(request, 'plan change');
    const { plan } = parameters(PlanBody, request.body);
    plans.require(plan);
    await accountStatuses.setPlan(userId, plan);
    return { user_id: userId, plan };
  });

  app.post('/auth/users/:id/block', authorized, async (request) => {
    const userId = operator(request, 'block change');
    const { blocked } = parameters(BlockBody, request.body);
    await (blocked ? accountStatuses.block(userId) : accountStatuses.unblock(userId));
    return { user_id: userId, blocked };
  });

  app.post('/auth/users/:id/unblock', authorized, async (request) => {
    const userId = operator(request, 'block change');
    await accountStatuses.unblock(userId);
    return { user_id: userId, blocked: false };
  });
}
