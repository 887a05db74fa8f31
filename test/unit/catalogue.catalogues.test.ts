import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from '@jest/globals';
import { CatalogueError, type Mistake } from '../../src/catalogue/catalogue-file.ts';
import { Catalogues } from '../../src/catalogue/catalogues.ts';
import { allowanceOf } from '../../src/catalogue/plans.ts';
import { messagesPerMinute } from '../../src/limits/message-limiter.ts';
import { BUILT_IN_TOOLS } from '../../src/tools/executors.ts';
import { catalogueFiles, planFile, planRow, toolFile, toolRow } from '../support/catalogues.ts';

const { plans, tools } = new Catalogues();

function mistakes(files: Parameters<typeof catalogueFiles>[0]): readonly Mistake[] {
  try {
    new Catalogues(catalogueFiles(files), { builtInTools: [...BUILT_IN_TOOLS, 'extra'] });
  } catch (error) {
    if (error instanceof CatalogueError) return error.mistakes;
    throw error;
  }
  return [];
}

const withPlan = (row: object) => ({
  plans: { ...planFile, plans: { ...planFile.plans, pro: { ...planFile.plans.pro, ...row } } },
});
const withTool = (row: object) => ({
  tools: { ...toolFile, tools: [...toolFile.tools, { ...toolRow({ name: 'extra' }), ...row }] },
});

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
  });

  it('include as many executions a day as the contract says', () => {
    const allowance = (plan: string, tool: string) => allowanceOf(plans.effective(plan), tool);
    expect(['create_thread', 'get_thread_history', 'list_agents'].map((tool) => allowance('free', tool))).toEqual([
      10, 100, 100,
    ]);
    expect(
      ['create_thread', 'generate_synthetic_data', 'analyze_workload'].map((tool) => allowance('pro', tool)),
    ).toEqual([1_000, 10_000, 500]);
    for (const plan of ['enterprise', 'developer']) {
      for (const { name } of tools.all) expect(allowance(plan, name)).toBeUndefined();
    }
  });

  it('multiply the messages a minute', () => {
    expect(plans.all.map((plan) => messagesPerMinute(plan, 30))).toEqual([30, 60, 300, 3_000]);
  });

  it('limit runs, threads and idempotency keys as docs/security.md says', () => {
    const text = readFileSync(new URL('../../docs/security.md', import.meta.url), 'utf8');
    const row = (of: (plan: (typeof plans.all)[number]) => number) => {
      return plans.all.map((plan) => of(plan).toLocaleString('en-US')).join(' / ');
    };
    expect(text).toContain(`| runs in flight | ${row((plan) => plan.runsInFlight)} |`);
    expect(text).toContain(`| runs per hour | ${row((plan) => plan.runsPerHour)} |`);
    expect(text).toContain(`| new idempotency keys per hour | ${row((plan) => plan.idempotencyKeysPerHour)} |`);
    expect(text).toContain(`| tool calls in flight | ${row((plan) => plan.concurrency)} |`);
    expect(text).toContain(`| messages per minute | ${row((plan) => messagesPerMinute(plan, 30))} |`);
  });

  it('of a file from before these fields limit runs and keys by concurrency and multiplier', () => {
    const { runs_in_flight, runs_per_hour, idempotency_keys_per_hour, ...older } = planFile.plans.pro ?? {};
    expect([runs_in_flight, runs_per_hour, idempotency_keys_per_hour]).not.toContain(undefined);
    const files = catalogueFiles({ plans: { ...planFile, plans: { ...planFile.plans, pro: older } } });
    const { plans: read } = new Catalogues(files);
    expect(read.get('pro')).toMatchObject({ runsInFlight: 10, runsPerHour: 600, idempotencyKeysPerHour: 600 });
  });

  it('count as free when they are unknown', () => {
    for (const name of ['', 'gold', 'constructor', '__proto__', 'Pro']) expect(plans.effective(name).name).toBe('free');
    expect(plans.effective('pro').name).toBe('pro');
  });
});

