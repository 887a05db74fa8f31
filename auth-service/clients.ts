import { TollgateError } from '../src/protocol/errors.ts';
import type { LiveTokens } from './live-tokens.ts';
import { OAuthError } from './oauth-errors.ts';
import { sameSecret } from './secrets.ts';

/** Scopes that a service can have. */
export const SERVICE_SCOPES = [
  'usage:read',
  'usage:write',
  'events:write',
  'admin:read',
  'admin',
  'token:exchange',
] as const;
/** Scopes for a request without a scope (RFC 6749 section 3.3): read-only access. */
export const DEFAULT_SCOPES: readonly string[] = ['usage:read'];

/** A service chooses its own id. It authenticates with the secret that all services of a deployment share. */
const SERVICE_ID = /^[A-Za-z][\w.-]{0,63}$/;

/**
 * Client of a request. `none`: an unauthenticated client with only a name. `secret`: a service that authenticated
 * with the secret and may be granted any scope. `token`: a service that authenticated with a service token; it has
 * the scopes of the token and cannot obtain a token with more.
 */
export type Client =
  | { readonly proof: 'none'; readonly id: string }
  | { readonly proof: 'secret'; readonly id: string }
  | { readonly proof: 'token'; readonly id: string; readonly scopes: readonly string[] };

export interface ClientParameters {
  readonly client_id?: string | undefined;
  readonly client_secret?: string | undefined;
}

/** Returns the client to which a refresh token is bound. */
export function clientKey(client: Client): string {
  return `${client.proof === 'none' ? 'public' : 'service'}:${client.id}`;
}

export function mayExchangeTokens(client: Client): boolean {
  return client.proof === 'secret' || (client.proof === 'token' && client.scopes.includes('token:exchange'));
}

/** Parses the scopes of a request, in the order of `SERVICE_SCOPES`. Returns undefined if one of them is unknown. */
export function requestedScopes(scope: string | undefined): readonly string[] | undefined {
  if (scope === undefined) return DEFAULT_SCOPES;
  const requested = scope.split(' ').filter(Boolean);
  const valid = SERVICE_SCOPES.filter((candidate) => requested.includes(candidate));
  return requested.length > 0 && requested.every((name) => valid.some((candidate) => candidate === name))
    ? valid
    : undefined;
}

/** Authenticates services with the secret of the deployment or with a service token. */
export class Clients {
  readonly #liveTokens: LiveTokens;
  readonly #secret: string;

  constructor({ liveTokens }: { liveTokens: LiveTokens }, options: { readonly serviceSecret: string }) {
    this.#liveTokens = liveTokens;
    this.#secret = options.serviceSecret;
  }

  verifySecret(id: string, secret: string): boolean {
    // Both checks always run, so that the response time does not reveal which one failed.
    const matches = sameSecret(secret, this.#secret);
    return SERVICE_ID.test(id) && matches;
  }

  /**
   * Identifies the client of an OAuth request: RFC 6749 section 2.3.1, or a service token as bearer token (RFC 6750).
   * @throws OAuthError invalid_client for a wrong secret; invalid_request for two authentication methods at once
   */
  async identify(authorization: string | undefined, body: ClientParameters): Promise<Client> {
    const [scheme = '', credentials = ''] = (authorization ?? '').trim().split(/\s+/, 2);
    if (scheme.toLowerCase() === 'basic') return this.#byBasic(credentials, body);
    if (body.client_secret !== undefined) {
      const id = body.client_id ?? '';
      if (!this.verifySecret(id, body.client_secret)) throw invalidClient();
      return { proof: 'secret', id };
    }
    const service = await this.#byToken(scheme, credentials);
    return service ?? { proof: 'none', id: body.client_id ?? '' };
  }

  /**
   * As `identify`, for routes that only services may call.
   * @throws OAuthError as `identify`; invalid_client for an unauthenticated client
   */
  async identifyService(authorization: string | undefined, body: ClientParameters): Promise<Client> {
    const client = await this.identify(authorization, body);
    if (client.proof === 'none') throw invalidClient();
    return client;
  }

  /** Requires a service token with the scope. @throws TollgateError of the authentication rows, PERMISSION_DENIED */
  async requireScope(authorization: string | undefined, scope: string): Promise<string> {
    const token = bearerToken(authorization);
    if (token === undefined) throw new TollgateError('NO_TOKEN');
    const claims = await this.#liveTokens.service(token);
    if (!claims.scope.split(' ').includes(scope)) {
      const fields = { required_permissions: [scope], missing_permissions: [scope] };
      throw new TollgateError('PERMISSION_DENIED', { fields });
    }
    return serviceIdOf(claims.sub);
  }

  #byBasic(credentials: string, body: ClientParameters): Client {
    if (body.client_secret !== undefined) {
      throw new OAuthError('invalid_request', 'The client authenticates in more than one way. Use one method.');
    }
    const decoded = Buffer.from(credentials, 'base64').toString('utf8');
    const colon = decoded.indexOf(':');
    const [sentId, secret] = [decoded.slice(0, Math.max(colon, 0)), decoded.slice(colon + 1)];
    // RFC 6749 section 2.3.1 requires both parts to be form-encoded; curl and many clients send them unencoded. Some
    // libraries also encode `-`, `_` and `.`, which form encoding leaves as they are. A service id contains no `%`, so
    // only its decoded form can be valid.
    const id = formDecoded(sentId);
    const matches = [this.verifySecret(id, secret), this.verifySecret(id, formDecoded(secret))].includes(true);
    if (!matches) throw invalidClient();
    if (body.client_id !== undefined && body.client_id !== id) {
      throw new OAuthError(
        'invalid_request',
        'client_id differs from the client that authenticates. Send the same id.',
      );
    }
    return { proof: 'secret', id };
  }

  /**
   * Returns undefined if the token is not a valid service token; the route decides whether authentication is
   * required.
   */
  async #byToken(scheme: string, token: string): Promise<Client | undefined> {
    if (!isTokenScheme(scheme) || token === '') return undefined;
    try {
      const claims = await this.#liveTokens.service(token);
      return { proof: 'token', id: serviceIdOf(claims.sub), scopes: claims.scope.split(' ') };
    } catch (error) {
      if (error instanceof TollgateError && error.row.http < 500) return undefined;
      throw error;
    }
  }
}

/** Returns the token of an `Authorization` header, or undefined. `Service-Token` is a scheme of the gateways. */
export function bearerToken(authorization: string | undefined): string | undefined {
  const [scheme = '', token = ''] = (authorization ?? '').trim().split(/\s+/, 2);
  return isTokenScheme(scheme) && token !== '' ? token : undefined;
}

function isTokenScheme(scheme: string): boolean {
  return ['bearer', 'service-token'].includes(scheme.toLowerCase());
}

export function serviceIdOf(subject: string): string {
  return subject.slice('service:'.length);
}

function formDecoded(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    return text;
  }
}

export function invalidClient(): OAuthError {
  return new OAuthError('invalid_client', 'Client authentication failed. Check client_id and client_secret.');
}
