import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { TICKET_SECONDS, type Tickets } from '../auth/tickets.ts';
import { TollgateError } from '../protocol/errors.ts';
import { formatError } from '../protocol/format-error.ts';
import type { Identity } from '../protocol/identity.ts';
import { allowOrigins } from './cors.ts';

export const TICKETS_PATH = '/v1/tickets';
/** Longer than any origin that a browser sends. */
const MAX_ORIGIN_LENGTH = 256;

const TicketRequest = z.object({ origin: z.string().min(1).max(MAX_ORIGIN_LENGTH).optional() }).nullish();

/** The body is parsed below: after the credential, so that strangers learn nothing from refusals. */
const DOCUMENTED = {
  tags: ['tickets'],
  summary: 'A one-time ticket for a handshake, for the bearer of an access token. Body: { "origin": "…" }, or none.',
  security: [{ user: [] }],
  response: { 201: z.object({ ticket: z.string(), expires_in: z.int() }) },
};

export interface TicketRoutesDeps {
  /** The bearer of a request. @throws TollgateError of the authentication rows, OVERLOADED */
  readonly identify: (request: FastifyRequest) => Promise<Identity>;
  readonly tickets: Tickets;
  readonly allowedOrigins: readonly string[];
  /** The rule that the upgrade goes by, so that no ticket is sold that could not be used. */
  readonly originAllowed: (origin: string | undefined, allowed: readonly string[]) => boolean;
}

/** `POST /v1/tickets`: a one-time ticket for the bearer of an access token. A page may call it from an allowed origin. */
export function registerTicketRoutes(app: FastifyInstance, deps: TicketRoutesDeps): void {
  const { identify, tickets, allowedOrigins, originAllowed } = deps;
  app.register(async (scope) => {
    allowOrigins(scope, allowedOrigins);
    // Preflights are answered by the hook, which runs only for a route that exists.
    scope.options(TICKETS_PATH, { schema: { hide: true } }, (_request, reply) => reply.status(204).send());
    scope.post(TICKETS_PATH, { schema: DOCUMENTED }, async (request, reply) => {
      const identity = await identify(request);
      const body = TicketRequest.safeParse(request.body);
      if (!body.success) throw formatError(body.error);
      const origin = boundOrigin(request.headers.origin, body.data?.origin);
      if (!originAllowed(origin, allowedOrigins)) throw new TollgateError('ORIGIN_NOT_ALLOWED');
      const ticket = await tickets.issue(identity, origin);
      return reply.status(201).header('cache-control', 'no-store').send({ ticket, expires_in: TICKET_SECONDS });
    });
  });
}

/**
 * Where the ticket is going to be used: the page that asks, or the one that a program asks for.
 * @throws TollgateError FORMAT_ERROR: a page gets no ticket for another one
 */
function boundOrigin(own: string | undefined, named: string | undefined): string | undefined {
  if (own !== undefined && named !== undefined && own !== named) {
    throw new TollgateError('FORMAT_ERROR', {
      text: '"origin" must be the origin of the page that asks, or left out.',
    });
  }
  return own ?? named;
}
