import { z } from 'zod';

const Row = z.looseObject({ name: z.string() });
export const CatalogueBody = z
  .object({
    version: z.string().describe('Version of the catalogues in use.'),
    plans: z.array(Row),
    permissions: z.array(Row),
    tools: z.array(Row),
    agents: z.array(Row),
    tool_servers: z.array(Row).describe('As in `GET /v1/tool-servers`.'),
    matrix: z
      .object({
        plans: z.array(z.string()),
        tools: z.array(z.object({ tool: z.string(), allowed: z.record(z.string(), z.boolean()) })),
      })
      .describe('What each plan allows to a token without permissions and roles of its own.'),
  })
  .meta({
    id: 'Catalogue',
    examples: [
      {
        version: '5f2b6c0d9a41',
        plans: [{ name: 'free', rank: 0 }],
        permissions: [{ name: 'basic' }],
        tools: [{ name: 'create_thread', permission: 'basic', units: 1 }],
        agents: [{ name: 'analyst', kind: 'built_in' }],
        tool_servers: [],
        matrix: { plans: ['free'], tools: [{ tool: 'create_thread', allowed: { free: true } }] },
      },
    ],
  });
export const DiffBody = z
  .object({
    version: z.string(),
    next_version: z.string().nullable().describe('Version after a reload; null if the files are invalid.'),
    valid: z.boolean(),
    mistakes: z.array(z.object({ file: z.string(), line: z.number(), field: z.string(), message: z.string() })),
    changes: z.array(
      z.object({
        path: z.string(),
        kind: z.enum(['added', 'removed', 'changed']),
        before: z.unknown(),
        after: z.unknown(),
      }),
    ),
  })
  .meta({
    id: 'CatalogueDiff',
    examples: [
      {
        version: '5f2b6c0d9a41',
        next_version: '90aa3d81c7e2',
        valid: true,
        mistakes: [],
        changes: [{ path: 'plans.free.threads', kind: 'changed', before: 5, after: 10 }],
      },
    ],
  });
export const SettingsBody = z
  .object({
    settings: z.array(
      z.object({
        name: z.string(),
        value: z.string().nullable().describe('Null for a secret, and for a variable without a value.'),
        source: z.enum(['environment', 'default']),
        secret: z.boolean(),
      }),
    ),
    endpoints: z.array(z.object({ path: z.string(), description: z.string() })),
  })
  .meta({
    id: 'Settings',
    examples: [
      {
        settings: [
          { name: 'PORT', value: '8000', source: 'default', secret: false },
          { name: 'SERVICE_SECRET', value: null, source: 'environment', secret: true },
        ],
        endpoints: [{ path: '/ws', description: 'WebSocket, flat JSON' }],
      },
    ],
  });
export const ChecksBody = z
  .object({
    checks: z.array(z.object({ name: z.string(), ok: z.boolean(), ms: z.number(), detail: z.string() })),
  })
  .meta({ id: 'ConnectionChecks', examples: [{ checks: [{ name: 'redis', ok: true, ms: 1, detail: 'answers' }] }] });
