import { fileURLToPath } from 'node:url';
import fastifyStatic from '@fastify/static';
import type { FastifyInstance } from 'fastify';

const CONSOLE_FOLDER = fileURLToPath(new URL('../../console/', import.meta.url));

/** Allows the console to load and call only this gateway, and to call the auth service that issues its token. */
function contentSecurityPolicy(authServiceUrl: string): string {
  const connect = `connect-src 'self' ws: wss: ${new URL(authServiceUrl).origin}`;
  return `default-src 'self'; img-src 'self' data:; ${connect}; object-src 'none'; base-uri 'none'; frame-ancestors 'none'`;
}

/**
 * `/console`: a page that logs in, sends a message and shows the events. `/console/config.json` contains the URL of the
 * auth service, and whether demo accounts exist.
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
