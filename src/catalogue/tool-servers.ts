import { z } from 'zod';
import { isTollgateVariable, urlFault } from '../config.ts';
import type { CatalogueFile } from './catalogue-file.ts';
import type { Tool, ToolTable } from './tool-catalogue.ts';

/** What models take for the name of a function, and metrics and Redis for a word. */
const SHOWN_NAME = /^[A-Za-z][A-Za-z0-9_-]{0,63}$/;
/** How MCP has tools named. */
const OWN_NAME = /^[A-Za-z0-9_.-]{1,128}$/;
const MAX_SERVERS = 32;
/** Of one server: each is a schema to compile and a row of every list. */
const MAX_TOOLS = 128;
/** `${NAME}`: the value of an environment variable. */
const REFERENCE = /\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g;

const ToolEntry = z.strictObject({
  permission: z.string().min(1).optional(),
  /** Price units of one execution. */
  units: z.number().int().min(0).optional(),
  /** What it is called here; without it, as at its server. */
  as: z.string().regex(SHOWN_NAME).optional(),
  /** The tool of tools.json that it executes, under that row's name, permission, price, schema and description. */
  executes: z.string().min(1).optional(),
});

/** Which resources or prompts: a name or URI, or the beginning of one and a star. */
const Allowed = z.strictObject({ permission: z.string().min(1), allow: z.array(z.string().min(1)).min(1).max(100) });
export type Allowed = Readonly<z.infer<typeof Allowed>>;

/** What a server may ask of its callers, by way of the gateway; `elicitation` is by form, `url_elicitation` on a page elsewhere. */
const InputRequestKind = z.enum(['elicitation', 'url_elicitation', 'sampling', 'roots']);
export type InputRequestKind = z.infer<typeof InputRequestKind>;

/** Each value refers to a variable: what stands in a file stays in its history. */
const Secrets = z.record(z.string().regex(/^[A-Za-z0-9_-]{1,64}$/), z.string().max(1_000)).default({});

const ServerRow = z.strictObject({
  name: z.string().regex(/^[a-z][a-z0-9-]{0,31}$/),
  /** Streamable HTTP. */
  url: z.string().optional(),
  headers: Secrets,
  /** stdio: a program that each process starts for itself. */
  command: z.string().min(1).optional(),
  args: z.array(z.string()).max(100).default([]),
  env: Secrets,
  cwd: z.string().min(1).optional(),
  /** `auto` asks the server which one it speaks. */
  protocol: z.enum(['auto', '2026-07-28', '2025-11-25']).default('auto'),
  /** Of one request. */
  timeout_seconds: z.number().int().min(1).max(600).default(30),
  /** Requests under way at once, per process: what a server that hangs can hold. */
  concurrency: z.number().int().min(1).max(1_000).default(32),
  /** It is asked in Tollgate's name: nothing that the operator has not said. */
  asks: z.array(InputRequestKind).default([]),
  tools: z.record(z.string().regex(OWN_NAME), ToolEntry).default({}),
  resources: Allowed.optional(),
  prompts: Allowed.optional(),
});
type ServerRow = z.infer<typeof ServerRow>;
type ToolEntry = z.infer<typeof ToolEntry>;

const ServersFile = z.strictObject({ servers: z.array(ServerRow).max(MAX_SERVERS) });

export type ToolServerAddress =
  | { readonly kind: 'http'; readonly url: string; readonly headers: Readonly<Record<string, string>> }
  | {
      readonly kind: 'stdio';
      readonly command: string;
      readonly args: readonly string[];
      readonly env: Readonly<Record<string, string>>;
      readonly cwd: string | undefined;
    };

/** An upstream MCP server, as the operator has allowed it. */
export interface ToolServer {
  readonly name: string;
  /** Holds secrets: never for a log. */
  readonly address: ToolServerAddress;
  readonly protocol: 'auto' | '2026-07-28' | '2025-11-25';
  readonly timeoutMs: number;
  readonly concurrency: number;
  readonly allowedInputRequests: readonly InputRequestKind[];
  /** By their names at the server. */
  readonly tools: ReadonlySet<string>;
  readonly resources: Allowed | undefined;
  readonly prompts: Allowed | undefined;
}

export interface ToolServerContext {
  /** Where secrets are looked up; undefined in a process that connects to no server. */
  readonly variable?: ((name: string) => string | undefined) | undefined;
  readonly production?: boolean;
  /** The longest that a request may take, whatever the file says; without it, what the file says. */
  readonly longestMs?: number;
}

/**
 * The servers of the file, and the table with their tools. Everything that may be called is named in the file: a server
 * that offers more than that changes nothing. What is wrong is among the file's mistakes.
 */
export function withToolServers(
  file: CatalogueFile,
  table: ToolTable,
  context: ToolServerContext,
): { servers: readonly ToolServer[]; table: ToolTable } {
  const parsed = file.parse(ServersFile);
  const tools = new Map(table.tools);
  const names = new Set<string>();
  const servers = (parsed?.servers ?? []).map((row, at) => {
    if (names.has(row.name)) file.mistake(['servers', at, 'name'], `${row.name} stands twice`);
    names.add(row.name);
    for (const part of ['resources', 'prompts'] as const) {
      const permission = row[part]?.permission;
      if (permission !== undefined) refusePermission(file, table, ['servers', at, part, 'permission'], permission);
    }
    if (Object.keys(row.tools).length > MAX_TOOLS) {
      file.mistake(['servers', at, 'tools'], `are more than ${MAX_TOOLS}`);
    }
    for (const [name, entry] of Object.entries(row.tools)) {
      addTool({ file, table, tools, path: ['servers', at, 'tools', name] }, { server: row.name, tool: name }, entry);
    }
    return serverOf(file, ['servers', at], row, context);
  });
  return { servers, table: { ...table, tools } };
}

