import type { FastifyInstance } from 'fastify';

const PREFLIGHT_SECONDS = '600';

/**
 * Lets pages of the listed origins read the answers (Fetch standard, "CORS protocol"). A page of another origin gets no
 * header, and its browser keeps the answer from it. Credentials mode stays off: no cookie ever counts here.
 * @param origins whole origins; `*`, which the configuration refuses in production, allows all
 * @param headers what pages may send besides a credential and a content type
 */
export function allowOrigins(app: FastifyInstance, origins: readonly string[], headers: readonly string[] = []): void {
  const allowed = new Set(origins);
  const allowedHeaders = ['Authorization', 'Content-Type', ...headers].join(', ');
  app.addHook('onRequest', async (request, reply) => {
    const { origin } = request.headers;
    reply.header('vary', 'Origin');
    if (origin === undefined || !(allowed.has(origin) || allowed.has('*'))) return;
    reply.header('access-control-allow-origin', origin);
    reply.header('access-control-expose-headers', 'Retry-After, WWW-Authenticate');
    if (request.method !== 'OPTIONS' || request.headers['access-control-request-method'] === undefined) return;
    reply.header('access-control-allow-methods', 'GET, POST, PUT');
    reply.header('access-control-allow-headers', allowedHeaders);
    reply.header('access-control-max-age', PREFLIGHT_SECONDS);
    return reply.status(204).send();
  });
}
