import type { Client, Prompt, RequestOptions, Resource, ResourceTemplateType } from '@modelcontextprotocol/client';
import { isTooDeep, type ToolDescription } from '../catalogue/tool-catalogue.ts';
import type { Allowed, ToolServer } from '../catalogue/tool-servers.ts';
import { type Check, CompiledTooLong, type JsonSchema, type Schemas, Unchecked } from './schemas.ts';

/** Maximum number of entries in each list of a server; further entries are omitted. */
const MAX_LISTED = 200;
/** Maximum size of one list entry as JSON; larger entries are omitted. */
const MAX_ROW_BYTES = 4 * 1024;
const MAX_DESCRIPTION_CHARS = 4_000;
/** Maximum size of all tools of one server as JSON, because every tool list of every caller contains them. */
const MAX_TOOLS_BYTES = 256 * 1024;
/** Number of slow schemas of one server after which no further schema of it is compiled. */
const MAX_SLOW_SCHEMAS = 5;

export interface DiscoveredTool extends ToolDescription {
  /** Checks the structured content of a result; undefined for a tool without an output schema. */
  readonly resultProblem: Check | undefined;
  /** The schemas as JSON, so that unchanged schemas are not compiled again. */
  readonly compiledFrom: string;
}

/** Tools, resources and prompts that a server reports and the operator allows. */
export interface UpstreamCapabilities {
  /** By their names on the server. */
  readonly tools: ReadonlyMap<string, DiscoveredTool>;
  /** Unusable schemas as JSON, by tool name. */
  readonly omitted: ReadonlyMap<string, string>;
  /** Number of schemas that took too long to compile. */
  readonly late: number;
  /** False when some tools are left for the next reading. */
  readonly complete: boolean;
  readonly resources: readonly Resource[];
  readonly templates: readonly ResourceTemplateType[];
  readonly prompts: readonly Prompt[];
}

export const NO_CAPABILITIES: UpstreamCapabilities = {
  tools: new Map(),
  omitted: new Map(),
  late: 0,
  complete: true,
  resources: [],
  templates: [],
  prompts: [],
};

export interface CapabilitiesDeps {
  readonly schemas: Schemas;
  /** Called once for each omitted tool, with the reason. */
  readonly onOmitted: (tool: string, reason: string) => void;
}

/** Reads the lists of a server. @param before result of the previous reading */
export async function readCapabilities(
  client: Client,
  { server, before, options }: { server: ToolServer; before: UpstreamCapabilities; options: RequestOptions },
  deps: CapabilitiesDeps,
): Promise<UpstreamCapabilities> {
  const { tools, resources, prompts } = client.getServerCapabilities() ?? {};
  const fresh = { ...options, cacheMode: 'refresh' } as const;
  const [listed, found, templates, texts] = await Promise.all([
    tools && server.tools.size > 0 ? client.listTools(undefined, fresh) : { tools: [] },
    resources && server.resources ? client.listResources(undefined, fresh) : { resources: [] },
    resources && server.resources ? client.listResourceTemplates(undefined, fresh) : { resourceTemplates: [] },
    prompts && server.prompts ? client.listPrompts(undefined, fresh) : { prompts: [] },
  ]);
  const allowed = listed.tools.filter(({ name }) => server.tools.has(name));
  return {
    ...toolsOf(allowed, before, deps),
    resources: rows(found.resources, server.resources, ({ uri }) => uri),
    templates: rows(templates.resourceTemplates, server.resources, ({ uriTemplate }) => uriTemplate),
    prompts: rows(texts.prompts, server.prompts, ({ name }) => name),
  };
}

interface ListedTool {
  readonly name: string;
  readonly description?: string | undefined;
  readonly inputSchema: JsonSchema;
  readonly outputSchema?: JsonSchema | undefined;
}

type DiscoveredTools = Pick<UpstreamCapabilities, 'tools' | 'omitted' | 'late' | 'complete'>;

function toolsOf(listed: readonly ListedTool[], before: UpstreamCapabilities, deps: CapabilitiesDeps): DiscoveredTools {
  const tools = new Map<string, DiscoveredTool>();
  const omitted = new Map<string, string>();
  let { late } = before;
  let bytes = 0;
  for (const { name, description = '', inputSchema, outputSchema } of listed) {
    // The first of several tools with the same name is used.
    if (tools.has(name) || omitted.has(name)) continue;
    const compiledFrom = JSON.stringify([inputSchema, outputSchema]);
    const text = { description: description.slice(0, MAX_DESCRIPTION_CHARS).toWellFormed() || name };
    const omit = (reason: string) => {
      omitted.set(name, compiledFrom);
      if (before.omitted.get(name) !== compiledFrom) deps.onOmitted(name, reason);
    };
    const previous = before.tools.get(name);
    bytes += Buffer.byteLength(compiledFrom) + Buffer.byteLength(text.description);
    if (bytes > MAX_TOOLS_BYTES) omit(`the tools of the server up to this one exceed ${MAX_TOOLS_BYTES} bytes`);
    else if (previous?.compiledFrom === compiledFrom) tools.set(name, { ...previous, ...text });
    else if (before.omitted.get(name) === compiledFrom) omitted.set(name, compiledFrom);
    else if (late >= MAX_SLOW_SCHEMAS) omit('other schemas of the server took too long to compile');
    // At most one slow schema per reading; the remaining tools are compiled in the next reading.
    else if (late === before.late) {
      try {
        tools.set(name, { ...text, ...compiled(inputSchema, outputSchema, deps.schemas), compiledFrom });
      } catch (error) {
        // Retried in the next reading: the schema may be valid and the machine busy.
        if (error instanceof CompiledTooLong) late += 1;
        else omit(error instanceof Error ? error.message : String(error));
      }
    }
  }
  return { tools, omitted, late, complete: late === before.late };
}

function compiled(inputSchema: JsonSchema, outputSchema: JsonSchema | undefined, schemas: Schemas) {
  const check = schemas.compile(inputSchema);
  const checkResult = outputSchema && schemas.compile(outputSchema);
  return {
    arguments: inputSchema,
    // Arguments that take too long to check are passed on, because the server must check them anyway.
    argumentsProblem: (args: unknown) => {
      return isTooDeep(args) ? 'arguments are nested too deeply' : unlessUnchecked(check, args, undefined);
    },
    resultProblem:
      checkResult && ((result: unknown) => unlessUnchecked(checkResult, result, 'takes too long to check')),
  };
}

function unlessUnchecked(check: Check, value: unknown, otherwise: string | undefined): string | undefined {
  try {
    return check(value);
  } catch (error) {
    if (error instanceof Unchecked) return otherwise;
    throw error;
  }
}

function rows<Row>(listed: readonly Row[], allowed: Allowed | undefined, key: (row: Row) => string): Row[] {
  if (!allowed) return [];
  const seen = new Set<string>();
  const wanted = listed.filter((row) => {
    const name = key(row);
    if (seen.has(name) || !isAllowed(allowed, name)) return false;
    seen.add(name);
    return Buffer.byteLength(JSON.stringify(row)) <= MAX_ROW_BYTES;
  });
  return wanted.slice(0, MAX_LISTED);
}

/** Returns whether `allow` contains the name, or a prefix of it followed by `*`. */
export function isAllowed({ allow }: Allowed, name: string): boolean {
  return allow.some((one) => (one.endsWith('*') ? name.startsWith(one.slice(0, -1)) : one === name));
}
