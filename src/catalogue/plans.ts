import { z } from 'zod';
import { TollgateError } from '../protocol/errors.ts';
import type { CatalogueFile } from './catalogue-file.ts';

/** Key of the daily allowance for each tool without its own. */
const ANY = 'any';
/**
 * Upper bound, as for `MAX_CONNECTIONS_PER_USER`. Admission reads all connections of a user and removes the expired
 * ones in one command. Lua rejects a command with more than some 8,000 arguments, so the user could no longer connect.
 */
const MAX_CONNECTIONS = 1_000;
/** Maximum stored threads per user in any plan; above it Redis drops the oldest. */
export const THREADS_KEPT = 500;

/**
 * Default runs per hour, before the plan's multiplier: a sixth of the messages that a limit of 30 per minute allows. It
 * bounds the data of a user in Redis (docs/security.md).
 */
const RUNS_PER_HOUR = 300;
/** Default new idempotency keys of tool calls per hour, before the plan's multiplier. */
const IDEMPOTENCY_KEYS_PER_HOUR = 300;
/** Same bound as `concurrency`; a script only counts the user's runs in flight. */
const MAX_RUNS_IN_FLIGHT = 1_000;
const perHour = z.number().int().min(1).max(1_000_000).optional();

const PlanRow = z.strictObject({
  /** Orders the plans: the upgrade path of a refusal is the plan with the lowest rank that would allow the call. */
  rank: z.number().int().min(0),
  multiplier: z.number().positive(),
  permissions: z.array(z.string().regex(/^(\*|[a-z][a-z0-9_]*(:[a-z0-9_]+)*(:\*)?)$/)),
  feature_flags: z.array(z.string().min(1)),
  /** null for `THREADS_KEPT`. */
  threads: z.number().int().positive().max(THREADS_KEPT).nullable(),
  connections: z.number().int().min(1).max(MAX_CONNECTIONS).optional(),
  allowances: z.record(z.string(), z.number().int().min(0)),
  concurrency: z.number().int().min(1).max(1_000),
  runs_in_flight: z.number().int().min(1).max(MAX_RUNS_IN_FLIGHT).optional(),
  runs_per_hour: perHour,
  idempotency_keys_per_hour: perHour,
});

const PlansFile = z.strictObject({
  default: z.string(),
  plans: z.record(z.string().regex(/^[a-z][\w-]*$/), PlanRow),
});

export interface Plan {
  readonly name: string;
  readonly rank: number;
  /** Factor on `MESSAGE_RATE_PER_MINUTE` and on the limits of permissions. */
  readonly multiplier: number;
  /** `*` grants every permission, `system:*` all under `system:`. */
  readonly permissions: readonly string[];
  /** `*` stands for every flag. */
  readonly featureFlags: readonly string[];
  /** Maximum threads per user; null without a limit. */
  readonly threads: number | null;
  /** Connection cap per user; undefined for `MAX_CONNECTIONS_PER_USER`. */
  readonly connections: number | undefined;
  /** Executions per day, by tool; `any` applies to each tool without its own entry. Without either, unlimited. */
  readonly allowances: ReadonlyMap<string, number>;
  /** Maximum tool calls of one user in flight. */
  readonly concurrency: number;
  /** Maximum runs of one user in flight. */
  readonly runsInFlight: number;
  /** Maximum runs that a user starts within an hour. */
  readonly runsPerHour: number;
  /** Maximum tool calls with a new idempotency key per user within an hour. */
  readonly idempotencyKeysPerHour: number;
}

/** The plans of one version of the file. */
export interface PlanTable {
  /** By rank, lowest first. */
  readonly all: readonly Plan[];
  readonly byName: ReadonlyMap<string, Plan>;
  readonly fallback: Plan;
}

/** The current plans. A reload takes effect at the next call. */
export class Plans {
  readonly #table: () => PlanTable;

  constructor(table: () => PlanTable) {
    this.#table = table;
  }

