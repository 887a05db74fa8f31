import type { AgentDescription } from '../catalogue/agent-catalogue.ts';
import type { CatalogueContents } from '../catalogue/catalogues.ts';
import type { Permissions } from '../catalogue/permissions.ts';
import type { Plan } from '../catalogue/plans.ts';
import type { Tool } from '../catalogue/tool-catalogue.ts';
import { isObject } from '../lib/json.ts';

/** Changes that a diff lists; a larger one is another catalogue. */
const MAX_CHANGES = 500;

export interface Change {
  readonly path: string;
  readonly kind: 'added' | 'removed' | 'changed';
  readonly before: unknown;
  readonly after: unknown;
}

export function describePlan(plan: Plan) {
  return {
    name: plan.name,
    rank: plan.rank,
    multiplier: plan.multiplier,
    permissions: [...plan.permissions],
    feature_flags: [...plan.featureFlags],
    threads: plan.threads,
    connections: plan.connections ?? null,
    allowances: Object.fromEntries(plan.allowances),
    concurrency: plan.concurrency,
    runs_in_flight: plan.runsInFlight,
    runs_per_hour: plan.runsPerHour,
    idempotency_keys_per_hour: plan.idempotencyKeysPerHour,
  };
}

export function describeTool({ name, description, permission, units, executor }: Tool) {
  return { name, description, permission, units, executor: typeof executor === 'string' ? executor : 'tool_server' };
}

/** Addresses, headers and instructions are left out: they can contain secrets. */
export function describeAgent(agent: AgentDescription) {
  const { name, description, kind = 'built_in', model, tools, timeout_seconds: timeout } = agent;
  return {
    name,
    description,
    kind,
    model: typeof model === 'string' ? model : null,
    tools: [...tools],
    timeout_seconds: timeout ?? null,
  };
}

/** The parts of the catalogues that a reload can change, without secrets. */
export function describeContents({ plans, tools, servers }: CatalogueContents) {
  const byName = <Row>(rows: Iterable<readonly [string, Row]>, describe: (row: Row) => unknown) => {
    return Object.fromEntries([...rows].map(([name, row]) => [name, describe(row)]));
  };
  return {
    plans: byName(plans.byName, describePlan),
    permissions: byName(tools.permissions, (permission) => permission),
    tools: byName(tools.tools, describeTool),
    tool_servers: byName(
      servers.map((server) => [server.name, server] as const),
      (server) => ({ transport: server.address.kind, tools: [...server.tools] }),
    ),
  };
}

/** Who may use which tool by the plan alone; a token can grant or withhold more. */
export function matrixOf(plans: readonly Plan[], tools: readonly Tool[], permissions: Pick<Permissions, 'decide'>) {
  const rights = { permissions: [], roles: [], featureFlags: {} };
  return {
    plans: plans.map(({ name }) => name),
    tools: tools.map((tool) => ({
      tool: tool.name,
      allowed: Object.fromEntries(
        plans.map(({ name: plan }) => [plan, permissions.decide(tool, { ...rights, plan }).allowed]),
      ),
    })),
  };
}

/** Returns the differences of two values, by the path of each member. Lists are compared as a whole. */
export function changesBetween(before: unknown, after: unknown, path = ''): Change[] {
  if (JSON.stringify(before) === JSON.stringify(after)) return [];
  if (before === undefined) return [{ path, kind: 'added', before: null, after }];
  if (after === undefined) return [{ path, kind: 'removed', before, after: null }];
  if (!isObject(before) || !isObject(after)) return [{ path, kind: 'changed', before, after }];
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  const join = (name: string) => (path === '' ? name : `${path}.${name}`);
  return names.flatMap((name) => changesBetween(before[name], after[name], join(name))).slice(0, MAX_CHANGES);
}
