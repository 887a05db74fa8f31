import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { withoutTrailing } from '../lib/text.ts';
import type { TollgateError } from '../protocol/errors.ts';
import { allowOrigins } from './cors.ts';

const WELL_KNOWN = '/.well-known/oauth-protected-resource';
/** What MCP clients send when they look for metadata, here and at the authorization server. */
export const METADATA_HEADERS = ['MCP-Protocol-Version'];

const DOCUMENTED = {
  tags: ['mcp'],
  summary: 'Which authorization server issues tokens for /mcp (RFC 9728).',
  response: {
    200: z.object({
      resource: z.string(),
      authorization_servers: z.array(z.string()),
      bearer_methods_supported: z.array(z.string()),
      resource_name: z.string(),
    }),
  },
};

export interface ProtectedResourceOptions {
  /** Where clients reach this installation; undefined to believe each request. */
  readonly publicUrl: string | undefined;
  /** The resource's path. */
  readonly path: string;
  /** The issuer whose tokens are taken, by RFC 8414 also the address of its metadata. */
  readonly issuer: string;
}

/**
 * `/mcp` as an OAuth 2.0 protected resource. No scopes are named: what a user may do follows from the plan, and no token
 * of theirs could be asked for that allows more, so that `insufficient_scope` is never answered either.
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

  /** A host that is none (it is the client's to send) is not repeated. */
  #base(request: FastifyRequest): string {
    const { publicUrl } = this.#options;
    if (publicUrl !== undefined) return withoutTrailing(publicUrl, '/');
    return URL.parse(`${request.protocol}://${request.host}`)?.origin ?? '';
  }
}

/** The metadata, at the place that follows from the resource's URL (RFC 9728 section 3.1) and at the root. */
export function registerProtectedResourceRoutes(
  app: FastifyInstance,
  { resource, allowedOrigins, path }: { resource: ProtectedResource; allowedOrigins: readonly string[]; path: string },
): void {
  app.register(async (scope) => {
    allowOrigins(scope, allowedOrigins, METADATA_HEADERS);
    const describe = async (request: FastifyRequest) => resource.describe(request);
    scope.get(WELL_KNOWN, { schema: DOCUMENTED }, describe);
    scope.get(`${WELL_KNOWN}${path}`, { schema: { hide: true } }, describe);
    // Preflights are answered by the hook, which runs only for a route that exists.
    for (const url of [WELL_KNOWN, `${WELL_KNOWN}${path}`]) {
      scope.options(url, { schema: { hide: true } }, (_request, reply) => reply.status(204).send());
    }
  });
}

/** Quoted strings are those of RFC 9110 section 5.6.4. RFC 6750 section 3: a request without a credential is told where to get one, and of no error. */
export function challenge(error: TollgateError, metadataUrl: string): string {
  const where = `Bearer resource_metadata="${metadataUrl.replaceAll(/["\\]/g, '\\$&')}"`;
  if (error.code === 'NO_TOKEN') return where;
  const description = error.message.replaceAll(/["\\]/g, '');
  return `${where}, error="invalid_token", error_description="${description}"`;
}
