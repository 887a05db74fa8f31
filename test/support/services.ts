import { type StackAddresses, stack } from './stack.ts';
import { serviceToken } from './tokens.ts';

export interface Service {
  readonly id: string;
  /** The user that caps, limits and bills know it as. */
  readonly userId: string;
  readonly token: string;
  /** Those of its handshake. */
  readonly headers: Readonly<Record<string, string>>;
}

/** A service with a token from the real auth service. Every service is a user of its own: give it a name no test uses. */
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
