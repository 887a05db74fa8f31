import type { FastifyRequest } from 'fastify';
import type { ServiceIdentity } from '../auth/tokens.ts';

/** The service that makes a request, by its token. @throws TollgateError of the authentication rows, PERMISSION_DENIED */
export type IdentifyService = (request: FastifyRequest, scope: string) => Promise<ServiceIdentity>;

export interface ServiceGuard {
  /** For `onRequest`: before anything of the request is looked at, so that strangers learn nothing from refusals. */
  readonly requires: (scope: string) => (request: FastifyRequest) => Promise<void>;
  /** Who made a request that came past `requires`. */
  readonly caller: (request: FastifyRequest) => ServiceIdentity;
}

/** Lets services in by their scope. */
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
