import { fileURLToPath } from 'node:url';
import fastifyStatic from '@fastify/static';
import type { FastifyInstance } from 'fastify';

const CONSOLE_FOLDER = fileURLToPath(new URL('../../console/', import.meta.url));

/** A page of ours may load and call nothing but this gateway, and the auth service that it gets its token from. */
function contentSecurityPolicy(authServiceUrl: string): string {
  const connect = `connect-src 'self' ws: wss: ${new URL(authServiceUrl).origin}`;
  return `default-src 'self'; img-src 'self' data:; ${connect}; object-src 'none'; base-uri 'none'; frame-ancestors 'none'`;
}

/**
 * `/console`: a page that logs in, sends a message and shows the events as they come. `/console/config.json` tells it
 * where the auth service is, and whether there are demo accounts.
 */
export function registerConsoleRoutes(
  app: FastifyInstance,
  { authServiceUrl, environment }: { readonly authServiceUrl: string; readonly environment: string },
): void {
  const policy = contentSecurityPolicy(authServiceUrl);
  app.register(fastifyStatic, {
    root: CONSOLE_FOLDER,
    prefix: '/console/',
    decorateReply: false,
    setHeaders: (response) => {
      response.header('content-security-policy', policy);
      response.header('x-content-type-options', 'nosniff');
    },
  });
  app.get('/console', { schema: { hide: true } }, (_request, reply) => reply.redirect('/console/'));
  app.get('/console/config.json', { schema: { hide: true } }, async () => ({
    auth_service_url: authServiceUrl,
    demo_accounts: environment === 'development' || environment === 'test',
  }));
}
