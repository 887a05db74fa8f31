import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from '@jest/globals';
import { messagesPerMinute } from '../../src/policy/message-rate.ts';
import { Permissions } from '../../src/policy/permissions.ts';
import { loadPlans } from '../../src/policy/plans.ts';
import { loadToolCatalogue, type Tool } from '../../src/policy/tool-catalogue.ts';
import { closeAfter } from '../support/open-resources.ts';

const PLANS = ['free', 'pro', 'enterprise', 'developer'] as const;
const plans = loadPlans();
const tools = loadToolCatalogue();
const permissions = new Permissions({ plans, tools });

const caller = (plan: string, granted: string[] = []) => ({ plan, permissions: granted });

function tool(name: string): Tool {
  const found = tools.get(name);
  if (!found) throw new Error(`no tool ${name}`);
  return found;
}

/** A configuration file with this content, gone after the test. */
function fileOf(content: unknown): URL {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-policy-'));
  closeAfter('test', () => rmSync(folder, { recursive: true }));
  const path = join(folder, 'file.json');
  writeFileSync(path, JSON.stringify(content));
  return pathToFileURL(path);
}

describe('the plans', () => {
  it('are those of the contract, lowest first', () => {
    expect(plans.all.map(({ name, multiplier, threads }) => [name, multiplier, threads])).toEqual([
      ['free', 1, 5],
      ['pro', 2, 50],
      ['enterprise', 10, null],
      ['developer', 100, null],
    ]);
    expect(plans.get('free')?.permissions).toEqual(['basic']);
    expect(plans.get('developer')?.permissions).toEqual(['*']);
    expect(plans.get('pro')?.featureFlags).toContain('data_operations');
    expect(plans.get('free')?.featureFlags).toEqual([]);
  });

  it('multiply the messages a minute', () => {
    expect(plans.all.map((plan) => messagesPerMinute(plan, 30))).toEqual([30, 60, 300, 3_000]);
  });

  it('count as free when nobody sells them', () => {
    for (const name of ['', 'gold', 'constructor', '__proto__', 'Pro']) {
      expect(plans.effective(name).name).toBe('free');
    }
    expect(plans.effective('pro').name).toBe('pro');
  });

  it('are refused with the file and the field when the file is wrong', () => {
    const row = { rank: 0, multiplier: 1, permissions: [], feature_flags: [], threads: 5 };
    expect(() => loadPlans(fileOf({ default: 'free', plans: { free: { ...row, multiplier: 0 } } }))).toThrow(
      'multiplier',
    );
    expect(() => loadPlans(fileOf({ default: 'gold', plans: { free: row } }))).toThrow('default');
    expect(() => loadPlans(fileOf({ default: 'free', plans: { free: { ...row, theads: 5 } } }))).toThrow('theads');
    expect(loadPlans(fileOf({ default: 'free', plans: { free: { ...row, connections: 7 } } })).all).toHaveLength(1);
  });
});

