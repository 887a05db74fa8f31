import { z } from 'zod';
import { isTollgateVariable, urlFault } from '../config.ts';
import type { CatalogueFile } from './catalogue-file.ts';
import type { Tool, ToolTable } from './tool-catalogue.ts';

/** Tool names that models accept as function names; also safe as metric labels and Redis members. */
const SHOWN_NAME = /^[A-Za-z][A-Za-z0-9_-]{0,63}$/;
/** Tool names of servers: any text on one line, because servers use more characters than MCP recommends. */
const OWN_NAME = /^\P{Cc}{1,256}$/u;
const PROTOCOLS = ['auto', '2026-07-28', '2025-11-25', '2025-06-18', '2025-03-26', '2024-11-05'] as const;
const START_SECONDS = { stdio: 60, http: 15 } as const;
const MAX_SERVERS = 32;
/** Per server; each tool costs a schema compilation and a row of every tool list. */
const MAX_TOOLS = 128;
/** `${NAME}`: the value of an environment variable. */
const REFERENCE = /\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g;

const ToolEntry = z.strictObject({
  permission: z.string().min(1).optional(),
  /** Price units of one execution. */
  units: z.number().int().min(0).optional(),
  /** Name at the gateway; default: the name at the server. */
  as: z.string().regex(SHOWN_NAME).optional(),
  /** The tool of tools.json that it executes; name, permission, price, schema and description come from that row. */
  executes: z.string().min(1).optional(),
});

/** The allowed resources or prompts. Each entry is a name or URI, or a prefix followed by a star. */
const Allowed = z.strictObject({ permission: z.string().min(1), allow: z.array(z.string().min(1)).min(1).max(100) });
export type Allowed = Readonly<z.infer<typeof Allowed>>;

/** Kinds of input requests to callers. `elicitation` shows a form, `url_elicitation` opens a page of another site. */
const InputRequestKind = z.enum(['elicitation', 'url_elicitation', 'sampling', 'roots']);
export type InputRequestKind = z.infer<typeof InputRequestKind>;

/** Each value must refer to an environment variable, so that no secret is stored in the file and its history. */
const Secrets = z.record(z.string().regex(/^[A-Za-z0-9_-]{1,64}$/), z.string().max(1_000)).default({});

