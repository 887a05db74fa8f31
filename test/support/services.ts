import { type StackAddresses, stack } from './stack.ts';
import { serviceToken } from './tokens.ts';

export interface Service {
  readonly id: string;
  /** The user id of the service for caps, limits and bills. */
  readonly userId: string;
  readonly token: string;
  /** The headers of its handshake. */
  readonly headers: Readonly<Record<string, string>>;
}

/** Starts a service with a token of the real auth service. Every service is a user: choose a unique name. */
export async function startService(
  id: string,
  { scope = 'usage:read', stack: of = stack() }: { scope?: string; stack?: StackAddresses } = {},
): Promise<Service> {
  const token = await serviceToken(scope, { clientId: id, stack: of });
  return { id, userId: `service:${id}`, token, headers: serviceHeaders(id, token) };
}

export function serviceHeaders(id: string, token: string): Record<string, string> {
  return { authorization: `Service-Token ${token}`, 'x-service-id': id, 'x-user-context': `service:${id}` };
}
