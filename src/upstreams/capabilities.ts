import type { Client, Prompt, RequestOptions, Resource, ResourceTemplateType } from '@modelcontextprotocol/client';
import { isTooDeep, type ToolDescription } from '../catalogue/tool-catalogue.ts';
import type { Allowed, ToolServer } from '../catalogue/tool-servers.ts';
import { type Check, CompiledTooLong, type JsonSchema, type Schemas, Unchecked } from './schemas.ts';

/** Of each of the lists of one server; what comes after is left out. */
const MAX_LISTED = 200;
/** Of one row of a list, as JSON. */
const MAX_ROW_BYTES = 4 * 1024;
const MAX_DESCRIPTION_CHARS = 4_000;
/** Of the tools of one server together, as JSON: every list of every caller has them. */
const MAX_TOOLS_BYTES = 256 * 1024;
/** Schemas of one server that may take too long to compile; after that, none is compiled any more. */
const MAX_SLOW_SCHEMAS = 5;

export interface DiscoveredTool extends ToolDescription {
  /** What is wrong with the structured part of a result; undefined for a tool that promises none. */
  readonly resultProblem: Check | undefined;
  /** The schemas as text: the same ones are not compiled again. */
  readonly compiledFrom: string;
}

/** What a server offers, of what the operator has allowed. */
export interface UpstreamCapabilities {
  /** By their names at the server. */
  readonly tools: ReadonlyMap<string, DiscoveredTool>;
  /** Schemas that cannot be used, as text, by their tools. */
  readonly omitted: ReadonlyMap<string, string>;
  /** How often a schema took too long to compile. */
  readonly late: number;
  /** False while there are tools whose turn is in the next reading. */
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
  /** Told of each tool that is left out, and why. */
  readonly onOmitted: (tool: string, reason: string) => void;
}

/** Asks a server for its lists. @param before what it said last */
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
    // Of two of one name, the first.
    if (tools.has(name) || omitted.has(name)) continue;
    const compiledFrom = JSON.stringify([inputSchema, outputSchema]);
    const text = { description: description.slice(0, MAX_DESCRIPTION_CHARS).toWellFormed() || name };
    const omit = (reason: string) => {
      omitted.set(name, compiledFrom);
      if (before.omitted.get(name) !== compiledFrom) deps.onOmitted(name, reason);
    };
    const previous = before.tools.get(name);
    bytes += Buffer.byteLength(compiledFrom) + Buffer.byteLength(text.description);
    if (bytes > MAX_TOOLS_BYTES) omit(`the tools up to it have more than ${MAX_TOOLS_BYTES} bytes`);
    else if (previous?.compiledFrom === compiledFrom) tools.set(name, { ...previous, ...text });
    else if (before.omitted.get(name) === compiledFrom) omitted.set(name, compiledFrom);
    else if (late >= MAX_SLOW_SCHEMAS) omit('other schemas of its server took too long');
    // One that takes too long is enough for a reading: the others have their turn in the next one.
    else if (late === before.late) {
      try {
        tools.set(name, { ...text, ...compiled(inputSchema, outputSchema, deps.schemas), compiledFrom });
      } catch (error) {
        // It may be sound, and the machine busy.
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
    // What takes too long is the server's to check, as it has to anyway.
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

/** A name, or, with a star at its end, the beginning of one. */
export function isAllowed({ allow }: Allowed, name: string): boolean {
  return allow.some((one) => (one.endsWith('*') ? name.startsWith(one.slice(0, -1)) : one === name));
}
