import type { Identity } from '../protocol/identity.ts';
import type { Plan, Plans } from './plans.ts';
import type { Permission, Tool, ToolCatalogue } from './tool-catalogue.ts';

/** The result of an authorization. A refusal is a value, not an exception. */
export interface Decision {
  readonly allowed: boolean;
  /** One sentence that a product can display. */
  readonly reason: string;
  readonly required_permissions: readonly string[];
  /** Permissions that the caller lacks, or that have no effect because one of their requirements is missing. */
  readonly missing_permissions: readonly string[];
  /** Other missing requirements: `feature_flag:…`, `role:…`, `environment:…`. */
  readonly missing_requirements: readonly string[];
  /** The lowest plan that would allow the call; null when none would, or when the call is allowed. */
  readonly upgrade_path: string | null;
}

export type ToolDescription = Pick<Tool, 'name' | 'description' | 'permission' | 'units' | 'arguments'> & {
  /** False while the tool has no executor; calls then fail with TOOL_NOT_AVAILABLE. */
  readonly available: boolean;
};

/** The caller of a tool: the part of an identity that determines what it may use. */
export type ToolCaller = Pick<Identity, 'plan' | 'permissions' | 'roles' | 'featureFlags'>;

/** Returns the caller without the other members of the identity. */
export function toolCallerOf({ plan, permissions, roles, featureFlags }: ToolCaller): ToolCaller {
  return { plan, permissions, roles, featureFlags };
}

export interface PermissionsDeps {
  readonly plans: Plans;
  readonly tools: ToolCatalogue;
}

/** Decides which tools a caller may use, from plan, token claims and environment, without I/O. */
export class Permissions {
  readonly #plans: Plans;
  readonly #tools: ToolCatalogue;
  readonly #environment: string;

  constructor({ plans, tools }: PermissionsDeps, options: { readonly environment: string }) {
    this.#plans = plans;
    this.#tools = tools;
    this.#environment = options.environment;
  }

  /** Returns the permissions of a caller: those of the plan, then those of the token. */
  of(caller: Pick<ToolCaller, 'plan' | 'permissions'>): string[] {
    return [...new Set([...this.#plans.effective(caller.plan).permissions, ...caller.permissions])];
  }

  /** Returns the tools that this caller may use, in the order of the catalogue. */
  toolsOf(caller: ToolCaller): Tool[] {
    return this.#tools.all.filter((tool) => this.decide(tool, caller).allowed);
  }

  /** Returns the public descriptions of the tools that this caller may use. */
  describeTools(caller: ToolCaller): ToolDescription[] {
    return this.toolsOf(caller).map(({ name, description, permission, units, arguments: schema, executor }) => {
      return { name, description, permission, units, arguments: schema, available: executor !== 'none' };
    });
  }

  /** Returns whether a caller has a permission and meets its requirements. */
  has(permission: string, caller: ToolCaller): boolean {
    const { granted, missing } = this.#evaluate({ permission }, caller);
    return granted && missing.length === 0;
  }

  decide(tool: Tool, caller: ToolCaller): Decision {
    const required = [tool.permission];
    const { granted, missing } = this.#evaluate(tool, caller);
    if (granted && missing.length === 0) {
      return {
        allowed: true,
        reason: 'Allowed',
        required_permissions: required,
        missing_permissions: [],
        missing_requirements: [],
        upgrade_path: null,
      };
    }
    return {
      allowed: false,
      reason: granted ? `Missing requirements: ${missing.join(', ')}` : `Missing permissions: ${tool.permission}`,
      required_permissions: required,
      missing_permissions: required,
      missing_requirements: missing,
      upgrade_path: this.upgradePath(tool, caller),
    };
  }

  /**
   * Returns the lowest plan above the caller's that allows the tool; null when there is none.
   * @param better further condition on the plan
   */
  upgradePath(tool: Tool, caller: ToolCaller, better: (plan: Plan) => boolean = () => true): string | null {
    const current = this.#plans.effective(caller.plan);
    const plan = this.#plans.all.find((candidate) => {
      if (candidate.rank <= current.rank || !better(candidate)) return false;
      const { granted, missing } = this.#evaluate(tool, { ...caller, plan: candidate.name });
      return granted && missing.length === 0;
    });
    return plan?.name ?? null;
  }

  #evaluate(tool: Pick<Tool, 'permission'>, caller: ToolCaller): { granted: boolean; missing: string[] } {
    const permission = this.#tools.permission(tool.permission);
    // A permission outside the catalogue is never granted, even if a token claims it.
    if (!permission) return { granted: false, missing: [] };
    return { granted: this.#hasAny(permission, caller), missing: this.#missing(permission, caller) };
  }

  #hasAny({ name, held_by }: Permission, caller: ToolCaller): boolean {
    if (!held_by) return this.of(caller).some((granted) => covers(granted, name));
    const plan = this.#plans.effective(caller.plan).name;
    return held_by.plans.includes(plan) || held_by.roles.some((role) => caller.roles.includes(role));
  }

  #missing({ needs }: Permission, caller: ToolCaller): string[] {
    const { feature_flag, role, environments } = needs;
    const missing: string[] = [];
    if (feature_flag !== undefined && !this.#hasFlag(feature_flag, caller))
      missing.push(`feature_flag:${feature_flag}`);
    if (role !== undefined && !caller.roles.includes(role)) missing.push(`role:${role}`);
    if (environments && !environments.some((one) => one === this.#environment)) {
      missing.push(`environment:${environments.join('|')}`);
    }
    return missing;
  }

  /** The flags of a token override those of the plan, in both directions. */
  #hasFlag(flag: string, { plan, featureFlags }: ToolCaller): boolean {
    const claimed = Object.hasOwn(featureFlags, flag) ? featureFlags[flag] : featureFlags['*'];
    if (claimed !== undefined) return claimed;
    const ofPlan = this.#plans.effective(plan).featureFlags;
    return ofPlan.includes('*') || ofPlan.includes(flag);
  }
}

/**
 * `*` covers every permission; `system:*` covers each one under `system:` at any depth, but not `system` itself. A star
 * in another position is a literal character, because a misread pattern would grant too much.
 */
function covers(granted: string, permission: string): boolean {
  return (
    granted === '*' || granted === permission || (granted.endsWith(':*') && permission.startsWith(granted.slice(0, -1)))
  );
}
