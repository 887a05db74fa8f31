import { describe, expect, it } from '@jest/globals';
import { check, MAX_RUN_MS } from '../../fuzz/lib/check.ts';
import { readCorpus } from '../../fuzz/lib/corpus.ts';
import { mutated } from '../../fuzz/lib/mutate.ts';
import { Random } from '../../fuzz/lib/random.ts';
import { MAX_INPUT_BYTES, type Target } from '../../fuzz/lib/target.ts';
import { TARGETS } from '../../fuzz/lib/targets.ts';

/** Mutations per target; `npm run fuzz` runs for a given time, guided by coverage. */
const RUNS = Number(process.env.FUZZ_RUNS ?? 20);
/** Code that jest has transformed starts cold, and the workers share the cores. */
const LENIENCE = 4;

describe.each(TARGETS.map((target) => [target.name, target] as const))('the fuzz target %s', (_name, target) => {
  it('has no finding in its corpus and in mutations of it', async () => {
    const random = new Random(RUNS);
    const corpus = readCorpus(target);
    const options = { words: target.words ?? [], maxBytes: target.maxBytes ?? MAX_INPUT_BYTES };
    const mutations = Array.from({ length: RUNS }, () => {
      return mutated(random, random.pick(corpus), { ...options, other: random.pick(corpus) });
    });
    for (const input of [...corpus, ...mutations]) {
      expect(await check(target, input, MAX_RUN_MS * LENIENCE)).toBeUndefined();
    }
  });
});

describe('the oracle of the fuzz targets', () => {
  const target = (run: Target['run']): Target => ({ name: 'probe', seeds: [''], run });
  const problemOf = async (run: Target['run']) => (await check(target(run), Buffer.from('x')))?.problem;

  it('reports an exception that is no error of the table', async () => {
    expect(await problemOf(() => JSON.parse('{'))).toContain('SyntaxError');
  });

  it('reports a polluted prototype, and removes the property', async () => {
    const pollute = () => {
      Reflect.set(Object.prototype, 'polluted', true);
    };
    expect(await problemOf(pollute)).toBe('Object.prototype has the property polluted');
    expect(await problemOf(() => undefined)).toBeUndefined();
  });

  it('reports a run that takes longer than 50 ms of CPU each time', async () => {
    const spin = () => {
      const start = process.threadCpuUsage().user;
      while (process.threadCpuUsage().user - start < 60_000);
    };
    expect(await problemOf(spin)).toMatch(/^took \d+ ms$/);
  });
});
