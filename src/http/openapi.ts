import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { FastifyInstance } from 'fastify';
import { jsonSchemaTransform, jsonSchemaTransformObject } from 'fastify-type-provider-zod';
import { finishDocument } from './openapi-document.ts';
import { acceptZodSchemas } from './route-docs.ts';

const DESCRIPTION = `The HTTP interface of a Tollgate gateway: administration, usage and billing, tickets, operations
and MCP. \`GET /ws/config\` describes the WebSocket endpoints. Every error has the form \`{ "error": { code, message,
retryable } }\`; errors of \`/mcp\` are JSON-RPC.`;

const SERVICE = `Access token of a service, with the listed scope. Instead of \`Bearer <token>\`, the header can be
\`Service-Token <token>\` together with \`X-Service-ID\` and \`X-User-Context\`.`;

const TAGS = [
  { name: 'console', description: 'What the console shows of the cluster, and the audit log.' },
  { name: 'admin', description: 'Connections, plans, blocks, revocations and events of users.' },
  { name: 'user data', description: 'Export and erasure of the data of a user.' },
  { name: 'usage', description: 'The ledger of usage records, its tallies, windows, exports and corrections.' },
  { name: 'tickets', description: 'Single-use credentials for WebSocket handshakes.' },
  { name: 'identity', description: 'Events with which identity providers end sessions.' },
  { name: 'mcp', description: 'The Model Context Protocol over HTTP.' },
  { name: 'chat', description: 'Chats for the transports of the AI SDK 7.' },
  { name: 'runs', description: 'Runs and events of a user over plain HTTP.' },
  { name: 'ag-ui', description: 'AG-UI 1.0 and the routes of CopilotKit, for front ends that speak them.' },
  { name: 'websocket', description: 'What clients need to know before they connect.' },
  { name: 'operations', description: 'Health, metrics and configuration.' },
];

/**
 * Adds the routes that are registered afterwards to `/openapi.json`, which `/docs` renders, and lets them have zod
 * schemas. The pages of `/docs` load everything from this server, so they work offline; their content security policy
 * allows no other origin.
 */
export async function describeRoutes(app: FastifyInstance): Promise<void> {
  acceptZodSchemas(app);
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Tollgate',
        version: '1',
        description: DESCRIPTION,
        license: { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0' },
      },
      tags: TAGS,
      components: {
        securitySchemes: {
          service: { type: 'http', scheme: 'bearer', description: SERVICE },
          user: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT', description: 'Access token of a user.' },
        },
      },
    },
    transform: jsonSchemaTransform,
    transformObject: (document) => finishDocument(jsonSchemaTransformObject(document)),
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
 * Removes from the package's policy the external origins, and the upgrade to https, under which the page would not load
 * from a plain HTTP port.
 */
function sameOriginOnly(policy: string): string {
  return policy
    .replaceAll(' https:', '')
    .replaceAll(' validator.swagger.io', '')
    .replace(' upgrade-insecure-requests;', '')
    .replace("frame-ancestors 'self'", "frame-ancestors 'none'");
}
