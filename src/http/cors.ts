import type { IncomingMessage } from 'node:http';
import type { FastifyInstance } from 'fastify';

/** Decides whether pages of an origin, by default that of the request, can send it. */
export interface OriginCheck {
  allow(request: IncomingMessage, origin?: string): boolean;
}

const PREFLIGHT_SECONDS = '600';

/**
 * Lets pages of the listed origins read the responses (Fetch standard, "CORS protocol"). Other origins get no CORS
 * headers, so their browsers withhold the response. Credentials mode is off, because no route uses cookies.
 * @param origins complete origins; `*`, which the configuration rejects in production, allows all
 * @param headers request headers that pages can send in addition to `Authorization` and `Content-Type`
 * @param responseHeaders response headers that pages can read in addition to those of errors
 */
export function allowOrigins(
  app: FastifyInstance,
  origins: readonly string[],
  headers: readonly string[] = [],
  responseHeaders: readonly string[] = [],
): void {
  const allowed = new Set(origins);
  const allowedHeaders = ['Authorization', 'Content-Type', ...headers].join(', ');
  const exposedHeaders = ['Retry-After', 'WWW-Authenticate', ...responseHeaders].join(', ');
  app.addHook('onRequest', async (request, reply) => {
    const { origin } = request.headers;
    reply.header('vary', 'Origin');
    if (origin === undefined || !(allowed.has(origin) || allowed.has('*'))) return;
    reply.header('access-control-allow-origin', origin);
    reply.header('access-control-expose-headers', exposedHeaders);
    if (request.method !== 'OPTIONS' || request.headers['access-control-request-method'] === undefined) return;
    reply.header('access-control-allow-methods', 'GET, POST, PUT');
    reply.header('access-control-allow-headers', allowedHeaders);
    reply.header('access-control-max-age', PREFLIGHT_SECONDS);
    return reply.status(204).send();
  });
}
