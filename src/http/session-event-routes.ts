import formBody from '@fastify/formbody';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Accounts } from '../accounts/accounts.ts';
import type { InvalidationReader } from '../accounts/invalidation-reader.ts';
import type { Revocations } from '../accounts/revocations.ts';
import { MAX_TOKEN_BYTES } from '../auth/credentials.ts';
import { type EndedSession, SessionEvents } from '../auth/session-events.ts';
import { TokenFault } from '../auth/token-fault.ts';
import type { TokenVerifier } from '../auth/tokens.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import { TollgateError } from '../protocol/errors.ts';
import { BODY_ERRORS, PUBLIC, typedRoutes } from './route-docs.ts';

const LOGOUT_PATH = '/v1/identity/backchannel-logout';
const EVENTS_PATH = '/v1/identity/events';
const SECURITY_EVENT = 'application/secevent+jwt';

const JWS = 'eyJhbGciOiJSUzI1NiJ9.eyJqdGkiOiJqLTEifQ.c2lnbmF0dXJl';
const token = z.string().min(1).max(MAX_TOKEN_BYTES);
const LogoutRequest = z
  .object({ logout_token: token.describe('Signed logout token.') })
  .meta({ id: 'LogoutRequest', examples: [{ logout_token: JWS }] });
const Accepted = z.object({}).meta({ id: 'IdentityEventAccepted', examples: [{}] });

const DOCUMENTED = {
  tags: ['identity'],
  security: PUBLIC,
  'x-errors': [
    ...BODY_ERRORS,
    'AUTH_RATE_LIMITED',
    'AUTH_SERVICE_UNAVAILABLE',
    'OVERLOADED',
    'INTERNAL_ERROR',
    'UNSUPPORTED_DATA',
  ],
} as const;

export interface SessionEventRoutesDeps {
  readonly tokens: Pick<TokenVerifier, 'verifyEvent'>;
  /** Counts failed verifications per client address, as in a handshake. */
  readonly guard: {
    attempt(request: FastifyRequest['raw']): { authenticate<Found>(work: () => Promise<Found>): Promise<Found> };
  };
  readonly accounts: Pick<Accounts, 'revokeTokens'>;
  readonly revocations: Pick<Revocations, 'revoke'>;
  /** Read before each response, so that this node has applied the revocation; the others follow within 250 ms. */
  readonly invalidations: Pick<InvalidationReader, 'read'>;
  readonly logger: Logger;
}

/**
 * Registers the routes at which identity providers report the end of sessions. They need no credential: the token in
 * the body is signed by the provider.
 */
export function registerSessionEventRoutes(app: FastifyInstance, deps: SessionEventRoutesDeps): void {
  const events = new SessionEvents({ tokens: deps.tokens, end: (ended) => end(ended, deps) });
  app.register(async (scope) => {
    await scope.register(formBody);
    scope.addContentTypeParser(SECURITY_EVENT, { parseAs: 'string' }, (_request, body, done) => done(null, body));
    typedRoutes(scope).post(
      LOGOUT_PATH,
      {
        schema: {
          ...DOCUMENTED,
          operationId: 'backchannelLogout',
          summary: 'End the sessions of a logout token',
          description: `OpenID Connect Back-Channel Logout 1.0. Register this URL at the provider. The session of \`sid\`
ends on every node; a logout token without \`sid\` ends all sessions of the user that began before it.`,
          consumes: ['application/x-www-form-urlencoded'],
          body: LogoutRequest,
          response: { 200: Accepted },
        },
      },
      async (request, reply) => {
        await applied(request, deps, () => events.logout(request.body.logout_token));
        return reply.status(200).header('cache-control', 'no-store').send({});
      },
    );
    typedRoutes(scope).post(
      EVENTS_PATH,
      {
        schema: {
          ...DOCUMENTED,
          operationId: 'receiveSecurityEvent',
          summary: 'Receive a security event',
          description: `Push delivery of a security event token (RFC 8935). The CAEP event \`session-revoked\` ends the
session of the subject, or all sessions of the user that began before it. Other events have no effect.`,
          consumes: [SECURITY_EVENT],
          body: token.meta({ examples: [JWS] }),
          response: { 202: Accepted },
        },
      },
      async (request, reply) => {
        await applied(request, deps, () => events.securityEvent(request.body));
        return reply.status(202).send({});
      },
    );
  });
}

async function end(ended: EndedSession, deps: SessionEventRoutesDeps): Promise<void> {
  if (ended.kind === 'session') await deps.revocations.revoke(`sid:${ended.sessionId}`);
  else await deps.accounts.revokeTokens(ended.userId, ended.before);
  await deps.invalidations.read();
  const user = ended.kind === 'user' ? { user: userHash(ended.userId) } : {};
  deps.logger.info({ ...user, ended: ended.kind }, 'identity provider ended a session');
}

/**
 * Runs the work. Both specifications require 400 for a token that is not valid.
 * @throws TollgateError FORMAT_ERROR, AUTH_RATE_LIMITED, AUTH_SERVICE_UNAVAILABLE, OVERLOADED
 */
async function applied(
  { raw }: FastifyRequest,
  { guard, logger }: SessionEventRoutesDeps,
  work: () => Promise<void>,
): Promise<void> {
  try {
    await guard.attempt(raw).authenticate(work);
  } catch (error) {
    if (!(error instanceof TollgateError) || !['VALIDATION_FAILED', 'TOKEN_EXPIRED'].includes(error.code)) throw error;
    const { code, cause } = error;
    const fault = cause instanceof TokenFault ? { claim: cause.claim, reason: cause.message } : {};
    logger.info({ code, ...fault }, 'event of an identity provider refused');
    throw new TollgateError('FORMAT_ERROR', { text: 'The event token is not valid. The log has the reason.', cause });
  }
}
