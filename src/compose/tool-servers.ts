import type { ToolServerReport } from '../http/tool-server-routes.ts';
import type { Upstream } from '../upstreams/upstream.ts';

/** Returns the state of an upstream in the form of `GET /v1/tool-servers`. */
export function toolServerReport({ server, status, capabilities }: Upstream): ToolServerReport {
  const { tools, resources, templates, prompts, omitted } = capabilities;
  const listed = new Set([...tools.keys(), ...omitted.filter(isTool).map(({ name }) => name)]);
  return {
    name: server.name,
    transport: server.address.kind,
    state: status.state,
    problem: status.problem ?? null,
    read_at: status.readAt === undefined ? null : new Date(status.readAt).toISOString(),
    protocol: status.protocol ?? null,
    implementation: status.implementation ? { ...status.implementation } : null,
    breakers: { ...status.breakers },
    rate_limited_ms: status.limitedMs,
    tools: [...tools.keys()],
    missing: [...server.tools].filter((name) => !listed.has(name)),
    resources: resources.length,
    resource_templates: templates.length,
    prompts: prompts.length,
    omitted: omitted.map((row) => ({ ...row })),
  };
}

function isTool({ list }: { readonly list: string }): boolean {
  return list === 'tools/list';
}
