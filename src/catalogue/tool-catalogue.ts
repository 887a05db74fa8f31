import { Ajv, type ValidateFunction } from 'ajv';
import { z } from 'zod';
import { linearPattern } from '../lib/linear-patterns.ts';
import type { CatalogueFile } from './catalogue-file.ts';

const ENVIRONMENTS = ['development', 'test', 'staging', 'production'] as const;
/** What a user may do in each window; null, or left out, without a limit. */
const Limits = z.strictObject({
  hour: z.number().int().min(1).nullable().default(null),
  day: z.number().int().min(1).nullable().default(null),
});

const PermissionRow = z.strictObject({
  description: z.string().min(1),
  /** Who holds it, whatever plans and tokens say; without it, plans and tokens say who does. */
  held_by: z.strictObject({ plans: z.array(z.string()), roles: z.array(z.string()) }).optional(),
  /** What else the caller must bring: all of it. */
  needs: z
    .strictObject({
      feature_flag: z.string().min(1).optional(),
      role: z.string().min(1).optional(),
      environments: z.array(z.enum(ENVIRONMENTS)).min(1).optional(),
    })
    .default({}),
  /** For all tools of the permission together, before the plan's multiplier. */
  limits: Limits.default({ hour: null, day: null }),
});

const ToolRow = z.strictObject({
  name: z.string().regex(/^[a-z][a-z0-9_]{0,63}$/),
  description: z.string().min(1),
  permission: z.string().min(1),
  /** `none`: until somebody brings one, the tool answers TOOL_NOT_AVAILABLE. */
  executor: z.enum(['builtin', 'none']),
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

/** What a tool says of itself. */
export interface ToolDescription {
  readonly description: string;
  /** JSON Schema of the arguments. */
  readonly arguments: Readonly<Record<string, unknown>>;
  /** What is wrong with these arguments, as one sentence; undefined when nothing is. */
  readonly argumentsProblem: (args: unknown) => string | undefined;
}

/** A tool of an upstream server. */
export interface UpstreamTool {
  readonly server: string;
  /** Its name there. */
  readonly tool: string;
  /** Whether the server describes it; else a row of tools.json does. */
  readonly describes: boolean;
}

export type Tool = Readonly<Pick<z.infer<typeof ToolRow>, 'name' | 'permission' | 'units'>> &
  ToolDescription & {
    /** `none`: nobody at present. */
    readonly executor: 'builtin' | 'none' | 'upstream';
    /** Who executes it, with the executor `upstream`. */
    readonly upstream?: UpstreamTool;
  };

/** The tools and permissions of one state of the files. */
export interface ToolTable {
  readonly tools: ReadonlyMap<string, Tool>;
  readonly permissions: ReadonlyMap<string, Permission>;
}

/** What a server said last of one of its tools; undefined for one that it does not offer, or has never been asked for. */
export type UpstreamDescriptions = (tool: UpstreamTool) => ToolDescription | undefined;

/** The tools that there are, as they are now: a reload shows at the next question. What is not in it does not exist. */
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
 * The tools of the file; undefined, with what is wrong among the file's mistakes, when there is anything.
 * @param builtIn the tools that this process has executors for; undefined where none is executed
 */
export function parseTools(file: CatalogueFile, builtIn?: readonly string[]): ToolTable | undefined {
  const parsed = file.parse(ToolsFile);
  if (!parsed) return undefined;
  // Strict: a keyword that does nothing is a mistake. Nothing is loaded from elsewhere: ajv has no loader here.
  const regExp = Object.assign((source: string) => linearPattern(source), { code: 'linearPattern' });
  const ajv = new Ajv({ allErrors: false, strict: true, allowUnionTypes: true, code: { regExp } });
  const tools = new Map<string, Tool>();
  for (const [at, row] of parsed.tools.entries()) {
    if (tools.has(row.name)) file.mistake(['tools', at, 'name'], `${row.name} stands twice`);
    // The limits of both are told by name.
    if (Object.hasOwn(parsed.permissions, row.name)) file.mistake(['tools', at, 'name'], 'is the name of a permission');
    if (!Object.hasOwn(parsed.permissions, row.permission)) {
      file.mistake(['tools', at, 'permission'], `${row.permission} is no permission of this file`);
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
    return `is no JSON Schema that can be used: ${error instanceof Error ? error.message : error}`;
  }
}

/** The check compares each item with each other one. */
const MAX_UNIQUE_ITEMS = 100;

function hasUnboundedUniqueness(schema: unknown): boolean {
  if (typeof schema !== 'object' || schema === null) return false;
  const { uniqueItems, maxItems } = schema as { readonly uniqueItems?: unknown; readonly maxItems?: unknown };
  const bounded = typeof maxItems === 'number' && maxItems <= MAX_UNIQUE_ITEMS;
  return (uniqueItems === true && !bounded) || Object.values(schema).some(hasUnboundedUniqueness);
}

/** Deeper than any tool's arguments; the bound keeps hostile ones from costing stack in what walks them. */
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
