import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Logger } from '../src/lib/logger.ts';
import { TollgateError } from '../src/protocol/errors.ts';
import { type Client, type Clients, clientKey, invalidClient, mayExchangeTokens, requestedScopes } from './clients.ts';
import type { ConsoleClient } from './console-client.ts';
import type { Grants } from './grants.ts';
import type { IntrospectionEndpoint } from './introspection-endpoint.ts';
import type { LiveTokens } from './live-tokens.ts';
import { OAuthError, sendOAuthError } from './oauth-errors.ts';
import {
  MAX_NAME_LENGTH,
  MAX_SECRET_LENGTH,
  MAX_TOKEN_LENGTH,
  optionalText,
  parameters,
  text,
  textOrList,
} from './parameters.ts';
import type { Sessions } from './sessions.ts';

export const GRANT_TYPES = {
  clientCredentials: 'client_credentials',
  refreshToken: 'refresh_token',
  tokenExchange: 'urn:ietf:params:oauth:grant-type:token-exchange',
  authorizationCode: 'authorization_code',
  password: 'password',
} as const;

/** Types of the issued tokens; both are valid names for them (RFC 8693 section 3). */
const ACCESS_TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:access_token';
const TOKEN_TYPES = [ACCESS_TOKEN_TYPE, 'urn:ietf:params:oauth:token-type:jwt'];

/** Maximum number of requested audiences (RFC 8693 section 2.1); a token is issued for one only. */
const MAX_AUDIENCES = 16;

const clientParameters = {
  client_id: optionalText(MAX_NAME_LENGTH),
  client_secret: optionalText(MAX_SECRET_LENGTH),
};

const TokenRequest = z.object({
  ...clientParameters,
  grant_type: optionalText(128),
  scope: optionalText(512),
  refresh_token: optionalText(MAX_TOKEN_LENGTH),
  username: optionalText(MAX_NAME_LENGTH),
  password: optionalText(MAX_SECRET_LENGTH),
  code: optionalText(128),
  // RFC 7636 section 4.1: 43 to 128 characters.
  code_verifier: optionalText(128),
  redirect_uri: optionalText(2_048),
  subject_token: optionalText(MAX_TOKEN_LENGTH),
  subject_token_type: optionalText(128),
  requested_token_type: optionalText(128),
  actor_token: optionalText(MAX_TOKEN_LENGTH),
  audience: textOrList(MAX_AUDIENCES).optional(),
  resource: z.unknown().optional(),
});
type TokenRequest = z.infer<typeof TokenRequest>;

const TokenParameter = z.object({ ...clientParameters, token: text(MAX_TOKEN_LENGTH) });

export interface OAuthDeps {
  readonly grants: Grants;
  readonly clients: Clients;
  readonly introspection: IntrospectionEndpoint;
  readonly liveTokens: LiveTokens;
  readonly sessions: Pick<Sessions, 'findByRefreshToken' | 'end'>;
  readonly console: ConsoleClient;
  readonly logger: Logger;
}

export interface OAuthOptions {
  readonly audience: string;
  /** Whether the service has accounts: the grants with a password and with a code of the sign-in page are enabled. */
  readonly passwordLogin: boolean;
}

/** Registers the routes of RFC 6749, 7009, 7662 and 8693. */
export function registerOAuthRoutes(app: FastifyInstance, deps: OAuthDeps, options: OAuthOptions): void {
  const tokenEndpoint = new TokenEndpoint(deps, options);
  app.register(async (oauth) => {
    oauth.setErrorHandler((thrown: Error, _request, reply) => sendOAuthError(thrown, reply, deps.logger));

    oauth.post('/oauth/token', (request) => tokenEndpoint.answer(request));

    oauth.post('/oauth/introspect', async (request) => {
      const { token, ...client } = parameters(TokenParameter, request.body);
      await deps.clients.identifyService(request.headers.authorization, client);
      return deps.introspection.describe(token);
    });

    // The response is the same for revoked, unknown and malformed tokens: RFC 7009 section 2.2.
    oauth.post('/oauth/revoke', async (request) => {
      const { token, ...sent } = parameters(TokenParameter, request.body);
      const client = await deps.clients.identify(request.headers.authorization, sent);
      if (isConsole(client, deps)) await revokeOwn(token, deps);
      else {
        if (client.proof === 'none') throw invalidClient();
        await deps.liveTokens.revoke(token);
      }
      return {};
    });
  });
}

function isConsole(client: Client, { console }: Pick<OAuthDeps, 'console'>): boolean {
  return client.proof === 'none' && client.id === console.id;
}

/** Ends the session of a live refresh token of the console. A public client can revoke only its own (RFC 7009 section 2.1). */
async function revokeOwn(token: string, { sessions, console }: OAuthDeps): Promise<void> {
  const session = await sessions.findByRefreshToken(token);
  if (session?.client === console.key) await sessions.end(session.id);
}