  /** By rank, lowest first. */
  get all(): readonly Plan[] {
    return this.#table().all;
  }

  get(name: string): Plan | undefined {
    return this.#table().byName.get(name);
  }

  /** Checks the name of a plan that an operator sets. @throws TollgateError FORMAT_ERROR, with the names of the plans */
  require(name: string): void {
    if (this.get(name)) return;
    const names = this.all.map((plan) => plan.name).join(', ');
    throw new TollgateError('FORMAT_ERROR', { text: `The plan does not exist. Use one of: ${names}.` });
  }

  /**
   * Returns the lowest plan above the named one that allows more; null when there is none.
   * @param allows returns the amount that a plan allows, `Infinity` for no limit
   */
  withMore(name: string, allows: (plan: Plan) => number): string | null {
    const current = this.effective(name);
    const better = this.all.find((plan) => plan.rank > current.rank && allows(plan) > allows(current));
    return better?.name ?? null;
  }

  /** Returns the plan with that name; the default plan if it does not exist (expired, unpaid, renamed). */
  effective(name: string): Plan {
    const { byName, fallback } = this.#table();
    return byName.get(name) ?? fallback;
  }
}

/** Returns the executions of a tool that a plan includes per day; undefined without a limit. */
export function allowanceOf(plan: Plan, tool: string): number | undefined {
  return plan.allowances.get(tool) ?? plan.allowances.get(ANY);
}

/** The names that a plan may refer to. */
export interface CatalogueNames {
  readonly tools: ReadonlySet<string>;
  readonly permissions: ReadonlySet<string>;
}

/** Returns the plans of the file; undefined, with recorded mistakes, when it is invalid. */
export function parsePlans(file: CatalogueFile, names: CatalogueNames): PlanTable | undefined {
  const parsed = file.parse(PlansFile);
  if (!parsed) return undefined;
  const plans = Object.entries(parsed.plans).map(([name, row]) => planOf(name, row));
  for (const plan of plans) rejectUnknown(file, plan, names);
  const all = plans.toSorted((a, b) => a.rank - b.rank);
  for (const [at, plan] of all.entries()) {
    if (plan.rank === all[at - 1]?.rank) file.mistake(['plans', plan.name, 'rank'], 'is the rank of another plan');
  }
  const byName = new Map(plans.map((plan) => [plan.name, plan]));
  const fallback = byName.get(parsed.default);
  if (!fallback) file.mistake(['default'], 'names no plan of the file');
  return fallback && { all, byName, fallback };
}

function planOf(name: string, row: z.infer<typeof PlanRow>): Plan {
  const multiplied = (base: number) => Math.max(1, Math.floor(base * row.multiplier));
  return {
    name,
    rank: row.rank,
    multiplier: row.multiplier,
    permissions: row.permissions,
    featureFlags: row.feature_flags,
    threads: row.threads,
    connections: row.connections,
    allowances: new Map(Object.entries(row.allowances)),
    concurrency: row.concurrency,
    runsInFlight: row.runs_in_flight ?? row.concurrency,
    runsPerHour: row.runs_per_hour ?? multiplied(RUNS_PER_HOUR),
    idempotencyKeysPerHour: row.idempotency_keys_per_hour ?? multiplied(IDEMPOTENCY_KEYS_PER_HOUR),
  };
}

function rejectUnknown(file: CatalogueFile, { name, permissions, allowances }: Plan, names: CatalogueNames): void {
  for (const [at, permission] of permissions.entries()) {
    if (permission.endsWith('*') || names.permissions.has(permission)) continue;
    file.mistake(['plans', name, 'permissions', at], `${permission} is not a permission of tools.json`);
  }
  for (const tool of allowances.keys()) {
    if (tool === ANY || names.tools.has(tool)) continue;
    file.mistake(['plans', name, 'allowances', tool], `${tool} is not a tool of tools.json`);
  }
}
