import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { TICKET_SECONDS, type Tickets } from '../auth/tickets.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import { allowOrigins, type OriginCheck } from './cors.ts';
import { BODY_ERRORS, typedRoutes, USER_ERRORS, USER_TOKEN } from './route-docs.ts';

export const TICKETS_PATH = '/v1/tickets';
/** Longer than any origin that a browser sends. */
const MAX_ORIGIN_LENGTH = 256;

const TicketRequest = z
  .object({
    origin: z
      .string()
      .min(1)
      .max(MAX_ORIGIN_LENGTH)
      .optional()
      .describe('Origin of the page that will use the ticket. By default, the `Origin` header of this request.'),
  })
  .meta({ id: 'TicketRequest', examples: [{ origin: 'https://app.example.com' }] });
const Ticket = z
  .object({
    ticket: z.string().describe('256 random bits, base64url. Send it as `ticket` in the URL of the handshake.'),
    expires_in: z.int().describe('Seconds until the ticket expires.'),
  })
  .meta({
    id: 'Ticket',
    examples: [{ ticket: 'mJ8zO2r5yQ1cX7uG0kB4tN9wE6aV3pL_dHsFiRjToYk', expires_in: TICKET_SECONDS }],
  });

export interface TicketRoutesDeps {
  /** The user that a request's access token identifies. @throws TollgateError of the authentication rows, OVERLOADED */
  readonly identify: (request: FastifyRequest) => Promise<Identity>;
  readonly tickets: Tickets;
  readonly allowedOrigins: readonly string[];
  /** The check that the WebSocket handshake makes too, so that every issued ticket is usable. */
  readonly origins: OriginCheck;
}

/**
 * `POST /v1/tickets`: issues a single-use ticket for the bearer of an access token. Pages of the allowed origins can
 * call it. The credential is checked before the body is validated, so that strangers learn nothing from validation
 * errors.
 */
export function registerTicketRoutes(app: FastifyInstance, deps: TicketRoutesDeps): void {
  const { identify, tickets, allowedOrigins, origins } = deps;
  const identities = new WeakMap<FastifyRequest, Identity>();
  const authenticated = async (request: FastifyRequest) => {
    identities.set(request, await identify(request));
  };
  app.register(async (scope) => {
    allowOrigins(scope, allowedOrigins);
    // The hook responds to preflights, but it runs only if the route exists.
    scope.options(TICKETS_PATH, { schema: { hide: true } }, (_request, reply) => reply.status(204).send());
    typedRoutes(scope).post(
      TICKETS_PATH,
      {
        onRequest: authenticated,
        schema: {
          operationId: 'createTicket',
          summary: 'Create a ticket',
          description: `Issues a ticket with which a browser can open one WebSocket connection within
${TICKET_SECONDS} seconds, without its access token in the URL. A ticket is valid only for the origin for which it was
issued.`,
          tags: ['tickets'],
          security: USER_TOKEN,
          body: TicketRequest.nullish(),
          'x-errors': [...USER_ERRORS, ...BODY_ERRORS, 'ORIGIN_NOT_ALLOWED', 'RATE_LIMITED'],
          response: { 201: Ticket },
        },
      },
      async (request, reply) => {
        const identity = identities.get(request);
        if (!identity) throw new Error('the route has no guard');
        const origin = boundOrigin(request.headers.origin, request.body?.origin);
        if (!origins.allow(request.raw, origin)) throw new TollgateError('ORIGIN_NOT_ALLOWED');
        const ticket = await tickets.issue(identity, origin);
        return reply.status(201).header('cache-control', 'no-store').send({ ticket, expires_in: TICKET_SECONDS });
      },
    );
  });
}

/**
 * The origin for which a ticket is valid: that of the requesting page, or the one that a program names.
 * @throws TollgateError FORMAT_ERROR if a page names another origin than its own
 */
function boundOrigin(own: string | undefined, named: string | undefined): string | undefined {
  if (own !== undefined && named !== undefined && own !== named) {
    throw new TollgateError('FORMAT_ERROR', {
      text: '"origin" must be the origin of the requesting page, or omitted.',
    });
  }
  return own ?? named;
}
