import type { Client, Prompt, RequestOptions, Resource, ResourceTemplateType } from '@modelcontextprotocol/client';
import { isTooDeep, type ToolWords } from '../policy/tool-catalogue.ts';
import type { Allowed, ToolServer } from '../policy/tool-servers.ts';
import type { Check, JsonSchema, Schemas } from './schemas.ts';

/** Of each of the lists of one server; what comes after is left out. */
const MAX_LISTED = 200;
/** Of one row of a list, as JSON. */
const MAX_ROW_BYTES = 4 * 1024;
const MAX_DESCRIPTION_CHARS = 4_000;

export interface OfferedTool extends ToolWords {
  /** What is wrong with the structured part of a result; undefined for a tool that promises none. */
  readonly resultProblem: Check | undefined;
  /** The schemas as text: the same ones are not compiled again. */
  readonly compiledFrom: string;
}

/** What a server offers, of what the operator has allowed. */
export interface Offer {
  /** By their names at the server. */
  readonly tools: ReadonlyMap<string, OfferedTool>;
  readonly resources: readonly Resource[];
  readonly templates: readonly ResourceTemplateType[];
  readonly prompts: readonly Prompt[];
}

export const NOTHING: Offer = { tools: new Map(), resources: [], templates: [], prompts: [] };

export interface OfferDeps {
  readonly schemas: Schemas;
  /** Told of each tool that is left out, and why. */
  readonly leftOut: (tool: string, reason: string) => void;
}

/** Asks a server for its lists. @param before what it said last */
export async function readOffer(
  client: Client,
  { server, before, options }: { server: ToolServer; before: Offer; options: RequestOptions },
  deps: OfferDeps,
): Promise<Offer> {
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
    tools: toolsOf(allowed, before.tools, deps),
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

function toolsOf(
  listed: readonly ListedTool[],
  before: ReadonlyMap<string, OfferedTool>,
  { schemas, leftOut }: OfferDeps,
): Map<string, OfferedTool> {
  const tools = new Map<string, OfferedTool>();
  // Of two of one name, the first.
  for (const tool of listed.filter(({ name }) => !tools.has(name))) {
    const { name, description = '', inputSchema, outputSchema } = tool;
    const compiledFrom = JSON.stringify([inputSchema, outputSchema]);
    const known = before.get(name);
    const words = { description: description.slice(0, MAX_DESCRIPTION_CHARS).toWellFormed() || name };
    if (known?.compiledFrom === compiledFrom) {
      tools.set(name, { ...known, ...words });
      continue;
    }
    try {
      const check = schemas.compile(inputSchema);
      tools.set(name, {
        ...words,
        arguments: inputSchema,
        argumentsProblem: (args) => (isTooDeep(args) ? 'arguments are nested too deeply' : check(args)),
        resultProblem: outputSchema && schemas.compile(outputSchema),
        compiledFrom,
      });
    } catch (error) {
      leftOut(name, error instanceof Error ? error.message : String(error));
    }
  }
  return tools;
}

function rows<Row>(listed: readonly Row[], allowed: Allowed | undefined, key: (row: Row) => string): Row[] {
  if (!allowed) return [];
  const taken = new Set<string>();
  const wanted = listed.filter((row) => {
    const name = key(row);
    if (taken.has(name) || !isAllowed(allowed, name)) return false;
    taken.add(name);
    return Buffer.byteLength(JSON.stringify(row)) <= MAX_ROW_BYTES;
  });
  return wanted.slice(0, MAX_LISTED);
}

/** A name, or, with a star at its end, the beginning of one. */
export function isAllowed({ allow }: Allowed, name: string): boolean {
  return allow.some((one) => (one.endsWith('*') ? name.startsWith(one.slice(0, -1)) : one === name));
}
