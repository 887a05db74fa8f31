import type { FastifyRequest } from 'fastify';
import type { ServiceIdentity } from '../auth/tokens.ts';

/** Authenticates the service of a request, which needs one of the scopes. @throws TollgateError of the authentication rows, PERMISSION_DENIED */
export type IdentifyService = (request: FastifyRequest, scope: string | readonly string[]) => Promise<ServiceIdentity>;

export interface ServiceGuard {
  /** Hook for `onRequest`: it runs before the request is parsed, so that strangers learn nothing from other errors. */
  readonly requires: (scope: string | readonly string[]) => (request: FastifyRequest) => Promise<void>;
  /** The service of a request that passed `requires`. */
  readonly caller: (request: FastifyRequest) => ServiceIdentity;
}

/** Creates a guard that admits services with a given scope. */
export function serviceGuard(identify: IdentifyService): ServiceGuard {
  const services = new WeakMap<FastifyRequest, ServiceIdentity>();
  return {
    requires: (scope) => async (request) => {
      services.set(request, await identify(request, scope));
    },
    caller: (request) => {
      const service = services.get(request);
      if (!service) throw new Error('the route has no guard');
      return service;
    },
  };
}
