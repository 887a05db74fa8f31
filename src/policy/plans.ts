import { readFileSync } from 'node:fs';
import { z } from 'zod';

const PlanRow = z.strictObject({
  /** Orders the plans: the upgrade path of a refusal is the lowest-ranked plan that would allow it. */
  rank: z.number().int().min(0),
  multiplier: z.number().positive(),
  permissions: z.array(z.string().min(1)),
  feature_flags: z.array(z.string().min(1)),
  threads: z.number().int().positive().nullable(),
  connections: z.number().int().positive().optional(),
});

const PlansFile = z
  .strictObject({ default: z.string(), plans: z.record(z.string().regex(/^[a-z][\w-]*$/), PlanRow) })
  .refine((file) => file.default in file.plans, { message: 'names no plan of the file', path: ['default'] });

export interface Plan {
  readonly name: string;
  readonly rank: number;
  /** Factor on `MESSAGE_RATE_PER_MINUTE` and on tool limits. */
  readonly multiplier: number;
  /** `*` grants every permission, `system:*` those under `system:`. */
  readonly permissions: readonly string[];
  readonly featureFlags: readonly string[];
  /** Threads a user may make; null without a limit. */
  readonly threads: number | null;
  /** Connections a user may hold; undefined for `MAX_CONNECTIONS_PER_USER`. */
  readonly connections: number | undefined;
}

/** The plans, as `config/plans.json` has them. */
export class Plans {
  /** By rank, lowest first. */
  readonly all: readonly Plan[];
  readonly #byName: ReadonlyMap<string, Plan>;
  readonly #default: Plan;

  constructor(plans: readonly Plan[], defaultName: string) {
    this.all = plans.toSorted((a, b) => a.rank - b.rank);
    this.#byName = new Map(plans.map((plan) => [plan.name, plan]));
    const fallback = this.#byName.get(defaultName);
    if (!fallback) throw new Error(`no plan is named ${defaultName}`);
    this.#default = fallback;
  }

  get(name: string): Plan | undefined {
    return this.#byName.get(name);
  }

  /** The plan of that name; a plan nobody sells (expired, unpaid, renamed) counts as the default one. */
  effective(name: string): Plan {
    return this.#byName.get(name) ?? this.#default;
  }
}

const PLANS_FILE = new URL('../../config/plans.json', import.meta.url);

/** @throws Error naming the file and the field of each mistake */
export function loadPlans(file: URL = PLANS_FILE): Plans {
  const parsed = PlansFile.safeParse(JSON.parse(readFileSync(file, 'utf8')));
  if (!parsed.success) throw new Error(`${file.pathname}:\n${z.prettifyError(parsed.error)}`);
  const plans = Object.entries(parsed.data.plans).map(([name, row]) => ({
    name,
    rank: row.rank,
    multiplier: row.multiplier,
    permissions: row.permissions,
    featureFlags: row.feature_flags,
    threads: row.threads,
    connections: row.connections,
  }));
  return new Plans(plans, parsed.data.default);
}
