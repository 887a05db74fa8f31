import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { FastifyInstance } from 'fastify';
import { jsonSchemaTransform, validatorCompiler } from 'fastify-type-provider-zod';

const DESCRIPTION =
  'The gateway between a chat and the agents behind it. The WebSocket endpoints are described by GET /ws/config.';

/**
 * Makes the routes that are added afterwards part of `/openapi.json`, which `/docs` shows, and lets their schemas be
 * zod's. The pages of `/docs` come from this server alone: they work without the internet, under a policy that lets
 * nothing else in.
 */
export async function describeRoutes(app: FastifyInstance): Promise<void> {
  app.setValidatorCompiler(validatorCompiler);
  // Answers are told by their types and held by tests: checking each again would cost more than making it.
  app.setSerializerCompiler(() => (data) => JSON.stringify(data));
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Tollgate', version: '1', description: DESCRIPTION, license: { name: 'Apache-2.0' } },
      components: {
        securitySchemes: {
          service: { type: 'http', scheme: 'bearer', description: 'Token of a service, with the scope named.' },
          user: { type: 'http', scheme: 'bearer', description: 'Access token of a user.' },
        },
      },
    },
    transform: jsonSchemaTransform,
  });
  app.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger());
  await app.register(swaggerUi, {
    routePrefix: '/docs',
    uiConfig: { validatorUrl: null },
    staticCSP: true,
    transformStaticCSP: sameOriginOnly,
  });
}

/**
 * The package's policy without what it lets in from elsewhere, and without its upgrade to https, under which the page
 * would not load from a plain port.
 */
function sameOriginOnly(policy: string): string {
  return policy
    .replaceAll(' https:', '')
    .replaceAll(' validator.swagger.io', '')
    .replace(' upgrade-insecure-requests;', '')
    .replace("frame-ancestors 'self'", "frame-ancestors 'none'");
}
