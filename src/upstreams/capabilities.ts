import type { Client, Prompt, RequestOptions, Resource, ResourceTemplateType } from '@modelcontextprotocol/client';
import { isTooDeep, type ToolDescription } from '../catalogue/tool-catalogue.ts';
import type { Allowed, ToolServer } from '../catalogue/tool-servers.ts';
import { errorOf, SessionLost, UpstreamRefusal } from './faults.ts';
import { saysSessionLost } from './http-answers.ts';
import type { ListMethod, OmittedRow } from './rows.ts';
import { type Check, CompiledTooLong, type JsonSchema, type Schemas, Unchecked } from './schemas.ts';

/** Maximum number of entries in each list of a server; further entries are omitted. */
const MAX_LISTED = 200;
/** Maximum size of one list entry as JSON; larger entries are omitted. */
const MAX_ROW_BYTES = 4 * 1024;
const MAX_DESCRIPTION_CHARS = 4_000;
/** Number of slow schemas of one server after which no further schema of it is compiled. */
const MAX_SLOW_SCHEMAS = 5;
/** Share of the timeout of a reading that one list may take, so that a list that hangs does not end the others. */
const SHARE_OF_TIMEOUT = 0.8;
const METHOD_NOT_FOUND = -32601;
/** Maximum number of omitted entries that are kept per server. */
const MAX_OMITTED = 500;
const MAX_NAME = 200;

export interface DiscoveredTool extends ToolDescription {
  /** Checks the structured content of a result; undefined for a tool without an output schema. */
  readonly resultProblem: Check | undefined;
  /** The schemas as JSON, so that unchanged schemas are not compiled again. */
  readonly compiledFrom: string;
  /** Whether the server executes the tool only as a task (MCP 2025-11-25, tasks). */
  readonly isTask: boolean;
  /** Whether the server states that a repeated call has no further effect. */
  readonly repeatable: boolean;
}

/** Tools, resources and prompts that a server reports and the operator allows. */
export interface UpstreamCapabilities {
  /** By their names on the server. */
  readonly tools: ReadonlyMap<string, DiscoveredTool>;
  /** Unusable schemas, by tool name. */
  readonly unusable: ReadonlyMap<string, { readonly compiledFrom: string; readonly reason: string }>;
  /** Number of schemas that took too long to compile. */
  readonly late: number;
  /** False when some tools are left for the next reading, and when a list could not be read. */
  readonly complete: boolean;
  readonly resources: readonly Resource[];
  readonly templates: readonly ResourceTemplateType[];
  readonly prompts: readonly Prompt[];
  /** Entries that the operator allows and that cannot be used, and lists that could not be read to their end. */
  readonly omitted: readonly OmittedRow[];
}

export const NO_CAPABILITIES: UpstreamCapabilities = {
  tools: new Map(),
  unusable: new Map(),
  late: 0,
  complete: true,
  resources: [],
  templates: [],
  prompts: [],
  omitted: [],
};

export interface CapabilitiesDeps {
  readonly schemas: Schemas;
  /** Returns the rows that were left out while the lists were received. */
  readonly received: () => readonly OmittedRow[];
}

interface Reading {
  readonly server: ToolServer;
  /** Result of the previous reading. */
  readonly before: UpstreamCapabilities;
  readonly options: RequestOptions;
}

/**
 * Reads the lists of a server. A list that the server refuses, or that takes too long, keeps the entries of the reading
 * before and is reported as omitted; other lists are not affected.
 * @throws UpstreamFault or UpstreamRefusal when no list can be read
 */