const ServerRow = z.strictObject({
  name: z.string().regex(/^[a-z][a-z0-9-]{0,31}$/),
  /** Streamable HTTP. */
  url: z.string().optional(),
  headers: Secrets,
  /** stdio: each process starts this program. */
  command: z.string().min(1).optional(),
  args: z.array(z.string()).max(100).default([]),
  env: Secrets,
  cwd: z.string().min(1).optional(),
  /**
   * `auto` negotiates the version with the server. A version of 2025 or older is offered first, then those before it.
   */
  protocol: z.enum(PROTOCOLS).default('auto'),
  /** Per request. */
  timeout_seconds: z.number().int().min(1).max(600).default(30),
  /**
   * Until the server has answered the initialization. The default is longer for programs, which may be installed first.
   */
  start_seconds: z.number().int().min(1).max(600).optional(),
  /** Maximum size of one response, in KiB. */
  response_kib: z.number().int().min(16).max(65_536).default(1_024),
  /** Maximum size of one JSON Schema, in KiB. */
  schema_kib: z.number().int().min(1).max(1_024).default(32),
  /**
   * Maximum size of all tools of the server with their schemas, in KiB; every tool list of every caller contains them.
   */
  tools_kib: z.number().int().min(1).max(8_192).default(256),
  /** Maximum requests in flight per process; bounds what a server that does not answer can occupy. */
  concurrency: z.number().int().min(1).max(1_000).default(32),
  /** Allowed input requests. Callers see them as requests of Tollgate, so the operator must allow each kind. */
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

/** A tool server as configured. */
export interface ToolServer {
  readonly name: string;
  /** Contains secrets; must not be logged. */
  readonly address: ToolServerAddress;
  readonly protocol: (typeof PROTOCOLS)[number];
  readonly timeoutMs: number;
  /** Timeout of connecting: the start of a program, negotiation and initialization. */
  readonly startMs: number;
  readonly responseBytes: number;
  readonly schemaBytes: number;
  readonly toolsBytes: number;
  readonly concurrency: number;
  readonly allowedInputRequests: readonly InputRequestKind[];
  /** Tool names at the server. */
  readonly tools: ReadonlySet<string>;
  readonly resources: Allowed | undefined;
  readonly prompts: Allowed | undefined;
}

export interface ToolServerContext {
  /** Looks up environment variables; undefined in a process that does not connect to tool servers. */
  readonly variable?: ((name: string) => string | undefined) | undefined;
  readonly production?: boolean;
  /** Upper bound on `timeout_seconds` of every server, in milliseconds. */
  readonly longestMs?: number;
}

/**
 * Returns the servers of the file and the tool table extended by their tools. Only tools listed in the file can be
 * called; further tools of a server have no effect. Mistakes are recorded in the file.
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
    if (names.has(row.name)) file.mistake(['servers', at, 'name'], `${row.name} is a duplicate`);
    names.add(row.name);
    for (const part of ['resources', 'prompts'] as const) {
      const permission = row[part]?.permission;
      if (permission !== undefined) refusePermission(file, table, ['servers', at, part, 'permission'], permission);
    }
    if (Object.keys(row.tools).length > MAX_TOOLS) {
      file.mistake(['servers', at, 'tools'], `has more than ${MAX_TOOLS} entries`);
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
  /** The existing tools, by their names at the gateway. */
  readonly tools: Map<string, Tool>;
  readonly path: readonly (string | number)[];
}

function addTool(adding: Adding, ref: { server: string; tool: string }, entry: ToolEntry): void {
  const { file, table, tools, path } = adding;
  const { executes, permission, units } = entry;
  if (executes !== undefined) {
    const row = tools.get(executes);
    if (permission !== undefined || units !== undefined || entry.as !== undefined) {
      return file.mistake(path, 'executes a tool of tools.json, so "as", "permission" and "units" must be left out');
    }
    if (row?.executor !== 'none')
      return file.mistake([...path, 'executes'], `${executes} is not a tool without executor`);
    tools.set(executes, { ...row, executor: 'upstream', upstream: { ...ref, describes: false } });
    return;
  }
  if (permission === undefined || units === undefined) return file.mistake(path, 'needs a permission and units');
  refusePermission(file, table, [...path, 'permission'], permission);
  const name = freeName(tools, ref, entry.as);
  if (name === undefined) return file.mistake(path, 'needs a unique name: set it with "as"');
  if (table.permissions.has(name))
    return file.mistake(path, 'has the name of a permission: set another name with "as"');
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

/** Returns the tool's name, prefixed with the server's name if an earlier tool has it; undefined if both are taken. */
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
  if (!permissions.has(permission)) file.mistake(path, `${permission} is not a permission of tools.json`);
}

function serverOf(
  file: CatalogueFile,
  path: readonly (string | number)[],
  row: ServerRow,
  context: ToolServerContext,
): ToolServer {
  const { name, protocol, concurrency, asks: allowedInputRequests, resources, prompts } = row;
  const timeoutMs = Math.min(row.timeout_seconds * 1000, context.longestMs ?? Number.POSITIVE_INFINITY);
  const startMs = (row.start_seconds ?? START_SECONDS[row.url === undefined ? 'stdio' : 'http']) * 1000;
  const bytes = {
    responseBytes: row.response_kib * 1024,
    schemaBytes: row.schema_kib * 1024,
    toolsBytes: row.tools_kib * 1024,
  };
  const rest = { protocol, concurrency, allowedInputRequests, timeoutMs, startMs, resources, prompts, ...bytes };
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
    file.mistake([...path, field], `is only allowed with a ${url === undefined ? 'url' : 'command'}`);
  }
  if (url === undefined) {
    const env = resolved(file, [...path, 'env'], row.env, context);
    return { kind: 'stdio', command: command ?? '', args, env, cwd };
  }
  const fault = urlFault(url, context.production ?? false);
  if (fault !== undefined) file.mistake([...path, 'url'], fault);
  return { kind: 'http', url, headers: resolved(file, [...path, 'headers'], row.headers, context) };
}

/** Resolves the variable references. Each value needs one, and none may name a variable of Tollgate. */
function resolved(
  file: CatalogueFile,
  path: readonly (string | number)[],
  values: Readonly<Record<string, string>>,
  { variable }: ToolServerContext,
): Record<string, string> {
  const entries = Object.entries(values).map(([key, value]): [string, string] => {
    const names = [...value.matchAll(REFERENCE)].map(([, name = '']) => name);
    if (names.length === 0) file.mistake([...path, key], 'must refer to an environment variable (docs/operations.md)');
    for (const name of names.filter(isTollgateVariable)) {
      file.mistake([...path, key], `${name} is a variable of Tollgate and must not be sent to a server`);
    }
    if (!variable) return [key, ''];
    for (const name of names.filter((one) => variable(one) === undefined)) {
      file.mistake([...path, key], `${name} is not set in the environment`);
    }
    return [key, value.replaceAll(REFERENCE, (_match, name: string) => variable(name) ?? '')];
  });
  return Object.fromEntries(entries);
}
