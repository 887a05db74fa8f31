import { type Admin, requestAdmin } from './admin.ts';
import { nodeUrl } from './nodes.ts';
import { type StackAddresses, stack } from './stack.ts';
import { freshUserId, type MintedToken, mintToken } from './tokens.ts';

/** Returns an access token as the auth service issues it to the console for a user with these scopes. */
export function operatorToken(
  scope: string,
  { userId = freshUserId(), of = stack(), clientId = 'tollgate-console' } = {},
): MintedToken {
  const claims = { sub: userId, client_id: clientId, scope };
  return mintToken(claims, { stack: of });
}

/** Sends requests of an operator with these scopes to a gateway of a stack. */
export function operator(scope: string, of: StackAddresses = stack()): Admin & { readonly userId: string } {
  const { token, userId } = operatorToken(scope, { of });
  const send: Admin = (method, path, body, node = 0) => {
    return requestAdmin(new URL(path, nodeUrl(node, of)), method, { authorization: `Bearer ${token}` }, body);
  };
  return Object.assign(send, { userId });
}
