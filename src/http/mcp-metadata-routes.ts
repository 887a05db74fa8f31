import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { withoutTrailing } from '../lib/text.ts';
import { TollgateError } from '../protocol/errors.ts';
import { allowOrigins } from './cors.ts';
import { PUBLIC, PUBLIC_ERRORS, typedRoutes } from './route-docs.ts';

const WELL_KNOWN = '/.well-known/oauth-protected-resource';
/** Headers that MCP clients send with requests for metadata, here and at the authorization server. */
export const METADATA_HEADERS = ['MCP-Protocol-Version'];

const Metadata = z
  .object({
    resource: z.string(),
    authorization_servers: z.array(z.string()).optional().describe('Absent if no issuer is a URL.'),
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
  /**
   * The issuers of the accepted tokens. The metadata lists those that are issuer identifiers of RFC 8414 section 2; a
   * client cannot find the metadata of others, and some stop at a text that is not a URL.
   */
  readonly issuers: readonly string[];
}

/** RFC 8414 section 2: a URL without query and fragment. Plain http is common within a cluster and in development. */
function isIssuerIdentifier(issuer: string): boolean {
  const url = issuer.includes('://') ? URL.parse(issuer) : null;
  return url !== null && ['http:', 'https:'].includes(url.protocol) && !/[?#]/.test(issuer);
}

/**
 * `/mcp` as an OAuth 2.0 protected resource. The metadata lists no scopes: the plan of a user determines the
 * permissions, and no other token would grant more. For the same reason, the route never responds with
 * `insufficient_scope`.
 */
export class ProtectedResource {
  readonly #options: ProtectedResourceOptions;
  readonly #authorizationServers: string[];

  constructor(options: ProtectedResourceOptions) {
    this.#options = options;
    this.#authorizationServers = options.issuers.filter(isIssuerIdentifier);
  }

  /** URL of the metadata; undefined if the request does not show the URL of this deployment. */
  metadataUrl(request: FastifyRequest): string | undefined {
    const base = this.#base(request);
    return base === undefined ? undefined : `${base}${WELL_KNOWN}${this.#options.path}`;
  }

  /** @throws TollgateError FORMAT_ERROR if the request does not show the URL of this deployment */
  describe(request: FastifyRequest) {
    const base = this.#base(request);
    if (base === undefined) {
      throw new TollgateError('FORMAT_ERROR', { text: 'The Host header must be the host of this server.' });
    }
    const servers = this.#authorizationServers;
    return {
      resource: `${base}${this.#options.path}`,
      ...(servers.length === 0 ? {} : { authorization_servers: servers }),
      bearer_methods_supported: ['header'],
      resource_name: 'Tollgate',
    };
  }

  /** Base URL of the deployment; undefined if the client, which chooses `Host`, sends none that is part of a URL. */
  #base(request: FastifyRequest): string | undefined {
    const { publicUrl } = this.#options;
    if (publicUrl !== undefined) return withoutTrailing(publicUrl, '/');
    if (!request.host) return undefined;
    return URL.parse(`${request.protocol}://${request.host}`)?.origin;
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
export function challenge(error: TollgateError, metadataUrl: string | undefined): string {
  const where = metadataUrl?.replaceAll(/["\\]/g, '\\$&');
  const description = error.message.replaceAll(/["\\]/g, '');
  const parameters = [
    ...(where === undefined ? [] : [`resource_metadata="${where}"`]),
    ...(error.code === 'NO_TOKEN' ? [] : ['error="invalid_token"', `error_description="${description}"`]),
  ];
  return ['Bearer', parameters.join(', ')].filter(Boolean).join(' ');
}
