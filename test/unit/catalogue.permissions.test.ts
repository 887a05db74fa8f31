import { describe, expect, it } from '@jest/globals';
import { Catalogues } from '../../src/catalogue/catalogues.ts';
import { Permissions, type ToolCaller } from '../../src/catalogue/permissions.ts';
import type { Tool } from '../../src/catalogue/tool-catalogue.ts';
import { catalogueFiles, catalogues, planFile, planRow, toolFile, toolRow } from '../support/catalogues.ts';
import { cpuMs } from '../support/stopwatch.ts';

const PLANS = Object.keys(planFile.plans);
const ENVIRONMENTS = ['development', 'test', 'staging', 'production'];
const { plans, tools } = new Catalogues();
const inEnvironment = (environment: string) => new Permissions({ plans, tools }, { environment });
const permissions = inEnvironment('production');

const caller = (plan: string, rest: Partial<ToolCaller> = {}): ToolCaller => {
  return { plan, permissions: [], roles: [], featureFlags: {}, ...rest };
};

function tool(name: string): Tool {
  const found = tools.get(name);
  if (!found) throw new Error(`no tool ${name}`);
  return found;
}

interface PermissionJson {
  readonly held_by?: { readonly plans: string[]; readonly roles: string[] };
  readonly needs?: { readonly feature_flag?: string; readonly role?: string; readonly environments?: string[] };
}

/** Evaluates the catalogue files independently of the product, for every cell of the table. */
function expected(name: string, who: ToolCaller, environment: string): boolean {
  const row = toolFile.tools.find((one) => one.name === name);
  const permission = String(row?.permission);
  const plan = planFile.plans[who.plan] as { permissions: string[]; feature_flags: string[] };
  const { held_by, needs = {} } = toolFile.permissions[permission] as PermissionJson;
  const held = held_by
    ? held_by.plans.includes(who.plan) || who.roles.some((role) => held_by.roles.includes(role))
    : plan.permissions.includes('*') || plan.permissions.includes(permission);
  const flag = needs.feature_flag;
  const ofPlan = plan.feature_flags.includes('*') || plan.feature_flags.includes(flag ?? '');
  const flagged = flag === undefined || (who.featureFlags[flag] ?? ofPlan);
  const ranked = needs.role === undefined || who.roles.includes(needs.role);
  return held && flagged && ranked && (needs.environments?.includes(environment) ?? true);
}

const FLAGS: Record<string, boolean>[] = [
  {},
  ...['data_operations', 'advanced_optimization'].flatMap((flag) => [{ [flag]: true }, { [flag]: false }]),
];
const ROLES = [[], ['admin'], ['developer'], ['admin', 'developer'], ['reader']];

describe('the table of decisions', () => {
  it.each(PLANS)(
    'B76 B77 B78 B79 B81 B82 is for the plan %s what the files say, for every tool, flag, role and environment',
    (plan) => {
      let cells = 0;
      const wrong: unknown[] = [];
      for (const environment of ENVIRONMENTS) {
        const decider = inEnvironment(environment);
        for (const featureFlags of FLAGS) {
          for (const roles of ROLES) {
            const who = caller(plan, { featureFlags, roles });
            for (const one of tools.all) {
              const decision = decider.decide(one, who);
              const { allowed, missing_permissions: missing, upgrade_path } = decision;
              const sound =
                allowed === expected(one.name, who, environment) &&
                missing.join() === (allowed ? '' : one.permission) &&
                decision.required_permissions.join() === one.permission &&
                // The suggested plan really allows the tool.
                (!upgrade_path || expected(one.name, { ...who, plan: upgrade_path }, environment));
              if (!sound) wrong.push([one.name, environment, featureFlags, roles, decision]);
              cells += 1;
            }
          }
        }
      }
      expect(wrong).toEqual([]);
      expect(cells).toBe(ENVIRONMENTS.length * FLAGS.length * ROLES.length * toolFile.tools.length);
    },
  );
});