describe('a decision about a tool', () => {
  it('B75 allows every plan the basic tools', () => {
    for (const plan of PLANS) {
      expect(permissions.decide(tool('create_thread'), caller(plan))).toEqual({
        allowed: true,
        reason: 'Allowed',
        required_permissions: ['basic'],
        missing_permissions: [],
        upgrade_path: null,
      });
    }
  });

  it('B76 B84 denies the free plan a tool of the pro plan, and names what is missing and who has it', () => {
    expect(permissions.decide(tool('analyze_workload'), caller('free'))).toEqual({
      allowed: false,
      reason: 'Missing permissions: analytics',
      required_permissions: ['analytics'],
      missing_permissions: ['analytics'],
      upgrade_path: 'pro',
    });
  });

  it('B77 B78 B79 allows the plans above what they include', () => {
    for (const plan of ['pro', 'enterprise', 'developer']) {
      expect(permissions.decide(tool('analyze_workload'), caller(plan)).allowed).toBe(true);
    }
  });

  it('B83 rests on the permission that the catalogue names', () => {
    expect(tool('create_thread').permission).toBe('basic');
    expect(tool('analyze_workload').permission).toBe('analytics');
    expect(tool('system_health').permission).toBe('monitoring');
  });

  it('B85 opens all tools of a permission that the token grants, and no other', () => {
    const granted = caller('free', ['analytics']);
    expect(permissions.of(granted)).toEqual(['basic', 'analytics']);
    expect(permissions.decide(tool('analyze_workload'), granted).allowed).toBe(true);
    expect(permissions.decide(tool('system_health'), granted).allowed).toBe(false);
  });

  it.each<[string[], string, boolean]>([
    [['system:read'], 'system:read', true],
    [['system:*'], 'system:read', true],
    [['system:*'], 'system:logs:read', true],
    [['system:logs:*'], 'system:logs:read', true],
    [['basic', 'system:*'], 'system:write', true],
    [['*'], 'system:write', true],
    [['system:*'], 'system', false],
    [['system:*'], 'systems:read', false],
    [['system:*'], 'other:system:read', false],
    [['system:*'], 'System:read', false],
    [['system:logs:*'], 'system:metrics:read', false],
    [['system:read'], 'system:write', false],
    [['system:'], 'system:read', false],
    [['system*'], 'system:read', false],
    [['sys*:read'], 'system:read', false],
    [['*:read'], 'system:read', false],
    [['**'], 'system:read', false],
    [[':*'], 'system:read', false],
    [['system:**'], 'system:read', false],
    [['system:*:read'], 'system:logs:read', false],
    [['system:.*'], 'system:read', false],
    [[], 'system:read', false],
  ])('B254 of a token with %j about a tool that asks for %s: %s', (granted, permission, allowed) => {
    const decision = permissions.decide({ ...tool('system_health'), permission }, caller('free', granted));
    expect(decision.allowed).toBe(allowed);
    expect(decision.missing_permissions).toEqual(allowed ? [] : [permission]);
  });

  it('B254 names the plan with the wildcard as the one to upgrade to', () => {
    const row = { rank: 0, multiplier: 1, permissions: ['basic'], feature_flags: [], threads: 5 };
    const file = { free: row, pro: { ...row, rank: 1, permissions: ['basic', 'system:*'] } };
    const own = new Permissions({ plans: loadPlans(fileOf({ default: 'free', plans: file })), tools });
    const asked = { ...tool('system_health'), permission: 'system:read' };
    expect(own.decide(asked, caller('free')).upgrade_path).toBe('pro');
    expect(own.decide(asked, caller('pro')).allowed).toBe(true);
  });

  it('B86 never takes away on a higher plan what a lower one has', () => {
    let below: string[] = [];
    for (const plan of PLANS) {
      const names = permissions.toolsOf(caller(plan)).map(({ name }) => name);
      expect(names).toEqual(expect.arrayContaining(below));
      below = names;
    }
    expect(below).toEqual(tools.all.map(({ name }) => name));
  });

  it('names no plan to upgrade to when none would allow it', () => {
    const exotic = { ...tool('create_thread'), permission: 'nobody_has_this' };
    expect(permissions.decide(exotic, caller('developer')).allowed).toBe(true);
    expect(permissions.decide(exotic, caller('enterprise')).upgrade_path).toBe('developer');
    const noWildcard = plans.all.filter(({ name }) => name !== 'developer');
    const file = Object.fromEntries(
      noWildcard.map(({ name, featureFlags, ...plan }) => [name, { ...plan, feature_flags: featureFlags }]),
    );
    const smaller = new Permissions({ plans: loadPlans(fileOf({ default: 'free', plans: file })), tools });
    expect(smaller.decide(exotic, caller('free')).upgrade_path).toBeNull();
  });

  it('B252 gives a plan nobody sells what the free plan has', () => {
    expect(permissions.toolsOf(caller('expired'))).toEqual(permissions.toolsOf(caller('free')));
  });

  it('describes only tools that the caller may use, in the order of the catalogue', () => {
    const described = permissions.describeTools(caller('free'));
    expect(described.map(({ name }) => name)).toEqual([
      'create_thread',
      'get_thread_history',
      'list_agents',
      'get_agent_status',
    ]);
    for (const one of described) {
      expect(Object.keys(one)).toEqual(['name', 'description', 'permission', 'units', 'arguments']);
    }
  });
});

describe('the tool catalogue', () => {
  it('knows nothing that is not in it', () => {
    for (const name of ['', 'rm', 'constructor', '__proto__', 'Create_Thread']) expect(tools.get(name)).toBeUndefined();
  });

  it('checks arguments against the schema of the tool', () => {
    const problem = (name: string, args: unknown) => tool(name).argumentsProblem(args);
    expect(problem('analyze_workload', { hours: 24 })).toBeUndefined();
    expect(problem('analyze_workload', {})).toBeUndefined();
    expect(problem('analyze_workload', { hours: 0 })).toMatch(/hours/);
    expect(problem('analyze_workload', { hours: '24' })).toMatch(/hours/);
    expect(problem('analyze_workload', { days: 1 })).toMatch(/additional/);
    expect(problem('create_thread', { title: 'x'.repeat(121) })).toMatch(/title/);
    expect(problem('list_agents', [])).toMatch(/object/);
  });

  it('is refused with the file and the field when the file is wrong', () => {
    const row = { name: 'a', description: 'a', permission: 'basic', executor: 'builtin', units: 1, arguments: {} };
    const load = (...rows: unknown[]) => loadToolCatalogue(fileOf({ tools: rows }));
    expect(load(row).all).toHaveLength(1);
    expect(() => load(row, row)).toThrow('a stands twice');
    expect(() => load({ ...row, units: -1 })).toThrow('units');
    expect(() => load({ ...row, name: 'A tool' })).toThrow('name');
    expect(() => load({ ...row, executor: 'shell' })).toThrow('executor');
    expect(() => load({ ...row, arguments: { type: 'objekt' } })).toThrow();
  });
});
