import { nodeUrl } from './nodes.ts';
import { type StackAddresses, stack } from './stack.ts';
import { serviceToken } from './tokens.ts';

export interface AdminAnswer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into JSON whose form they are about to assert
  readonly body: any;
}

/** Sends an admin request to a gateway of a stack, selected by its number. */
export type Admin = (method: string, path: string, body?: unknown, node?: number) => Promise<AdminAnswer>;

/** @param scope of the operator's token; `admin` unless the test is about scopes */
export async function startAdmin(of: StackAddresses = stack(), scope = 'admin'): Promise<Admin> {
  const token = await serviceToken(scope, { clientId: 'test-operator', stack: of });
  return (method, path, body, node = 0) => {
    return requestAdmin(new URL(path, nodeUrl(node, of)), method, { authorization: `Bearer ${token}` }, body);
  };
}

export async function requestAdmin(
  url: URL,
  method: string,
  headers: Readonly<Record<string, string>>,
  body?: unknown,
): Promise<AdminAnswer> {
  const json = body === undefined ? {} : { 'content-type': 'application/json' };
  const response = await fetch(url, {
    method,
    headers: { ...json, ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: response.status, body: await response.json() };
}