/** Handles `POST /oauth/token` by grant type. */
class TokenEndpoint {
  readonly #deps: OAuthDeps;
  readonly #options: OAuthOptions;

  constructor(deps: OAuthDeps, options: OAuthOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  async answer(request: FastifyRequest): Promise<object> {
    const body = parameters(TokenRequest, request.body);
    const { authorization } = request.headers;
    switch (required(body, 'grant_type')) {
      case GRANT_TYPES.clientCredentials:
        return this.#clientCredentials(body, authorization);
      case GRANT_TYPES.refreshToken:
        return this.#refreshToken(body, authorization);
      case GRANT_TYPES.tokenExchange:
        return this.#tokenExchange(body, authorization);
      case GRANT_TYPES.authorizationCode:
        if (this.#options.passwordLogin) return this.#code(body, authorization);
        break;
      case GRANT_TYPES.password:
        if (this.#options.passwordLogin) return this.#password(body, authorization);
    }
    throw new OAuthError(
      'unsupported_grant_type',
      'The grant type is not supported. Use one that the server metadata lists.',
    );
  }

  async #clientCredentials(body: TokenRequest, authorization: string | undefined): Promise<object> {
    const client = await this.#deps.clients.identifyService(authorization, body);
    // A service token is a weaker proof than the secret. It must not yield a token with more scopes or a later expiry.
    if (client.proof !== 'secret')
      throw new OAuthError('invalid_client', 'This grant requires the client secret. Send it.');
    const scopes = requestedScopes(body.scope);
    if (!scopes)
      throw new OAuthError(
        'invalid_scope',
        'A requested scope is unknown. Request only scopes that the server metadata lists.',
      );
    return this.#deps.grants.service(client.id, scopes);
  }

  async #refreshToken(body: TokenRequest, authorization: string | undefined): Promise<object> {
    const token = required(body, 'refresh_token');
    const client = await this.#deps.clients.identify(authorization, body);
    return this.#deps.grants.refresh(token, clientKey(client));
  }

  async #password(body: TokenRequest, authorization: string | undefined): Promise<object> {
    const [username, password] = [required(body, 'username'), required(body, 'password')];
    const client = await this.#deps.clients.identify(authorization, body);
    return this.#deps.grants.password(username, password, clientKey(client));
  }

  async #code(body: TokenRequest, authorization: string | undefined): Promise<object> {
    const code = required(body, 'code');
    const redirectUri = required(body, 'redirect_uri');
    const verifier = required(body, 'code_verifier');
    const client = await this.#deps.clients.identify(authorization, body);
    if (!isConsole(client, this.#deps)) throw invalidClient();
    return this.#deps.grants.code({ code, redirectUri, verifier });
  }

  async #tokenExchange(body: TokenRequest, authorization: string | undefined): Promise<object> {
    const client = await this.#deps.clients.identifyService(authorization, body);
    if (!mayExchangeTokens(client)) {
      throw new OAuthError(
        'unauthorized_client',
        'The client lacks the scope token:exchange. Request a token with this scope.',
      );
    }
    const subjectToken = required(body, 'subject_token');
    if (!TOKEN_TYPES.includes(required(body, 'subject_token_type'))) {
      throw new OAuthError('invalid_request', 'subject_token_type must be the type of an access token.');
    }
    if (!TOKEN_TYPES.includes(body.requested_token_type ?? ACCESS_TOKEN_TYPE)) {
      throw new OAuthError('invalid_request', 'requested_token_type must be the type of an access token.');
    }
    if (body.actor_token !== undefined)
      throw new OAuthError('invalid_request', 'Delegation is not supported. Omit actor_token.');
    const audiences = body.audience === undefined ? [] : [body.audience].flat();
    if (body.resource !== undefined || audiences.some((audience) => audience !== this.#options.audience)) {
      throw new OAuthError(
        'invalid_target',
        'Tokens are issued for one audience only. Omit resource and other audiences.',
      );
    }
    const issued = await this.#deps.grants.exchange(subjectToken).catch((error) => {
      throw subjectRefused(error);
    });
    return { ...issued, issued_token_type: ACCESS_TOKEN_TYPE };
  }
}

/** RFC 8693 section 2.2.2: an invalid subject token is an `invalid_request`, not an `invalid_grant`. */
function subjectRefused(error: unknown): unknown {
  if (!(error instanceof TollgateError) || error.row.close !== 1008) return error;
  return new OAuthError('invalid_request', error.message, { code: error.code, cause: error });
}

function required(body: TokenRequest, name: Exclude<keyof TokenRequest, 'audience' | 'resource'>): string {
  const value = body[name];
  if (value === undefined) throw new OAuthError('invalid_request', `${name} is required.`);
  return value;
}
