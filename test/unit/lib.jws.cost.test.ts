import { describe, expect, it } from '@jest/globals';
import { hasJoseHeader, isCanonical, jsonObject } from '../../src/lib/jws.ts';

const encoded = (text: string) => Buffer.from(text).toString('base64url');

describe('the cost of a hostile token', () => {
  /** Returns the duration of the fastest of several runs, ms. */
  function cost(work: () => unknown): number {
    const times = Array.from({ length: 15 }, () => {
      const startedAt = performance.now();
      for (let at = 0; at < 20; at++) work();
      return performance.now() - startedAt;
    });
    return Math.min(...times);
  }

  it.each<[string, (size: number) => string]>([
    ['nested lists', (size) => `{"a":${'['.repeat(size / 2)}${']'.repeat(size / 2)}}`],
    ['many members', (size) => `{${Array.from({ length: size / 8 }, (_, at) => `"${at}":1`).join(',')}}`],
    ['one long text', (size) => `{"a":"${'x'.repeat(size)}"}`],
    ['quotes', (size) => `{"a":"${'\\"'.repeat(size / 2)}"}`],
    ['no JSON', (size) => '{'.repeat(size)],
  ])('grows as its length does, with %s', (_what, shape) => {
    const [small, large] = [1_000, 8_000].map((size) => encoded(shape(size))) as [string, string];
    const ofAll = (part: string) => cost(() => [isCanonical(part), hasJoseHeader(`${part}.`), jsonObject(part)]);
    ofAll(large);
    // Eight times the length; a quadratic cost would be 64 times.
    expect(ofAll(large) / ofAll(small)).toBeLessThan(24);
  });

  it('grows as its length does, with dots', () => {
    isCanonical('.'.repeat(8_000));
    expect(cost(() => isCanonical('.'.repeat(8_000))) / cost(() => isCanonical('.'.repeat(1_000)))).toBeLessThan(24);
  });
});