describe('the tools', () => {
  it('are those of the contract, under their permissions', () => {
    const byPermission = Object.groupBy(tools.all, ({ permission }) => permission);
    expect(
      Object.fromEntries(Object.entries(byPermission).map(([name, of]) => [name, of?.map((tool) => tool.name)])),
    ).toEqual({
      basic: ['create_thread', 'get_thread_history', 'list_agents', 'get_agent_status'],
      analytics: ['analyze_workload', 'query_corpus', 'optimize_prompt'],
      data_management: ['generate_synthetic_data', 'corpus_manager', 'create_corpus', 'modify_corpus'],
      monitoring: ['system_health', 'get_metrics', 'view_logs'],
      advanced_optimization: [
        'cost_analyzer',
        'latency_analyzer',
        'performance_predictor',
        'multi_objective_optimization',
        'kv_cache_optimization_audit',
      ],
      system_management: ['system_configurator', 'log_analyzer', 'user_admin', 'feature_flag_toggle'],
      developer_tools: ['debug_panel', 'impersonation_tool', 'system_logs', 'database_query_tool'],
    });
  });

  it('are none beyond the file', () => {
    for (const name of ['', 'rm', 'constructor', '__proto__', 'Create_Thread']) expect(tools.get(name)).toBeUndefined();
  });

  it('check their arguments against their schema', () => {
    const problem = (name: string, args: unknown) => tools.get(name)?.argumentsProblem(args);
    expect(problem('analyze_workload', { hours: 24 })).toBeUndefined();
    expect(problem('analyze_workload', {})).toBeUndefined();
    expect(problem('analyze_workload', { hours: 0 })).toMatch(/hours/);
    expect(problem('analyze_workload', { hours: '24' })).toMatch(/hours/);
    expect(problem('analyze_workload', { days: 1 })).toMatch(/additional/);
    expect(problem('create_thread', { title: 'x'.repeat(121) })).toMatch(/title/);
    expect(problem('list_agents', [])).toMatch(/object/);
    let deep: unknown = {};
    for (let i = 0; i < 40; i++) deep = [deep];
    expect(problem('list_agents', { deep })).toMatch(/deep/);
  });
});

describe('the arguments of a tool of the file', () => {
  it('are checked against nested loops in a pattern in time that grows with their size only', () => {
    const properties = {
      a: { type: 'string', pattern: '^(a+)+$' },
      b: { type: 'array', uniqueItems: true, maxItems: 2 },
    };
    const files = catalogueFiles(withTool({ arguments: { type: 'object', properties } }));
    const tool = new Catalogues(files, { builtInTools: [...BUILT_IN_TOOLS, 'extra'] }).tools.get('extra');
    expect(tool?.argumentsProblem({ a: 'a'.repeat(60), b: [1, 2] })).toBeUndefined();
    expect(tool?.argumentsProblem({ a: `${'a'.repeat(60)}b` })).toContain('must match pattern');
    expect(tool?.argumentsProblem({ b: [1, 1] })).toContain('duplicate');
  });
});

