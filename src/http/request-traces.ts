import type { FastifyInstance } from 'fastify';
import type { Tracing } from '../lib/tracing.ts';

/**
 * Prefix of the traced routes: administration and billing. Probes, pages and metrics would drown them; MCP has its own.
 */
const TRACED = '/v1/';

/**
 * Creates a trace per request to `/v1/`, by the semantic conventions of HTTP server spans. It ends with the last byte
 * of the response, or with the connection. Requests that a hook or validation rejects have no trace.
 */
export function traceRequests(app: FastifyInstance, { tracing }: { readonly tracing: Tracing }): void {
  // After the body: what runs on its last byte belongs to the asynchronous context of the socket, not of the request.
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
