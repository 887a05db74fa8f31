import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { jestArguments, TEST_PROJECTS } from '../../scripts/lib/test-arguments.ts';

describe('the arguments of npm test', () => {
  it('reach jest unchanged when they name no project', () => {
    expect(jestArguments(['test/unit', '-t', 'welcome'])).toEqual(['test/unit', '-t', 'welcome']);
  });

  it.each([[['--project', 'unit', '-t', 'welcome']], [['-t', 'welcome', '--project=unit']]])(
    'select a project: %j',
    (args) => {
      expect(jestArguments(args)).toEqual(['--selectProjects', 'unit', '--config=jest.config.mjs', '-t', 'welcome']);
    },
  );

  it.each([[['--project', 'units']], [['--project']]])('are refused without a known project: %j', (args) => {
    expect(() => jestArguments(args)).toThrow('Choose one of unit, integration, faults, cluster, e2e.');
  });

  it('know the projects of the jest configuration', () => {
    const config = readFileSync(join(PROJECT_ROOT, 'jest.config.mjs'), 'utf8');
    expect([...config.matchAll(/^ {4}project\('(\w+)'/gm)].map(([, name]) => name)).toEqual(TEST_PROJECTS);
  });
});
