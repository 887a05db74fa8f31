import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';

const TESTS = readdirSync(join(PROJECT_ROOT, 'test'), { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && entry.name.endsWith('.test.ts') && entry.name !== 'behaviours.cited.test.ts')
  .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'utf8'));
const PAGE = readFileSync(join(PROJECT_ROOT, 'docs/behaviours.md'), 'utf8');

/** The numbers at the start of a text: `'B12 B34 closes …'` has 12 and 34. A test name or a row of its table has them. */
function citedIn(source: string): number[] {
  const names = source.matchAll(/['"`]((?:B\d+\b[ ,]*)+)/g);
  return [...names].flatMap(([, ids = '']) => (ids.match(/\d+/g) ?? []).map(Number));
}

function rowsOf(page: string): number[] {
  return [...page.matchAll(/^- \*\*B(\d+)\*\*: \S.*\.$/gm)].map(([, id]) => Number(id));
}

const cited = new Set(TESTS.flatMap(citedIn));
const rows = rowsOf(PAGE);

describe('docs/behaviours.md', () => {
  it('has a row for every behaviour that a test name cites', () => {
    expect([...cited].filter((id) => !rows.includes(id))).toEqual([]);
  });

  it('has no row that no test name cites', () => {
    expect(rows.filter((id) => !cited.has(id))).toEqual([]);
  });

  it('has one row per behaviour, in order within each section', () => {
    expect(rows).toEqual([...new Set(rows)]);
    for (const section of PAGE.split('\n## ')) {
      expect(rowsOf(section)).toEqual(rowsOf(section).toSorted((a, b) => a - b));
    }
  });

  it('names each omitted number up to the last row', () => {
    const omitted = [...PAGE.matchAll(/B(\d+)(?: (to) B(\d+))?/g)].flatMap(([, from, to, last]) => {
      const first = Number(from);
      return to ? Array.from({ length: Number(last) - first + 1 }, (_, at) => first + at) : [first];
    });
    const missing = Array.from({ length: Math.max(...rows) }, (_, at) => at + 1).filter((id) => !rows.includes(id));
    expect(missing.filter((id) => !omitted.includes(id))).toEqual([]);
  });
});

describe('a test name', () => {
  it('cites each behaviour by its own number, never by a range', () => {
    const ranges = TESTS.flatMap((source) => source.match(/['"`](?:B\d+[ ,]+)*B\d+ ?(?:[-–—]|to B)/g) ?? []);
    expect(ranges).toEqual([]);
  });

  it('is read with all of its numbers, and without those of later words', () => {
    expect(citedIn("it('B12 B34 closes the oldest')")).toEqual([12, 34]);
    expect(citedIn("it.each([['B76 B84', 'free']])('%s', () => {})")).toEqual([76, 84]);
    expect(citedIn("it('is like B12')")).toEqual([]);
  });
});
