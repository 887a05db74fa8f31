import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { SERVICE_ERRORS, serviceToken, typedRoutes } from './route-docs.ts';
import type { IdentifyService } from './services.ts';

const BreakerState = z.enum(['closed', 'half_open', 'open']);

const ToolServer = z
  .object({
    name: z.string().describe('Name of the server in the file of `TOOL_SERVERS`.'),
    transport: z.enum(['http', 'stdio']),
    state: z
      .enum(['pending', 'ready', 'failing'])
      .describe('`pending`: not read yet. `failing`: the latest reading failed; what was read before is offered.'),
    problem: z.string().nullable().describe('Problem of the latest reading; null unless `failing`.'),
    read_at: z.string().nullable().describe('Time of the latest successful reading (RFC 3339).'),
    protocol: z.string().nullable().describe('Negotiated MCP version.'),
    implementation: z
      .object({ name: z.string(), version: z.string() })
      .nullable()
      .describe('As the server reports it.'),
    breakers: z
      .object({ calls: BreakerState, reads: BreakerState, lists: BreakerState })
      .describe('Circuit breakers of tool calls, of resources and prompts, and of lists.'),
    rate_limited_ms: z
      .number()
      .describe('Milliseconds until requests are sent again after a rate limit; 0 without one.'),
    tools: z.array(z.string()).describe('Tools that can be called, by their names at the server.'),
    missing: z.array(z.string()).describe('Tools that the file names and the server does not list.'),
    resources: z.number(),
    resource_templates: z.number(),
    prompts: z.number(),
    omitted: z
      .array(
        z.object({
          list: z.enum(['tools/list', 'resources/list', 'resources/templates/list', 'prompts/list']),
          name: z.string().describe('Name or URI of the entry; empty for an entry without one, and for a whole list.'),
          reason: z.string(),
        }),
      )
      .describe('Entries that the file allows and that cannot be used.'),
  })
  .meta({ id: 'ToolServer' });

const ToolServers = z.object({ node: z.string(), servers: z.array(ToolServer) }).meta({
  id: 'ToolServers',
  examples: [
    {
      node: 'node_2f6c0d9a41',
      servers: [
        {
          name: 'search',
          transport: 'http',
          state: 'ready',
          problem: null,
          read_at: '2026-11-30T12:00:00.000Z',
          protocol: '2025-11-25',
          implementation: { name: 'search-server', version: '1.4.0' },
          breakers: { calls: 'closed', reads: 'closed', lists: 'closed' },
          rate_limited_ms: 0,
          tools: ['web_search'],
          missing: [],
          resources: 12,
          resource_templates: 1,
          prompts: 0,
          omitted: [{ list: 'tools/list', name: 'find', reason: 'inputSchema: Invalid input: expected object' }],
        },
      ],
    },
  ],
});

export type ToolServerReport = z.infer<typeof ToolServer>;

export interface ToolServerRoutesDeps {
  readonly identifyService: IdentifyService;
  readonly nodeId: string;
  readonly toolServers: () => readonly ToolServerReport[];
}

/** `GET /v1/tool-servers`, with the scope `admin:read`: the tool servers as this node sees them. */
export function registerToolServerRoutes(app: FastifyInstance, deps: ToolServerRoutesDeps): void {
  typedRoutes(app).get(
    '/v1/tool-servers',
    {
      schema: {
        operationId: 'listToolServers',
        summary: 'List the tool servers',
        description: `State of each server of \`TOOL_SERVERS\` on this node: connection, version, circuit breakers, and what
it offers. \`omitted\` has each entry of its lists that the gateway cannot use, with the reason. Each process has its own
connections, so another node can see another state.`,
        tags: ['operations'],
        security: serviceToken('admin:read'),
        'x-errors': [...SERVICE_ERRORS],
        response: { 200: ToolServers },
      },
    },
    async (request) => {
      await deps.identifyService(request, 'admin:read');
      return { node: deps.nodeId, servers: [...deps.toolServers()] };
    },
  );
}
