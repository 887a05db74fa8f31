import { z } from 'zod';
import type { CatalogueFile } from './catalogue-file.ts';

/** A day's executions of each tool that has no number of its own. */
const ANY = 'any';
/**
 * As of `MAX_CONNECTIONS_PER_USER`. An admission looks at all of a user's connections and strikes off the dead ones in one
 * command, which Lua refuses beyond some 8,000: nobody of that user would come in any more.
 */
const MAX_CONNECTIONS = 1_000;
/** Threads kept for a user, whatever the plan allows to be made: the oldest ones give way. */
export const THREADS_KEPT = 500;

/**
 * Runs an hour of a plan whose row names no number, times its multiplier: a sixth of the messages that 30 a minute allow.
 * What a user may leave in Redis follows from it: see docs/security.md.
 */
const RUNS_PER_HOUR = 300;
/** As `RUNS_PER_HOUR`, for idempotency keys of tool calls. */
const IDEMPOTENCY_KEYS_PER_HOUR = 300;
/** A script reads the user's runs in flight by their number alone; the bound is that of `concurrency`. */
const MAX_RUNS_IN_FLIGHT = 1_000;
const perHour = z.number().int().min(1).max(1_000_000).optional();

const PlanRow = z.strictObject({
  /** Orders the plans: the upgrade path of a refusal is the lowest-ranked plan that would allow it. */
  rank: z.number().int().min(0),
  multiplier: z.number().positive(),
  permissions: z.array(z.string().regex(/^(\*|[a-z][a-z0-9_]*(:[a-z0-9_]+)*(:\*)?)$/)),
  feature_flags: z.array(z.string().min(1)),
  /** null: as many as are kept. */
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
  /** `*` grants every permission, `system:*` those under `system:`. */
  readonly permissions: readonly string[];
  /** `*` stands for every flag. */
  readonly featureFlags: readonly string[];
  /** Threads a user may make; null without a limit. */
  readonly threads: number | null;
  /** Connections a user may hold; undefined for `MAX_CONNECTIONS_PER_USER`. */
  readonly connections: number | undefined;
  /** Executions a day, by tool; `any` is each tool's that has no number of its own. A tool without one is unlimited. */
  readonly allowances: ReadonlyMap<string, number>;
  /** Tool calls of one user that may be under way at once. */
  readonly concurrency: number;
  /** Runs of one user that have not ended. */
  readonly runsInFlight: number;
  /** Runs that a user may start within an hour. */
  readonly runsPerHour: number;
  /** Tool calls with a new idempotency key that a user may make within an hour. */
  readonly idempotencyKeysPerHour: number;
}

/** The plans of one state of the file. */
export interface PlanTable {
  /** By rank, lowest first. */
  readonly all: readonly Plan[];
  readonly byName: ReadonlyMap<string, Plan>;
  readonly fallback: Plan;
}

/** The plans as they are now: a reload shows at the next question. */
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

  /**
   * The lowest plan above one that allows more of something; null when there is none.
   * @param allows how much a plan allows, `Infinity` for no limit
   */
  withMore(name: string, allows: (plan: Plan) => number): string | null {
    const current = this.effective(name);
    const better = this.all.find((plan) => plan.rank > current.rank && allows(plan) > allows(current));
    return better?.name ?? null;
  }

  /** The plan of that name; a plan nobody sells (expired, unpaid, renamed) counts as the default one. */
  effective(name: string): Plan {
    const { byName, fallback } = this.#table();
    return byName.get(name) ?? fallback;
  }
}

/** How many executions of a tool a plan includes a day; undefined without a limit. */
export function allowanceOf(plan: Plan, tool: string): number | undefined {
  return plan.allowances.get(tool) ?? plan.allowances.get(ANY);
}

/** What a plan may name. */
export interface CatalogueNames {
  readonly tools: ReadonlySet<string>;
  readonly permissions: ReadonlySet<string>;
}

/** The plans of the file; undefined, with what is wrong among the file's mistakes, when there is anything. */
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
    file.mistake(['plans', name, 'permissions', at], `${permission} is no permission of tools.json`);
  }
  for (const tool of allowances.keys()) {
    if (tool === ANY || names.tools.has(tool)) continue;
    file.mistake(['plans', name, 'allowances', tool], `${tool} is no tool of tools.json`);
  }
}
