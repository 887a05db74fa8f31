import type { FastifyRequest } from 'fastify';
import type { Authenticator } from '../auth/authenticator.ts';

type Service = Awaited<ReturnType<Authenticator['service']>>;

export interface ServiceGuard {
  /** For `onRequest`: before anything of the request is looked at, so that strangers learn nothing from refusals. */
  readonly requires: (scope: string) => (request: FastifyRequest) => Promise<void>;
  /** Who made a request that came past `requires`. */
  readonly caller: (request: FastifyRequest) => Service;
}

/** Lets services in by their scope. */
export function serviceGuard(authenticator: Authenticator): ServiceGuard {
  const services = new WeakMap<FastifyRequest, Service>();
  return {
    requires: (scope) => async (request) => {
      services.set(request, await authenticator.service(request.headers, scope));
    },
    caller: (request) => {
      const service = services.get(request);
      if (!service) throw new Error('the route has no guard');
      return service;
    },
  };
}