export async function readCapabilities(
  client: Client,
  { server, before, options }: Reading,
  { schemas, received }: CapabilitiesDeps,
): Promise<UpstreamCapabilities> {
  const fresh = { ...options, timeout: server.timeoutMs * SHARE_OF_TIMEOUT, cacheMode: 'refresh' } as const;
  const lists = new ListReader();
  const hasTools = server.tools.size > 0;
  const [tools, resources, templates, prompts] = await Promise.all([
    hasTools && lists.read('tools/list', async () => (await client.listTools(undefined, fresh)).tools),
    server.resources &&
      lists.read('resources/list', async () => (await client.listResources(undefined, fresh)).resources),
    server.resources &&
      lists.read(
        'resources/templates/list',
        async () => (await client.listResourceTemplates(undefined, fresh)).resourceTemplates,
      ),
    server.prompts && lists.read('prompts/list', async () => (await client.listPrompts(undefined, fresh)).prompts),
  ]);
  lists.throwIfNoneRead();
  const runsTasks = client.getServerCapabilities()?.tasks?.requests?.tools?.call !== undefined;
  const allowed = tools ? tools.filter(({ name }) => server.tools.has(name)) : undefined;
  const found = allowed ? toolsOf(allowed, { server, before, schemas, runsTasks }) : { ...before, complete: false };
  const large: OmittedRow[] = [];
  const kept = {
    resources: resources ? rows('resources/list', resources, server.resources, large) : before.resources,
    templates: templates ? rows('resources/templates/list', templates, server.resources, large) : before.templates,
    prompts: prompts ? rows('prompts/list', prompts, server.prompts, large) : before.prompts,
  };
  const unusable = [...found.unusable].map(([name, { reason }]) => ({ list: 'tools/list' as const, name, reason }));
  const omitted = [...received().filter((row) => isWanted(server, row)), ...lists.problems, ...unusable, ...large];
  const { tools: usable, late, complete } = found;
  return {
    ...kept,
    tools: usable,
    unusable: found.unusable,
    late,
    complete: complete && lists.allCurrent,
    omitted: omitted.slice(0, MAX_OMITTED),
  };
}

/** Reads lists independently of each other. */
class ListReader {
  readonly problems: OmittedRow[] = [];
  readonly #errors: Error[] = [];
  #read = 0;

  /** Returns the rows; undefined if the server does not list them now. */
  async read<Row>(list: ListMethod, work: () => Promise<readonly Row[]>): Promise<readonly Row[] | undefined> {
    try {
      const listed = await work();
      this.#read += 1;
      return listed;
    } catch (thrown) {
      const error = errorOf(thrown);
      const isAnswer = error instanceof UpstreamRefusal;
      if (error instanceof SessionLost || (isAnswer && saysSessionLost(error))) throw error;
      const isAbsent = isAnswer && error.code === METHOD_NOT_FOUND;
      this.problems.push({ list, name: '', reason: isAbsent ? 'the server has no such list' : reasonOf(error) });
      if (!isAbsent) this.#errors.push(error);
      else this.#read += 1;
      return isAbsent ? [] : undefined;
    }
  }

  get allCurrent(): boolean {
    return this.#errors.length === 0;
  }

