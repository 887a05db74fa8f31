import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';

const SLOW: Readonly<Record<string, string>> = {
  'a run at the end': 'export const a = /=+$/;',
  'a run at the end, in a call': "export const a = (text: string) => text.replace(/[.?!]+$/, '');",
  'two loops that can exchange characters': 'export const a = /^\\w+\\d*x$/;',
  'nested loops': 'export const a = /^(a+)+$/;',
  'a global search that reads beyond its match': 'export const a = /a(.*b)?/g;',
  'a separator that reads beyond its match': 'export const a = (text: string) => text.split(/a(?:.*b)?/);',
  'a lookahead of any length, which cannot be proven': 'export const a = /^(?=.*x)y/;',
  'a back reference, which cannot be proven': 'export const a = /^(a*)b\\1$/;',
  'a literal text given to RegExp': "export const a = new RegExp('=+$', 'i');",
  'a schema of zod': 'export const A = z.string().regex(/(\\d+)x/);',
};
const DYNAMIC: Readonly<Record<string, string>> = {
  'new RegExp': 'export const a = (text: string) => new RegExp(text);',
  RegExp: 'export const a = (text: string) => RegExp(text);',
  'a template': `export const a = (text: string) => new RegExp(\`^\${text}\`);`,
  'unknown flags': "export const a = (flags: string) => new RegExp('a', flags);",
  'match with a text': "export const a = (text: string) => text.match('=+$');",
  'search with a sum': "export const a = (text: string, b: string) => text.search(b + '$');",
};
const LINEAR: Readonly<Record<string, string>> = {
  'an anchored run': 'export const a = /^[\\w-]+$/;',
  'loops over different characters': 'export const a = /^[\\w-]+\\.[\\w-]+\\.[\\w-]+$/;',
  'a bounded repetition at the end': 'export const a = /\\d{1,15}$/;',
  'a global search for single characters': 'export const a = /[*?]/g;',
  'text that only looks like an expression': "export const a = '/=+$/'; // /=+$/",
};

const root = mkdtempSync(join(tmpdir(), 'tollgate-regexes-'));
const fixtures = Object.entries({ ...SLOW, ...DYNAMIC, ...LINEAR });
const pathOf = (name: string) => `src/f${fixtures.findIndex(([other]) => other === name)}.ts`;

/** Runs the check in a separate process: in a Jest context the prover takes minutes. */
function check(folder: string): { readonly status: number | null; readonly stdout: string; readonly lines: string[] } {
  const script = join(PROJECT_ROOT, 'scripts/check-regexes.ts');
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, folder], { encoding: 'utf8' });
  return { status, stdout, lines: stderr.split('\n').filter(Boolean) };
}

describe('the check of regular expressions', () => {
  let found: ReturnType<typeof check>;
  beforeAll(() => {
    mkdirSync(join(root, 'src'));
    for (const [name, text] of fixtures) writeFileSync(join(root, pathOf(name)), `\n${text}\n`);
    found = check(root);
  }, 120_000);
  afterAll(() => rmSync(root, { recursive: true }));
  const linesOf = (name: string) => found.lines.filter((line) => line.startsWith(`${pathOf(name)}:`));

  it.each(Object.keys(SLOW))('refuses %s, with its line', (name) => {
    expect(linesOf(name)).toEqual([expect.stringMatching(/:2: \/.*(polynomial|exponential|cannot be proven)/)]);
  });

  it.each(Object.keys(DYNAMIC))('refuses what is built at run time by %s', (name) => {
    expect(linesOf(name)).toEqual([`${pathOf(name)}: builds a regular expression at run time`]);
  });

  it.each(Object.keys(LINEAR))('accepts %s', (name) => {
    expect(linesOf(name)).toEqual([]);
  });

  it('fails when it has found something, with nothing else on stderr', () => {
    expect(found.status).toBe(1);
    expect(found.lines).toHaveLength(Object.keys(SLOW).length + Object.keys(DYNAMIC).length);
  });
});
