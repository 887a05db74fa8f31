import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { withoutTrailing } from '../lib/text.ts';
import type { TollgateError } from '../protocol/errors.ts';
import { allowOrigins } from './cors.ts';
import { PUBLIC, PUBLIC_ERRORS, typedRoutes } from './route-docs.ts';

const WELL_KNOWN = '/.well-known/oauth-protected-resource';
/** Headers that MCP clients send with requests for metadata, here and at the authorization server. */
export const METADATA_HEADERS = ['MCP-Protocol-Version'];

const Metadata = z
  .object({
    resource: z.string(),
    authorization_servers: z.array(z.string()),
    bearer_methods_supported: z.array(z.string()),
    resource_name: z.string(),
  })
  .meta({
    id: 'ProtectedResourceMetadata',
    examples: [
      {
        resource: 'https://gateway.example.com/mcp',
        authorization_servers: ['https://auth.example.com'],
        bearer_methods_supported: ['header'],
        resource_name: 'Tollgate',
      },
    ],
  });
const DOCUMENTED = {
  tags: ['mcp'],
  security: PUBLIC,
  'x-errors': PUBLIC_ERRORS,
  summary: 'Get the OAuth metadata of /mcp',
  description: 'Names the authorization server that issues access tokens for `/mcp` (RFC 9728).',
  response: { 200: Metadata },
};

export interface ProtectedResourceOptions {
  /** URL at which clients reach this deployment; undefined to use the host of each request. */
  readonly publicUrl: string | undefined;
  /** Path of the resource. */
  readonly path: string;
  /** The issuer of the accepted tokens; by RFC 8414, also the base URL of its metadata. */
  readonly issuer: string;
}

/**
 * `/mcp` as an OAuth 2.0 protected resource. The metadata lists no scopes: the plan of a user determines the
 * permissions, and no other token would grant more. For the same reason, the route never responds with
 * `insufficient_scope`.
 */
export class ProtectedResource {
  readonly #options: ProtectedResourceOptions;

  constructor(options: ProtectedResourceOptions) {
    this.#options = options;
  }

  metadataUrl(request: FastifyRequest): string {
    return `${this.#base(request)}${WELL_KNOWN}${this.#options.path}`;
  }

  describe(request: FastifyRequest) {
    return {
      resource: `${this.#base(request)}${this.#options.path}`,
      authorization_servers: [this.#options.issuer],
      bearer_methods_supported: ['header'],
      resource_name: 'Tollgate',
    };
  }

  /** Base URL of the deployment; empty if the `Host` of the request, which the client chooses, is not a valid one. */
  #base(request: FastifyRequest): string {
    const { publicUrl } = this.#options;
    if (publicUrl !== undefined) return withoutTrailing(publicUrl, '/');
    return URL.parse(`${request.protocol}://${request.host}`)?.origin ?? '';
  }
}

/** Serves the metadata at the path that RFC 9728 section 3.1 derives from the URL of the resource, and at the root. */
export function registerProtectedResourceRoutes(
  app: FastifyInstance,
  { resource, allowedOrigins, path }: { resource: ProtectedResource; allowedOrigins: readonly string[]; path: string },
): void {
  app.register(async (scope) => {
    allowOrigins(scope, allowedOrigins, METADATA_HEADERS);
    const describe = async (request: FastifyRequest) => resource.describe(request);
    const routes = typedRoutes(scope);
    const atRoot = { ...DOCUMENTED, operationId: 'getMetadataAtRoot', summary: `${DOCUMENTED.summary}, at the root` };
    routes.get(WELL_KNOWN, { schema: atRoot }, describe);
    const atPath = { ...DOCUMENTED, operationId: 'getMetadata' };
    routes.get(`${WELL_KNOWN}${path}`, { schema: atPath }, describe);
    // The hook responds to preflights, but it runs only if the route exists.
    for (const url of [WELL_KNOWN, `${WELL_KNOWN}${path}`]) {
      scope.options(url, { schema: { hide: true } }, (_request, reply) => reply.status(204).send());
    }
  });
}

/**
 * Value of `WWW-Authenticate`. By RFC 6750 section 3, the response to a request without a credential names the metadata
 * and no error. Quoted strings follow RFC 9110 section 5.6.4.
 */
export function challenge(error: TollgateError, metadataUrl: string): string {
  const where = `Bearer resource_metadata="${metadataUrl.replaceAll(/["\\]/g, '\\$&')}"`;
  if (error.code === 'NO_TOKEN') return where;
  const description = error.message.replaceAll(/["\\]/g, '');
  return `${where}, error="invalid_token", error_description="${description}"`;
}