  throwIfNoneRead(): void {
    const [error] = this.#errors;
    if (this.#read === 0 && error) throw error;
  }
}

/** The text of a refusal is the server's and of any length. */
function reasonOf(error: Error): string {
  return error instanceof UpstreamRefusal ? `the server answered with error ${error.code}` : error.message;
}

/** Returns whether an omitted row concerns what the operator allows. */
function isWanted({ tools, resources, prompts }: ToolServer, { list, name }: OmittedRow): boolean {
  if (name === '') return true;
  if (list === 'tools/list') return tools.has(name);
  const allowed = list === 'prompts/list' ? prompts : resources;
  return allowed !== undefined && isAllowed(allowed, name);
}

interface ListedTool {
  readonly name: string;
  readonly description?: string | undefined;
  readonly inputSchema: JsonSchema;
  readonly outputSchema?: JsonSchema | undefined;
  readonly execution?: { readonly taskSupport?: unknown } | undefined;
  readonly annotations?: { readonly readOnlyHint?: unknown; readonly idempotentHint?: unknown } | undefined;
}

type DiscoveredTools = Pick<UpstreamCapabilities, 'tools' | 'unusable' | 'late' | 'complete'>;

interface ToolsReading extends Pick<Reading, 'server' | 'before'> {
  readonly schemas: Schemas;
  /** Whether the server executes tools as tasks. */
  readonly runsTasks: boolean;
}

function toolsOf(listed: readonly ListedTool[], { server, before, schemas, runsTasks }: ToolsReading): DiscoveredTools {
  const tools = new Map<string, DiscoveredTool>();
  const unusable = new Map<string, { compiledFrom: string; reason: string }>();
  let { late } = before;
  let bytes = 0;
  for (const { name, description = '', inputSchema, outputSchema, execution, annotations } of listed) {
    // The first of several tools with the same name is used.
    if (tools.has(name) || unusable.has(name)) continue;
    const compiledFrom = JSON.stringify([inputSchema, outputSchema]);
    const text = {
      description: description.slice(0, MAX_DESCRIPTION_CHARS).toWellFormed() || name,
      isTask: runsTasks && execution?.taskSupport === 'required',
      repeatable: annotations?.readOnlyHint === true || annotations?.idempotentHint === true,
    };
    const omit = (reason: string) => unusable.set(name, { compiledFrom, reason });
    const [previous, refused] = [before.tools.get(name), before.unusable.get(name)];
    bytes += Buffer.byteLength(compiledFrom) + Buffer.byteLength(text.description);
    if (bytes > server.toolsBytes) omit(`the tools of the server up to this one exceed ${server.toolsBytes} bytes`);
    else if (previous?.compiledFrom === compiledFrom) tools.set(name, { ...previous, ...text });
    else if (refused?.compiledFrom === compiledFrom) unusable.set(name, refused);
    else if (late >= MAX_SLOW_SCHEMAS) omit('other schemas of the server took too long to compile');
    // At most one slow schema per reading; the remaining tools are compiled in the next reading.
    else if (late === before.late) {
      try {
        const compile = (schema: JsonSchema) => schemas.compile(schema, server.schemaBytes);
        tools.set(name, { ...text, ...compiled(inputSchema, outputSchema, compile), compiledFrom });
      } catch (error) {
        // Retried in the next reading: the schema may be valid and the machine busy.
        if (error instanceof CompiledTooLong) late += 1;
        else omit(error instanceof Error ? error.message : String(error));
      }
    }
  }
  return { tools, unusable, late, complete: late === before.late };
}

function compiled(
  inputSchema: JsonSchema,
  outputSchema: JsonSchema | undefined,
  compile: (schema: JsonSchema) => Check | undefined,
) {
  const check = compile(inputSchema);
  const checkResult = outputSchema && compile(outputSchema);
  return {
    arguments: inputSchema,
    // Arguments that take too long to check are passed on, because the server must check them anyway.
    argumentsProblem: (args: unknown) => {
      if (isTooDeep(args)) return 'arguments are nested too deeply';
      return check && unlessUnchecked(check, args, undefined);
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

const KEYS = { 'resources/list': 'uri', 'resources/templates/list': 'uriTemplate', 'prompts/list': 'name' } as const;
type KeyedRow<List extends keyof typeof KEYS> = Readonly<Record<(typeof KEYS)[List], string>>;

/** Returns the allowed rows, each once. Rows above the bounds are added to `omitted`. */
function rows<List extends keyof typeof KEYS, Row extends KeyedRow<List>>(
  list: List,
  listed: readonly Row[],
  allowed: Allowed | undefined,
  omitted: OmittedRow[],
): Row[] {
  if (!allowed) return [];
  const kept = new Map<string, Row>();
  for (const row of listed) {
    const name = row[KEYS[list]];
    if (kept.has(name) || !isAllowed(allowed, name)) continue;
    const isLarge = Buffer.byteLength(JSON.stringify(row)) > MAX_ROW_BYTES;
    if (isLarge) omitted.push({ list, name: name.slice(0, MAX_NAME), reason: `larger than ${MAX_ROW_BYTES} bytes` });
    else if (kept.size < MAX_LISTED) kept.set(name, row);
    else omitted.push({ list, name: name.slice(0, MAX_NAME), reason: `beyond the first ${MAX_LISTED} entries` });
  }
  return [...kept.values()];
}

/** Returns whether `allow` contains the name, or a prefix of it followed by `*`. */
export function isAllowed({ allow }: Allowed, name: string): boolean {
  return allow.some((one) => (one.endsWith('*') ? name.startsWith(one.slice(0, -1)) : one === name));
}
