import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { TollgateError } from '../src/protocol/errors.ts';
import { bearerToken, type Clients, requestedScopes } from './clients.ts';
import type { Grants } from './grants.ts';
import type { IntrospectionEndpoint } from './introspection-endpoint.ts';
import type { LiveTokens } from './live-tokens.ts';
import { MAX_NAME_LENGTH, MAX_SECRET_LENGTH, MAX_TOKEN_LENGTH, optionalText, parameters, text } from './parameters.ts';

const client = { client_id: optionalText(MAX_NAME_LENGTH) };

const Login = z.object({ ...client, email: text(MAX_NAME_LENGTH), password: text(MAX_SECRET_LENGTH) });
const Refresh = z.object({ ...client, refresh_token: text(MAX_TOKEN_LENGTH) });
const Logout = z.object({ refresh_token: optionalText(MAX_TOKEN_LENGTH) });
const Validate = z.object({ token: optionalText(MAX_TOKEN_LENGTH) });
const ServiceToken = z.object({
  service_id: text(MAX_NAME_LENGTH),
  service_secret: text(MAX_SECRET_LENGTH),
  scope: optionalText(512),
});

export interface LegacyDeps {
  readonly grants: Grants;
  readonly clients: Clients;
  readonly introspection: IntrospectionEndpoint;
  readonly liveTokens: LiveTokens;
}

/**
 * Registers the routes for clients that predate the OAuth routes. They use the same grants; only parameter names and
 * the form of errors differ.
 */
export function registerLegacyRoutes(
  app: FastifyInstance,
  deps: LegacyDeps,
  options: { readonly passwordLogin: boolean },
): void {
  app.post('/auth/login', async (request) => {
    if (!options.passwordLogin) {
      throw new TollgateError('PERMISSION_DENIED', {
        text: 'Password login is disabled in this environment. Use another grant.',
      });
    }
    const { email, password, client_id } = parameters(Login, request.body);
    return deps.grants.password(email, password, publicClient(client_id));
  });

  app.post('/auth/refresh', async (request) => {
    const { refresh_token, client_id } = parameters(Refresh, request.body);
    return deps.grants.refresh(refresh_token, publicClient(client_id));
  });

  // Accepts either token of the session, even of an ended one, so that a repeated logout succeeds.
  app.post('/auth/logout', async (request) => {
    const { refresh_token: refreshToken } = parameters(Logout, request.body);
    const token = refreshToken ?? bearerToken(request.headers.authorization);
    if (token === undefined) throw new TollgateError('NO_TOKEN');
    await deps.liveTokens.revoke(token);
    return { success: true };
  });

  app.post('/auth/validate', async (request) => {
    const { token } = parameters(Validate, request.body);
    return deps.introspection.validate(token ?? bearerToken(request.headers.authorization));
  });

  app.post('/auth/service-token', async (request) => {
    const { service_id, service_secret, scope } = parameters(ServiceToken, request.body);
    if (!deps.clients.verifySecret(service_id, service_secret)) throw new TollgateError('VALIDATION_FAILED');
    const scopes = requestedScopes(scope);
    if (!scopes)
      throw new TollgateError('FORMAT_ERROR', { text: 'A requested scope is unknown. Request only known scopes.' });
    return deps.grants.service(service_id, scopes);
  });
}

/** As `clientKey`, for an unauthenticated client. */
function publicClient(clientId: string | undefined): string {
  return `public:${clientId ?? ''}`;
}