describe('a file with a mistake', () => {
  it.each([
    ['a field that there is not', withPlan({ theads: 5 }), 'plans.json', 'plans.pro.theads'],
    ['more threads than are kept', withPlan({ threads: 501 }), 'plans.json', 'plans.pro.threads'],
    ['no run in flight', withPlan({ runs_in_flight: 0 }), 'plans.json', 'plans.pro.runs_in_flight'],
    ['no limit on the runs of an hour', withPlan({ runs_per_hour: null }), 'plans.json', 'plans.pro.runs_per_hour'],
    ['a number out of range', withPlan({ multiplier: 0 }), 'plans.json', 'plans.pro.multiplier'],
    [
      'more connections than an admission can look at',
      withPlan({ connections: 1_001 }),
      'plans.json',
      'plans.pro.connections',
    ],
    [
      'a permission that there is not',
      withPlan({ permissions: ['basic', 'magic'] }),
      'plans.json',
      'plans.pro.permissions.1',
    ],
    ['a wildcard in the middle', withPlan({ permissions: ['a*b'] }), 'plans.json', 'plans.pro.permissions.0'],
    [
      'an allowance of a tool that there is not',
      withPlan({ allowances: { rm: 1 } }),
      'plans.json',
      'plans.pro.allowances.rm',
    ],
    ['the rank of another plan', withPlan({ rank: 2 }), 'plans.json', 'plans.enterprise.rank'],
    ['a default that there is not', { plans: { ...planFile, default: 'gold' } }, 'plans.json', 'default'],
    [
      'a tool that stands twice',
      withTool({ name: 'list_agents' }),
      'tools.json',
      `tools.${toolFile.tools.length}.name`,
    ],
    [
      'a tool named like a permission',
      withTool({ name: 'basic', executor: 'none' }),
      'tools.json',
      `tools.${toolFile.tools.length}.name`,
    ],
    [
      'a permission of no row',
      withTool({ permission: 'magic' }),
      'tools.json',
      `tools.${toolFile.tools.length}.permission`,
    ],
    [
      'an executor that there is not',
      withTool({ executor: 'shell' }),
      'tools.json',
      `tools.${toolFile.tools.length}.executor`,
    ],
    [
      'a schema that is none',
      withTool({ arguments: { type: 'object', minimum: 'a' } }),
      'tools.json',
      `tools.${toolFile.tools.length}.arguments`,
    ],
    [
      'a schema that is elsewhere',
      withTool({ arguments: { type: 'object', $ref: 'http://127.0.0.1/a' } }),
      'tools.json',
      `tools.${toolFile.tools.length}.arguments`,
    ],
    [
      'a keyword that does nothing',
      withTool({ arguments: { type: 'object', properties: { a: { type: 'string', maximum: 1 } } } }),
      'tools.json',
      `tools.${toolFile.tools.length}.arguments`,
    ],
    [
      'a plan that there is not',
      {
        tools: {
          ...toolFile,
          permissions: {
            ...toolFile.permissions,
            extra: { description: 'a', held_by: { plans: ['gold'], roles: [] } },
          },
        },
      },
      'tools.json',
      'permissions.extra.held_by.plans.0',
    ],
  ])('is refused for %s, with file and field', (_what, files, file, field) => {
    expect(mistakes(files)).toEqual([expect.objectContaining({ file, field, line: expect.any(Number) })]);
  });

  it.each([
    ['a lookahead', { type: 'string', pattern: '^(?=.*x)y' }, 'cannot be matched in linear time'],
    ['a back reference', { type: 'string', pattern: '(a)\\1' }, 'cannot be matched in linear time'],
    ['no expression', { type: 'string', pattern: '(' }, 'is not a usable JSON Schema'],
    ['unique items without a bound', { type: 'array', items: {}, uniqueItems: true }, '"maxItems" of at most 100'],
    ['too many unique items', { type: 'array', items: {}, uniqueItems: true, maxItems: 101 }, '"maxItems" of at most'],
  ])('is refused for arguments whose check can cost more than their size: %s', (_what, a, message) => {
    expect(mistakes(withTool({ arguments: { type: 'object', properties: { a } } }))).toEqual([
      expect.objectContaining({
        file: 'tools.json',
        field: `tools.${toolFile.tools.length}.arguments`,
        message: expect.stringContaining(message),
      }),
    ]);
  });

  it('is refused for a tool that is called built in and is not', () => {
    expect(mistakes(withTool({ name: 'teleport' }))).toEqual([
      expect.objectContaining({
        field: `tools.${toolFile.tools.length}.executor`,
        message: 'teleport is not built in',
      }),
    ]);
  });

  it('is refused with the line of each of its mistakes, all at once', () => {
    const lines = [
      '{',
      '  "default": "free",',
      '  "plans": {',
      '    "free": {',
      '      "rank": 0, "multiplier": 1,',
      '      "permissions": ["basic"],',
      '      "feature_flags": [], "threads": -5,',
      '      "allowances": {},',
      '      "colour": "green"',
      '    }',
      '  }',
      '}',
    ];
    expect(mistakes({ plans: lines.join('\n') }).map(({ line, field }) => [line, field])).toEqual([
      [7, 'plans.free.threads'],
      // A missing field has the line of its parent object.
      [4, 'plans.free.concurrency'],
      [9, 'plans.free.colour'],
    ]);
  });

  it('is refused where its JSON breaks, and for a field that stands twice', () => {
    expect(mistakes({ plans: '{\n  "default": "free",\n  "plans": {,}\n}' })).toEqual([
      expect.objectContaining({ file: 'plans.json', line: 3 }),
    ]);
    expect(mistakes({ plans: '{ "default": "free" /* a */ }' })).toHaveLength(1);
    const twice = JSON.stringify(planFile).replace('"rank":0', '"rank":0,\n"rank":0');
    expect(mistakes({ plans: twice })).toEqual([
      expect.objectContaining({ line: 2, field: 'plans.free.rank', message: 'is a duplicate' }),
    ]);
    expect(mistakes({ plans: '' })).toEqual([expect.objectContaining({ message: 'is missing or empty' })]);
  });
});

describe('a reload', () => {
  const plan = (multiplier: number) => ({ default: 'one', plans: { one: planRow({ multiplier }) } });

  it('takes both files at once, tells its listeners, and shows in what was handed out before', () => {
    const files = catalogueFiles({ plans: plan(1) });
    const catalogues = new Catalogues(files);
    const events: unknown[] = [];
    catalogues.onReload((reload) => events.push(reload));
    const before = catalogues.version;
    writeFileSync(files.plans, JSON.stringify(plan(7)));
    expect(catalogues.plans.effective('one').multiplier).toBe(1);
    expect(catalogues.reload()).toEqual({ reloaded: true, version: catalogues.version });
    expect(catalogues.plans.effective('one').multiplier).toBe(7);
    expect(catalogues.version).not.toBe(before);
    expect(events).toEqual([{ reloaded: true, version: catalogues.version }]);
  });

  it('of a broken file keeps what there was, and answers with the mistakes', () => {
    const files = catalogueFiles({ plans: plan(1) });
    const catalogues = new Catalogues(files);
    const before = catalogues.version;
    writeFileSync(files.tools, '{ "tools": [] }');
    const result = catalogues.reload();
    expect(result).toMatchObject({ reloaded: false, version: before });
    expect('mistakes' in result && result.mistakes.map(({ file }) => file)).toEqual(['tools.json', 'tools.json']);
    expect(catalogues.tools.get('create_thread')).toBeDefined();
  });
});
