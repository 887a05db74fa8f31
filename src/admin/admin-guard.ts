import type { FastifyRequest } from 'fastify';
import type { ServiceIdentity } from '../auth/tokens.ts';
import { BODY_ERRORS, SERVICE_ERRORS, serviceToken } from '../http/route-docs.ts';
import type { IdentifyService } from '../http/services.ts';
import type { ErrorCode } from '../protocol/errors.ts';

/** Errors of routes without parameters, with parameters, and with a body. */
export const READ_ERRORS: readonly ErrorCode[] = SERVICE_ERRORS;
export const QUERY_ERRORS: readonly ErrorCode[] = [...SERVICE_ERRORS, 'FORMAT_ERROR'];
export const ACTION_ERRORS: readonly ErrorCode[] = [...SERVICE_ERRORS, ...BODY_ERRORS];

/** Documentation of the routes that read, and of those that change something. */
export const READS = { tags: ['console'], security: serviceToken('admin:read') };
export const ACTS = { tags: ['console'], security: serviceToken('admin') };

/** Hooks of a route: the caller must have the scope, which is checked before the request is parsed. */
export function requires(identify: IdentifyService, scope: 'admin:read' | 'admin') {
  return {
    onRequest: async (request: FastifyRequest): Promise<void> => {
      await identify(request, scope);
    },
  };
}

/** How the caller appears in answers. */
export function describeCaller({ serviceId, operator, scopes, tokenExpiresAt }: ServiceIdentity) {
  return {
    subject: serviceId,
    kind: operator ? ('operator' as const) : ('service' as const),
    scopes: [...scopes],
    expires_at: new Date(tokenExpiresAt).toISOString(),
  };
}
