import { Ajv, type ValidateFunction } from 'ajv';
import { z } from 'zod';
import { JSON_SCHEMA } from '../lib/json-schema.ts';
import { linearPattern } from '../lib/linear-patterns.ts';
import type { CatalogueFile } from './catalogue-file.ts';

const ENVIRONMENTS = ['development', 'test', 'staging', 'production'] as const;
/** Maximum uses per window; null or absent without a limit. */
const Limits = z.strictObject({
  hour: z.number().int().min(1).nullable().default(null),
  day: z.number().int().min(1).nullable().default(null),
});

const PermissionRow = z.strictObject({
  description: z.string().min(1),
  /** Plans and roles that have the permission, regardless of other grants; without it, plans and tokens grant it. */
  held_by: z.strictObject({ plans: z.array(z.string()), roles: z.array(z.string()) }).optional(),
  /** Further requirements; the caller must meet all of them. */
  needs: z
    .strictObject({
      feature_flag: z.string().min(1).optional(),
      role: z.string().min(1).optional(),
      environments: z.array(z.enum(ENVIRONMENTS)).min(1).optional(),
    })
    .default({}),
  /** Whether an agent may use a tool only after the user has approved the call. Calls outside runs need no approval. */
  approval: z.boolean().default(false),
  /** Shared by all tools of the permission, before the plan's multiplier. */
  limits: Limits.default({ hour: null, day: null }),
});

const ToolRow = z.strictObject({
  name: z.string().regex(/^[a-z][a-z0-9_]{0,63}$/),
  description: z.string().min(1),
  permission: z.string().min(1),
  /**
   * `none`: calls fail with TOOL_NOT_AVAILABLE until a tool server executes the tool. `user`: the user of a run answers
   * the call; its arguments are the question.
   */
  executor: z.enum(['builtin', 'none', 'user']),
  /** Price units of one execution. */
  units: z.number().int().min(0),
  /** JSON Schema of the arguments. */
  arguments: z.record(z.string(), z.unknown()),
});

const ToolsFile = z.strictObject({
  permissions: z.record(z.string().regex(/^[a-z][a-z0-9_]*(:[a-z0-9_]+)*$/), PermissionRow),
  tools: z.array(ToolRow).min(1),
});

export type Permission = z.infer<typeof PermissionRow> & { readonly name: string };

/** Description and argument schema of a tool. */
export interface ToolDescription {
  readonly description: string;
  /** JSON Schema of the arguments. */
  readonly arguments: Readonly<Record<string, unknown>>;
  /** Returns what is wrong with the arguments, as one sentence; undefined when they are valid. */
  readonly argumentsProblem: (args: unknown) => string | undefined;
}

/** Refers to a tool of a tool server. */
export interface UpstreamTool {
  readonly server: string;
  /** Name of the tool at its server. */
  readonly tool: string;
  /** Whether the server supplies the description; otherwise a row of tools.json does. */
  readonly describes: boolean;
}

export type Tool = Readonly<Pick<z.infer<typeof ToolRow>, 'name' | 'permission' | 'units'>> &
  ToolDescription & {
    /** `none`: currently not executable. */
    readonly executor: 'builtin' | 'none' | 'user' | 'upstream';
    /** The executing tool server, for the executor `upstream`. */
    readonly upstream?: UpstreamTool;
  };

/** The tools and permissions of one version of the files. */
export interface ToolTable {
  readonly tools: ReadonlyMap<string, Tool>;
  readonly permissions: ReadonlyMap<string, Permission>;
}

/** Returns the last description that a server reported for a tool; undefined if it never reported the tool. */
export type UpstreamDescriptions = (tool: UpstreamTool) => ToolDescription | undefined;

/** The current tools and permissions. A reload takes effect at the next call. */
export class ToolCatalogue {
  readonly #table: () => ToolTable;
  readonly #upstream: UpstreamDescriptions;

  constructor(table: () => ToolTable, upstream: UpstreamDescriptions = () => undefined) {
    this.#table = table;
    this.#upstream = upstream;
  }

