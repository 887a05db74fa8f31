import type { Identity } from '../protocol/identity.ts';
import type { Plan, Plans } from './plans.ts';
import type { Tool, ToolCatalogue } from './tool-catalogue.ts';

/** Whether a call may go on. A refusal is a value: only failures are thrown. */
export interface Decision {
  readonly allowed: boolean;
  readonly reason: string;
  readonly required_permissions: readonly string[];
  readonly missing_permissions: readonly string[];
  /** The lowest plan that would allow it; null when none would, or none is needed. */
  readonly upgrade_path: string | null;
}

export type ToolDescription = Pick<Tool, 'name' | 'description' | 'permission' | 'units' | 'arguments'>;

/** The part of an identity that a decision rests on. */
export type Caller = Pick<Identity, 'plan' | 'permissions'>;

/** Decides which tools a caller may use: the plan's permissions and those of the token itself. */
export class Permissions {
  readonly #plans: Plans;
  readonly #tools: ToolCatalogue;

  constructor({ plans, tools }: { plans: Plans; tools: ToolCatalogue }) {
    this.#plans = plans;
    this.#tools = tools;
  }

  /** The permissions of a caller, the plan's first. */
  of(caller: Caller): string[] {
    return [...new Set([...this.#plans.effective(caller.plan).permissions, ...caller.permissions])];
  }

  /** The catalogue as this caller sees it, in the catalogue's order. */
  toolsOf(caller: Caller): Tool[] {
    return this.#tools.all.filter((tool) => this.decide(tool, caller).allowed);
  }

  /** What a client is told of the tools it may use. */
  describeTools(caller: Caller): ToolDescription[] {
    return this.toolsOf(caller).map(({ name, description, permission, units, arguments: schema }) => {
      return { name, description, permission, units, arguments: schema };
    });
  }

  decide(tool: Tool, caller: Caller): Decision {
    const required = [tool.permission];
    if (grants(this.of(caller), tool.permission)) {
      return {
        allowed: true,
        reason: 'Allowed',
        required_permissions: required,
        missing_permissions: [],
        upgrade_path: null,
      };
    }
    return {
      allowed: false,
      reason: `Missing permissions: ${tool.permission}`,
      required_permissions: required,
      missing_permissions: required,
      upgrade_path: this.#upgradePath(tool, this.#plans.effective(caller.plan)),
    };
  }

  #upgradePath(tool: Tool, current: Plan): string | null {
    const plan = this.#plans.all.find(({ rank, permissions }) => {
      return rank > current.rank && grants(permissions, tool.permission);
    });
    return plan?.name ?? null;
  }
}

/**
 * `*` grants every permission, `system:*` each one under `system:`, at any depth, and not `system` itself. A star
 * anywhere else is a character like any other: a pattern that reads narrower than it is would grant too much.
 */
function grants(held: readonly string[], permission: string): boolean {
  return held.some((one) => {
    return one === '*' || one === permission || (one.endsWith(':*') && permission.startsWith(one.slice(0, -1)));
  });
}