describe('a decision', () => {
  it('B75 allows every plan the basic tools', () => {
    for (const plan of PLANS) {
      expect(permissions.decide(tool('create_thread'), caller(plan))).toEqual({
        allowed: true,
        reason: 'Allowed',
        required_permissions: ['basic'],
        missing_permissions: [],
        missing_requirements: [],
        upgrade_path: null,
      });
    }
  });

  it.each([
    ['B76 B84', 'analyze_workload', 'free', {}, 'Missing permissions: analytics', [], 'pro'],
    [
      'B80',
      'generate_synthetic_data',
      'free',
      {},
      'Missing permissions: data_management',
      ['feature_flag:data_operations'],
      'pro',
    ],
    [
      'B81',
      'generate_synthetic_data',
      'pro',
      { featureFlags: { data_operations: false } },
      'Missing requirements: feature_flag:data_operations',
      ['feature_flag:data_operations'],
      null,
    ],
    [
      'B81',
      'cost_analyzer',
      'pro',
      {},
      'Missing permissions: advanced_optimization',
      ['feature_flag:advanced_optimization'],
      'enterprise',
    ],
    ['B253', 'user_admin', 'enterprise', {}, 'Missing requirements: role:admin', ['role:admin'], null],
    [
      'B79',
      'debug_panel',
      'free',
      {},
      'Missing permissions: developer_tools',
      ['environment:development|staging'],
      null,
    ],
    [
      'B79',
      'debug_panel',
      'developer',
      {},
      'Missing requirements: environment:development|staging',
      ['environment:development|staging'],
      null,
    ],
  ])(
    '%s names what %s lacks on the plan %s, and who has it',
    (_rows, name, plan, rest, reason, missing_requirements, upgrade_path) => {
      expect(permissions.decide(tool(name), caller(plan, rest))).toMatchObject({
        allowed: false,
        reason,
        missing_requirements,
        upgrade_path,
        missing_permissions: [tool(name).permission],
      });
    },
  );

  it('B83 B85 rests on the permission of the catalogue: one that a token grants opens all its tools, and no other', () => {
    const granted = caller('free', { permissions: ['analytics'] });
    expect(permissions.of(granted)).toEqual(['basic', 'analytics']);
    const names = permissions.toolsOf(granted).map(({ name }) => name);
    expect(names).toEqual(
      tools.all.filter((one) => ['basic', 'analytics'].includes(one.permission)).map(({ name }) => name),
    );
  });

  it('B254 matches wildcards by the part before the colon, never by a common prefix of two names', () => {
    const rows = ['system:read', 'system:logs:read', 'systematic', 'system', 'other:system'].map((permission) => {
      return toolRow({ name: `tool_${permission.replaceAll(':', '_')}`, permission });
    });
    const named = Object.fromEntries(rows.map(({ permission }) => [String(permission), { description: 'a' }]));
    const own = catalogues({ tools: [toolRow({ name: 'any' })] });
    const files = { ...own, tools: toolsWith(named, rows) };
    const decider = new Permissions(files, { environment: 'test' });
    const allowed = (...held: string[]) =>
      decider.toolsOf(caller('free', { permissions: held })).map(({ name }) => name);
    expect(allowed('system:*')).toEqual(['tool_system_read', 'tool_system_logs_read']);
    expect(allowed('system:logs:*')).toEqual(['tool_system_logs_read']);
    expect(allowed('system:read')).toEqual(['tool_system_read']);
    expect(allowed('system')).toEqual(['tool_system']);
    expect(
      allowed('sys*', 'syst', 'system:', ':*', '', '**', '*:read', 'system:**', 'system:.*', 'sys*:read', 'System:*'),
    ).toEqual([]);
    expect(allowed('*')).toEqual(rows.map(({ name }) => name));
  });

  it('B87 is the same however often it is asked for, and soon', () => {
    const before = cpuMs();
    const ask = () => JSON.stringify(permissions.decide(tool('analyze_workload'), caller('pro')));
    const decisions = Array.from({ length: 10_000 }, ask);
    expect(new Set(decisions).size).toBe(1);
    expect(cpuMs() - before).toBeLessThan(5_000);
  });

  it('B252 gives an unknown plan what the free plan has', () => {
    expect(permissions.toolsOf(caller('expired'))).toEqual(permissions.toolsOf(caller('free')));
  });

  it('B86 B257 never takes away on a higher plan what a lower one has', () => {
    let below: string[] = [];
    for (const plan of PLANS) {
      const names = permissions.toolsOf(caller(plan)).map(({ name }) => name);
      expect(names).toEqual(expect.arrayContaining(below));
      below = names;
    }
  });

  it('denies a permission that is in no catalogue, whatever a token or a plan says', () => {
    const exotic = { ...tool('create_thread'), permission: 'nobody_has_this' };
    for (const plan of PLANS)
      expect(permissions.decide(exotic, caller(plan, { permissions: ['*'] })).allowed).toBe(false);
  });

  it('describes only tools that the caller may use, and says which of them can be executed', () => {
    const described = permissions.describeTools(caller('pro'));
    for (const one of described) {
      expect(Object.keys(one)).toEqual(['name', 'description', 'permission', 'units', 'arguments', 'available']);
    }
    const available = described.filter((one) => one.available).map(({ name }) => name);
    expect(available).toContain('analyze_workload');
    expect(available).not.toContain('query_corpus');
  });
});

/** A catalogue with permissions of its own. */
function toolsWith(named: Record<string, object>, rows: object[]) {
  const content = { permissions: { basic: { description: 'a' }, ...named }, tools: rows };
  const all = { default: 'free', plans: { free: planRow({ permissions: ['basic'] }) } };
  return new Catalogues(catalogueFiles({ tools: content, plans: all })).tools;
}