  /** In the order of the files. */
  get all(): readonly Tool[] {
    return [...this.#table().tools.values()].map((tool) => this.#atPresent(tool));
  }

  get(name: string): Tool | undefined {
    const tool = this.#table().tools.get(name);
    return tool && this.#atPresent(tool);
  }

  #atPresent(tool: Tool): Tool {
    if (!tool.upstream) return tool;
    const description = this.#upstream(tool.upstream);
    if (!description) return { ...tool, executor: 'none' };
    return tool.upstream.describes ? { ...tool, ...description } : tool;
  }

  permission(name: string): Permission | undefined {
    return this.#table().permissions.get(name);
  }
}

/**
 * Returns the tools of the file; undefined, with recorded mistakes, when it cannot be parsed.
 * @param builtIn the tools for which this process has executors; undefined in a process that executes none
 */
export function parseTools(file: CatalogueFile, builtIn?: readonly string[]): ToolTable | undefined {
  const parsed = file.parse(ToolsFile);
  if (!parsed) return undefined;
  // Strict mode rejects unknown keywords. Ajv has no schema loader here, so a schema cannot cause a request.
  const regExp = Object.assign((source: string) => linearPattern(source), { code: 'linearPattern' });
  const ajv = new Ajv({ ...JSON_SCHEMA, allErrors: false, strict: true, allowUnionTypes: true, code: { regExp } });
  const tools = new Map<string, Tool>();
  for (const [at, row] of parsed.tools.entries()) {
    if (tools.has(row.name)) file.mistake(['tools', at, 'name'], `${row.name} is a duplicate`);
    // Limits of tools and of permissions share one namespace in their public names.
    if (Object.hasOwn(parsed.permissions, row.name)) file.mistake(['tools', at, 'name'], 'is the name of a permission');
    if (!Object.hasOwn(parsed.permissions, row.permission)) {
      file.mistake(['tools', at, 'permission'], `${row.permission} is not a permission of this file`);
    }
    if (row.executor === 'builtin' && builtIn && !builtIn.includes(row.name)) {
      file.mistake(['tools', at, 'executor'], `${row.name} is not built in`);
    }
    const validate = compile(ajv, row.arguments);
    if (typeof validate === 'string') file.mistake(['tools', at, 'arguments'], validate);
    else tools.set(row.name, { ...row, argumentsProblem: (args) => firstProblem(ajv, validate, args) });
  }
  const permissions = Object.entries(parsed.permissions).map(([name, row]) => [name, { name, ...row }] as const);
  return { tools, permissions: new Map(permissions) };
}

function compile(ajv: Ajv, schema: z.infer<typeof ToolRow>['arguments']): ValidateFunction | string {
  if (schema.type !== 'object') return 'must be a schema of type "object"';
  if (hasUnboundedUniqueness(schema)) return `"uniqueItems" needs a "maxItems" of at most ${MAX_UNIQUE_ITEMS}`;
  try {
    return ajv.compile(schema);
  } catch (error) {
    return `is not a usable JSON Schema: ${error instanceof Error ? error.message : error}`;
  }
}

/** Bounds `uniqueItems`, whose check compares each pair of items. */
const MAX_UNIQUE_ITEMS = 100;

function hasUnboundedUniqueness(schema: unknown): boolean {
  if (typeof schema !== 'object' || schema === null) return false;
  const { uniqueItems, maxItems } = schema as { readonly uniqueItems?: unknown; readonly maxItems?: unknown };
  const bounded = typeof maxItems === 'number' && maxItems <= MAX_UNIQUE_ITEMS;
  return (uniqueItems === true && !bounded) || Object.values(schema).some(hasUnboundedUniqueness);
}

/** Larger than the depth of any tool's arguments. The bound prevents hostile arguments from exhausting the stack. */
const MAX_DEPTH = 32;

function firstProblem(ajv: Ajv, validate: ValidateFunction, args: unknown): string | undefined {
  if (isTooDeep(args)) return 'arguments are nested too deeply';
  return validate(args) ? undefined : ajv.errorsText(validate.errors, { dataVar: 'arguments' });
}

export function isTooDeep(args: unknown): boolean {
  return isDeeperThan(MAX_DEPTH, args);
}

function isDeeperThan(depth: number, value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return depth === 0 || Object.values(value).some((child) => isDeeperThan(depth - 1, child));
}
