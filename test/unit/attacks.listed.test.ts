import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { ATTACKS, type Attack, WITHOUT_ROW } from '../attacks/table.ts';
import { testTitles } from '../support/test-titles.ts';

/** `UPDATE_ATTACKS=1 npm test -- test/unit/attacks.listed` rewrites the rows in the page. */
const PAGE = join(PROJECT_ROOT, 'docs/security.md');
const BEGIN = '<!-- attacks: begin -->';
const END = '<!-- attacks: end -->';
const FEWEST = 110;

const cited = ATTACKS.flatMap(({ tests }) => tests);

function fileOf(test: string): string {
  return `test/${test.split(': ', 1)[0]}.test.ts`;
}

function titleOf(test: string): string {
  return test.slice(test.indexOf(': ') + 2);
}

/** The ids of tests that exist and are not skipped. */
function existing(files: readonly string[]): Set<string> {
  const all = [...new Set(files)].flatMap((file) => {
    const name = file.replace(/^test\/|\.test\.ts$/g, '');
    return testTitles(file).map((title) => `${name}: ${title}`);
  });
  return new Set(all);
}

function markdown(attacks: readonly Attack[]): string {
  const rows = attacks.map(({ id, threat, outcome, tests }) => {
    const files = [...new Set(tests.map(fileOf))].map((file) => `\`${file}\``);
    return `| ${id} | ${threat} | ${outcome} | ${files.join(', ')} |`;
  });
  return ['| id | threat | outcome | test |', '| --- | --- | --- | --- |', ...rows].join('\n');
}

describe('the table of attacks', () => {
  it('cites only tests that exist and run', () => {
    const known = existing(cited.map(fileOf));
    expect(cited.filter((test) => !known.has(test))).toEqual([]);
  });

  it('cites every test of test/attacks, or states the reason', () => {
    const files = readdirSync(join(PROJECT_ROOT, 'test/attacks')).filter((name) => name.endsWith('.test.ts'));
    const listed = new Set([...cited, ...Object.keys(WITHOUT_ROW)]);
    const all = existing(files.map((name) => `test/attacks/${name}`));
    expect([...all].filter((test) => !listed.has(test))).toEqual([]);
    expect(Object.keys(WITHOUT_ROW).filter((test) => !all.has(test) || cited.includes(test))).toEqual([]);
  });

  it('has one row per id, and each row has a test', () => {
    const ids = ATTACKS.map(({ id }) => id);
    expect(ids.filter((id, at) => ids.indexOf(id) !== at)).toEqual([]);
    expect(ids.length).toBeGreaterThanOrEqual(FEWEST);
    expect(ATTACKS.filter(({ tests }) => tests.length === 0)).toEqual([]);
    expect(cited.filter((test) => titleOf(test) === '')).toEqual([]);
  });

  it('is that of docs/security.md', () => {
    const page = readFileSync(PAGE, 'utf8');
    const [before = '', rest = ''] = page.split(BEGIN);
    const [, after = ''] = rest.split(END);
    const expected = `${before}${BEGIN}\n\n${markdown(ATTACKS)}\n\n${END}${after}`;
    if (process.env.UPDATE_ATTACKS === '1') writeFileSync(PAGE, expected);
    expect(readFileSync(PAGE, 'utf8')).toBe(expected);
  });
});
