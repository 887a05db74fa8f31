import type { FastifyInstance } from 'fastify';
import type { Tracing } from '../lib/tracing.ts';

/** Where operators and billing ask; probes, pages and metrics would bury them, and MCP has traces of its own. */
const TRACED = '/v1/';

/**
 * A trace for each request to the API, by the semantic conventions of HTTP server spans: it ends with the last byte of the
 * answer, or with the connection.
 */
export function traceRequests(app: FastifyInstance, { tracing }: { readonly tracing: Tracing }): void {
  // Once the body is there: what its last byte sets going belongs to the socket, and to no request.
  app.addHook('preHandler', (request, reply, next) => {
    const { url: route = '' } = request.routeOptions;
    if (!route.startsWith(TRACED)) return next();
    const attributes = { 'http.request.method': request.method, 'http.route': route };
    void tracing.root(`${request.method} ${route}`, { kind: 'server', attributes }, async (span) => {
      const ended = new Promise((resolve) => reply.raw.once('close', resolve));
      next();
      await ended;
      const { statusCode } = reply;
      span.set({ 'http.response.status_code': statusCode });
      if (statusCode >= 500) span.set({ 'error.type': String(statusCode) });
    });
  });
}
