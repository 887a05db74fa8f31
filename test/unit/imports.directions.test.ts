import { describe, expect, it } from '@jest/globals';
import { findViolations, longFiles, readSources, type SourceFile } from '../../scripts/lib/import-rules.ts';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';

function tree(files: Record<string, string>): SourceFile[] {
  return Object.entries(files).map(([path, text]) => ({ path, text }));
}

/** One file that imports another, empty one. */
function importing(path: string, specifier: string): SourceFile[] {
  return tree({ [path]: `import { x } from '${specifier}';\nx();\n` });
}

describe('import directions', () => {
  it('hold in this project', () => {
    expect(findViolations(readSources(PROJECT_ROOT))).toEqual([]);
  });

  it.each([
    ['src/lib/a.ts', '../protocol/errors.ts'],
    ['src/protocol/a.ts', '../lib/clock.ts'],
    ['src/config.ts', './redis/keys.ts'],
    ['src/jobs.ts', './config.ts'],
    ['src/redis/a.ts', '../jobs.ts'],
    ['src/catalogue/a.ts', '../redis/keys.ts'],
    ['src/auth/a.ts', '../catalogue/plans.ts'],
    ['src/limits/a.ts', '../auth/tokens.ts'],
    ['src/accounts/a.ts', '../limits/quotas.ts'],
    ['src/usage/a.ts', '../events/log.ts'],
    ['src/events/a.ts', '../connections/hub.ts'],
    ['src/cluster/a.ts', '../connections/hub.ts'],
    ['src/connections/a.ts', '../runs/runs.ts'],
    ['src/connections/a.ts', '../tools/tool.ts'],
    ['src/tools/a.ts', '../runs/runs.ts'],
    ['src/tools/built-in/a.ts', '../../connections/hub.ts'],
    ['src/runs/a.ts', '../agents/model/model-agent.ts'],
    ['src/agents/a.ts', '../connections/hub.ts'],
    ['src/mcp/a.ts', '../agents/model/model-agent.ts'],
    ['src/transports/a.ts', '../http/server.ts'],
    ['src/http/a.ts', '../transports/endpoints.ts'],
    ['src/http/app.ts', '../config.ts'],
    ['src/http/app.ts', './operations-routes.ts'],
    ['src/http/a.ts', '../compose/gateway.ts'],
    ['auth-service/a.ts', '../src/auth/tokens.ts'],
    ['workers/a.ts', '../src/connections/hub.ts'],
    ['workers/a.ts', '../src/http/server.ts'],
    ['workers/a.ts', '../src/compose/gateway.ts'],
    ['src/main.ts', '../workers/worker.ts'],
    ['src/compose/gateway.ts', '../../test/support/stack.ts'],
    ['src/lib/a.ts', '../../scripts/lib/ports.ts'],
    ['src/lib/a.ts', '../../auth-service/server.ts'],
    ['src/lib/a.ts', '../../bench/load.ts'],
    ['scripts/a.ts', '../test/support/stack.ts'],
    ['scripts/a.ts', '../load/main.ts'],
    ['load/a.ts', '../src/connections/hub.ts'],
    ['load/a.ts', '../bench/main.ts'],
  ])('refuse that %s imports %s', (path, specifier) => {
    expect(findViolations(importing(path, specifier))).toEqual([expect.stringContaining(`${path}: imports`)]);
  });

  it.each([
    ['src/redis/a.ts', '../lib/clock.ts'],
    ['src/auth/a.ts', '../redis/keys.ts'],
    ['src/catalogue/a.ts', '../../config/plans.json'],
    ['src/connections/a.ts', '../events/log.ts'],
    ['src/runs/a.ts', '../tools/tool.ts'],
    ['src/mcp/a.ts', '../tools/tool.ts'],
    ['src/transports/a.ts', '../connections/hub.ts'],
    ['src/http/a.ts', './app.ts'],
    ['auth-service/a.ts', '../src/http/app.ts'],
    ['src/compose/gateway.ts', '../transports/endpoints.ts'],
    ['workers/a.ts', '../src/http/app.ts'],
    ['workers/a.ts', '../src/compose/tools.ts'],
    ['test/unit/a.test.ts', '../../workers/worker.ts'],
    ['load/lib/a.ts', '../../src/protocol/messages.ts'],
    ['load/main.ts', '../scripts/lib/user-error.ts'],
  ])('let %s import %s', (path, specifier) => {
    expect(findViolations(importing(path, specifier))).toEqual([]);
  });

  it.each([
    ['a type', `import type { X } from '../redis/keys.ts';`],
    ['a re-export', `export { x } from '../redis/keys.ts';`],
    ['a re-export of everything', `export * from '../redis/keys.ts';`],
    ['a dynamic import', `const load = () => import('../redis/keys.ts');`],
    ['an import type', `export type X = import('../redis/keys.ts').Keys;`],
    ['an import for its effects', `import '../redis/keys.ts';`],
  ])('see %s', (_what, text) => {
    expect(findViolations(tree({ 'src/lib/a.ts': text }))).toHaveLength(1);
  });

  it('see nothing in comments and strings', () => {
    const text = `// import '../redis/keys.ts';\nconst text = \`import '../redis/keys.ts'\`;\nexport { text };\n`;
    expect(findViolations(tree({ 'src/lib/a.ts': text }))).toEqual([]);
  });

  it('refuse a folder that has no rule', () => {
    expect(findViolations(importing('src/misc/a.ts', '../lib/clock.ts'))).toEqual([
      expect.stringContaining('belongs to no part'),
    ]);
  });
});

describe('the shape of the code', () => {
  it('has no import cycle, types included', () => {
    const cycle = tree({
      'src/lib/a.ts': `import { b } from './b.ts';\nexport type A = typeof b;\n`,
      'src/lib/b.ts': `import type { C } from './c.ts';\nexport const b = 1 as unknown as C;\n`,
      'src/lib/c.ts': `export type { A as C } from './a.ts';\n`,
    });
    expect(findViolations(cycle)).toEqual([
      'src/lib/a.ts → src/lib/b.ts → src/lib/c.ts → src/lib/a.ts: an import cycle',
    ]);
  });

  it('has no barrels', () => {
    expect(findViolations(tree({ 'src/lib/index.ts': '' }))).toEqual([expect.stringContaining('barrels')]);
  });

  it('has no file over 500 lines outside the tests, and reports those over 400', () => {
    const tooLong = '// line\n'.repeat(501);
    const found = findViolations(tree({ 'src/lib/a.ts': tooLong, 'test/unit/a.test.ts': tooLong }));
    expect(found).toEqual(['src/lib/a.ts: 501 lines, 500 are the bound']);
    const long = tree({ 'src/lib/a.ts': '// line\n'.repeat(401), 'src/lib/b.ts': '// line\n'.repeat(400) });
    expect(findViolations(long)).toEqual([]);
    expect(longFiles(long)).toEqual(['src/lib/a.ts: 401 lines']);
  });
});
