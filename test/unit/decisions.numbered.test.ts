import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from '@jest/globals';

const FOLDER = new URL('../../docs/decisions/', import.meta.url);
const FILES = readdirSync(FOLDER).toSorted();

describe('the decision records', () => {
  it('are numbered 1, 2, 3, … without a number twice, in their names and their titles', () => {
    const numbers = FILES.map((_, at) => String(at + 1).padStart(4, '0'));
    expect(FILES.map((name) => name.slice(0, 4))).toEqual(numbers);
    const titles = FILES.map((name) => readFileSync(new URL(name, FOLDER), 'utf8').split('\n', 1)[0] ?? '');
    expect(titles.map((title) => /^# (\d{4}) · \S/.exec(title)?.[1])).toEqual(numbers);
  });

  it('are all there that another document names', () => {
    const docs = new URL('../', FOLDER);
    const pages = [...FILES.map((name) => new URL(name, FOLDER)), ...pagesOf(docs)].map((url) =>
      readFileSync(url, 'utf8'),
    );
    const named = pages.flatMap((page) => [...page.matchAll(/\((?:decisions\/)?(\d{4}-[a-z0-9-]+\.md)\)/g)]);
    expect(named.length).toBeGreaterThan(0);
    expect(named.map(([, name]) => name).filter((name) => !FILES.includes(String(name)))).toEqual([]);
  });
});

function pagesOf(folder: URL): URL[] {
  return readdirSync(folder).flatMap((name) => (name.endsWith('.md') ? [new URL(name, folder)] : []));
}