interface Adding {
  readonly file: CatalogueFile;
  readonly table: ToolTable;
  /** Those that there are already, by the names they have here. */
  readonly tools: Map<string, Tool>;
  readonly path: readonly (string | number)[];
}

function addTool(adding: Adding, ref: { server: string; tool: string }, entry: ToolEntry): void {
  const { file, table, tools, path } = adding;
  const { executes, permission, units } = entry;
  if (executes !== undefined) {
    const row = tools.get(executes);
    if (permission !== undefined || units !== undefined || entry.as !== undefined) {
      return file.mistake(path, 'executes a tool of tools.json, which has the name, permission and units');
    }
    if (row?.executor !== 'none') return file.mistake([...path, 'executes'], `${executes} is no tool without executor`);
    tools.set(executes, { ...row, executor: 'upstream', upstream: { ...ref, describes: false } });
    return;
  }
  if (permission === undefined || units === undefined) return file.mistake(path, 'needs a permission and units');
  refusePermission(file, table, [...path, 'permission'], permission);
  const name = freeName(tools, ref, entry.as);
  if (name === undefined) return file.mistake(path, 'needs a name of its own: say which with "as"');
  if (table.permissions.has(name)) return file.mistake(path, 'has the name of a permission: say another with "as"');
  tools.set(name, {
    name,
    description: `${ref.tool} of ${ref.server}`,
    permission,
    executor: 'upstream',
    units,
    arguments: { type: 'object' },
    argumentsProblem: () => undefined,
    upstream: { ...ref, describes: true },
  });
}

/** Its own name, with the server's before it where somebody has that one already: who comes first in the file keeps it. */
function freeName(
  tools: ReadonlyMap<string, Tool>,
  { server, tool }: { server: string; tool: string },
  as: string | undefined,
): string | undefined {
  if (as !== undefined) return tools.has(as) ? undefined : as;
  return [tool, `${server}__${tool}`].find((name) => !tools.has(name) && SHOWN_NAME.test(name));
}

function refusePermission(
  file: CatalogueFile,
  { permissions }: ToolTable,
  path: readonly (string | number)[],
  permission: string,
): void {
  if (!permissions.has(permission)) file.mistake(path, `${permission} is no permission of tools.json`);
}

function serverOf(
  file: CatalogueFile,
  path: readonly (string | number)[],
  row: ServerRow,
  context: ToolServerContext,
): ToolServer {
  const { name, protocol, concurrency, asks: allowedInputRequests, resources, prompts } = row;
  const timeoutMs = Math.min(row.timeout_seconds * 1000, context.longestMs ?? Number.POSITIVE_INFINITY);
  const rest = { protocol, concurrency, allowedInputRequests, timeoutMs, resources, prompts };
  return { name, ...rest, tools: new Set(Object.keys(row.tools)), address: addressOf(file, path, row, context) };
}

function addressOf(
  file: CatalogueFile,
  path: readonly (string | number)[],
  row: ServerRow,
  context: ToolServerContext,
): ToolServerAddress {
  const { url, command, args, cwd } = row;
  if ((url === undefined) === (command === undefined)) file.mistake(path, 'needs either a url or a command');
  const foreign = url === undefined ? ['headers'] : ['args', 'env', 'cwd'];
  for (const field of foreign.filter((one) => file.has([...path, one]))) {
    file.mistake([...path, field], `goes with a ${url === undefined ? 'url' : 'command'}`);
  }
  if (url === undefined) {
    const env = resolved(file, [...path, 'env'], row.env, context);
    return { kind: 'stdio', command: command ?? '', args, env, cwd };
  }
  const fault = urlFault(url, context.production ?? false);
  if (fault !== undefined) file.mistake([...path, 'url'], fault);
  return { kind: 'http', url, headers: resolved(file, [...path, 'headers'], row.headers, context) };
}

/** The values with what they refer to; each must refer to something, and to nothing of Tollgate's own. */
function resolved(
  file: CatalogueFile,
  path: readonly (string | number)[],
  values: Readonly<Record<string, string>>,
  { variable }: ToolServerContext,
): Record<string, string> {
  const entries = Object.entries(values).map(([key, value]): [string, string] => {
    const names = [...value.matchAll(REFERENCE)].map(([, name = '']) => name);
    if (names.length === 0)
      file.mistake([...path, key], 'must refer to an environment variable, as docs/operations.md says');
    for (const name of names.filter(isTollgateVariable)) {
      file.mistake([...path, key], `${name} is Tollgate's own: no server is given that`);
    }
    if (!variable) return [key, ''];
    for (const name of names.filter((one) => variable(one) === undefined)) {
      file.mistake([...path, key], `${name} is not set in the environment`);
    }
    return [key, value.replaceAll(REFERENCE, (_match, name: string) => variable(name) ?? '')];
  });
  return Object.fromEntries(entries);
}
