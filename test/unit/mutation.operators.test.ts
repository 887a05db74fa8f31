import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { withChange } from '../../mutation/lib/change.ts';
import { luaMutants } from '../../mutation/lib/lua-mutants.ts';
import { luaTokens } from '../../mutation/lib/lua-tokens.ts';
import { type Mutant, sampleOf } from '../../mutation/lib/mutants.ts';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';

const LUA = join(PROJECT_ROOT, 'src/redis/lua');

/** Returns the mutated sources of one operator. */
function mutated(operator: string, source: string): string[] {
  const mutants = luaMutants(source).filter((mutant) => mutant.operator === operator);
  return mutants.map((mutant) => withChange(source, mutant));
}

describe('the mutation operators for Lua', () => {
  it.each([
    ['comparison', 'return a < b', ['return a <= b', 'return a >= b']],
    ['comparison', 'return a == b', ['return a ~= b']],
    ['condition', 'if a and b == 1 then c() end', ['if not (a and b == 1) then c() end']],
    ['condition', 'if a == 1 then c() end', []],
    ['condition', 'while f({ 1 }) do c() end', ['while not (f({ 1 })) do c() end']],
    ['logical', 'return not a', ['return  a']],
    ['logical', 'return a or b', ['return a and b']],
    ['arithmetic', 'return a + -b', ['return a - -b']],
    ['arithmetic', "return 'a - b'", []],
    ['number', 'return 4', ['return 5']],
    ['boolean', 'return true', ['return false']],
    ['key or argument', 'return KEYS[1]', ['return KEYS[2]']],
    ['call removed', "x = 1\nredis.call('DEL', f(x))\ny = 2", ['x = 1\n\ny = 2']],
    ['call removed', "local a = redis.call('GET', k)", []],
    ['return removed', 'if a then return { 1, f() } end', ['if a then  end']],
    ['return removed', 'return f(function() return 1 end)', ['', 'return f(function()  end)']],
  ])('%s: %s', (operator, source, expected) => {
    expect(mutated(operator, source)).toEqual(expected);
  });

  it('leave comments alone', () => {
    expect(luaMutants("--[[ a < b ]]\n-- KEYS[1] + 1\nlocal a = 'x'")).toEqual([]);
  });

  it('reports the line of each mutant', () => {
    expect(luaMutants('local a\nlocal b = 1\nreturn').map(({ line }) => line)).toEqual([2, 3]);
  });

  it('read every script of the project, and lose none of its characters', () => {
    const files = readdirSync(LUA, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.lua'));
    expect(files.length).toBeGreaterThan(50);
    for (const file of files) {
      const source = readFileSync(join(LUA, file), 'utf8');
      const tokens = luaTokens(source);
      const between = tokens.map(({ end }, at) => source.slice(end, tokens[at + 1]?.start));
      const code = between.map((text) => text.replaceAll(/--\[\[[\s\S]*?\]\]|--[^\n]*/g, '').trim());
      expect({ file, code: code.filter((text) => text !== '') }).toEqual({ file, code: [] });
    }
  });
});

describe('a sample of mutants', () => {
  const mutants = Array.from({ length: 50 }, (_, at): Mutant => {
    return { id: `m${at}`, file: 'f', operator: 'number', start: at, line: 1, original: '1', replacement: '2' };
  });

  it('is the same for the same seed, and another for another seed', () => {
    expect(sampleOf(mutants, 10, 'a')).toEqual(sampleOf(mutants, 10, 'a'));
    expect(sampleOf(mutants, 10, 'a')).not.toEqual(sampleOf(mutants, 10, 'b'));
  });

  it('contains the smaller samples of its seed, so that a longer run continues a shorter one', () => {
    expect(sampleOf(mutants, 20, 'a')).toEqual(expect.arrayContaining(sampleOf(mutants, 10, 'a')));
  });
});
