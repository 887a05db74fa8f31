import type { FastifyRequest } from 'fastify';
import type { ServiceIdentity } from '../auth/tokens.ts';
import { TollgateError } from '../protocol/errors.ts';

/**
 * Authenticates the service or operator of a request, which needs one of the scopes.
 * @throws TollgateError of the authentication rows, PERMISSION_DENIED
 */
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

/**
 * What the scopes of an operator include. A service has its own scopes only, and `admin` always includes `admin:read`.
 */
const OPERATOR_SCOPES: Readonly<Record<string, readonly string[]>> = {
  'admin:read': ['admin:read', 'usage:read'],
  admin: ['admin', 'admin:read', 'usage:read', 'usage:write', 'events:write'],
};

/** Returns the identity with all scopes that its scopes include. */
export function withIncludedScopes(identity: ServiceIdentity): ServiceIdentity {
  const { scopes, operator } = identity;
  if (!operator) return scopes.includes('admin') ? { ...identity, scopes: [...scopes, 'admin:read'] } : identity;
  return { ...identity, scopes: [...new Set(scopes.flatMap((scope) => OPERATOR_SCOPES[scope] ?? []))] };
}

/**
 * @param scope one or several scopes, one of which is necessary
 * @throws TollgateError PERMISSION_DENIED, with the first scope
 */
export function requireScope({ scopes }: Pick<ServiceIdentity, 'scopes'>, scope: string | readonly string[]): void {
  const [least, ...others] = [scope].flat();
  if (least === undefined || [least, ...others].some((one) => scopes.includes(one))) return;
  const fields = { required_permissions: [least], missing_permissions: [least] };
  throw new TollgateError('PERMISSION_DENIED', { fields });
}
