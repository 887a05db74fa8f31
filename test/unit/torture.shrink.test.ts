import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import type { RoundResult } from '../../torture/lib/results.ts';
import { merged, readResults, saveResult } from '../../torture/lib/results-file.ts';
import { type Case, shrink } from '../../torture/lib/shrink.ts';
import { closeAfter } from '../support/open-resources.ts';

const FAULTS = Array.from({ length: 24 }, (_, at) => {
  const target = `redis-${at}`;
  return { id: at + 1, kind: 'redis-cut', target, group: target, at: at * 1_000, forMs: 500 };
});
const FIRST: Case = { faults: FAULTS, users: 8, durationMs: 60_000 };
const idsOf = ({ faults }: Case) => faults.map(({ id }) => id);
const needs =
  (...ids: readonly number[]) =>
  async (smaller: Case) =>
    ids.every((id) => idsOf(smaller).includes(id));

describe('--shrink of npm run torture', () => {
  it.each([[[7]], [[3, 19]], [[1, 2, 24]]])('finds the planted faults %p among 24', async (planted) => {
    const { smallest } = await shrink(FIRST, needs(...planted), 200);
    expect(idsOf(smallest)).toEqual(planted);
  });

  it('finds that no fault is needed, in one round', async () => {
    const { smallest, rounds } = await shrink({ ...FIRST, users: 1 }, async ({ faults }) => faults.length === 0, 1);
    expect([smallest.faults, rounds]).toEqual([[], 1]);
  });

  it('halves the users while that violates, and ends the round after the last fault', async () => {
    const planted = needs(5);
    const violates = async (smaller: Case) => smaller.users >= 3 && (await planted(smaller));
    const { smallest } = await shrink(FIRST, violates, 200);
    expect(smallest).toEqual({ faults: [FAULTS[4]], users: 4, durationMs: 4_500 });
  });

  it('plays no more rounds than allowed, and then has a case that violates', async () => {
    let played = 0;
    const planted = needs(3, 19);
    const { smallest, rounds } = await shrink(
      FIRST,
      async (smaller) => {
        played += 1;
        return planted(smaller);
      },
      5,
    );
    expect([played, rounds]).toEqual([5, 5]);
    expect(await planted(smallest)).toBe(true);
  });
});

describe('--merge of npm run torture', () => {
  const result = (seed: number): RoundResult => {
    return { seed, violations: [], faults: [], operations: {}, events: 1, records: 1, seconds: 9 };
  };
  const context = (hour: string, model = 'a') => {
    return { startedAt: new Date(`2026-11-30T${hour}:00:00Z`), machine: { cpus: 2, model, node: 'v24' } };
  };
  const folder = () => {
    const path = mkdtempSync(join(tmpdir(), 'tollgate-results-'));
    closeAfter('test', () => rmSync(path, { recursive: true }));
    return path;
  };

  it('joins rounds of several invocations in the order of their seeds, from the first begin on', () => {
    const path = folder();
    saveResult(join(path, 'seed-9.jsonl'), result(9), context('10'));
    saveResult(join(path, 'seed-2.jsonl'), result(2), context('11'));
    const { rounds, context: joined } = merged(readResults([join(path, 'seed-9.json'), join(path, 'seed-2.json')]));
    expect(rounds.map(({ seed }) => seed)).toEqual([2, 9]);
    expect(joined).toEqual(context('10'));
  });

  it('refuses a file that is no result, a round given twice, and results of two machines', () => {
    const path = folder();
    const other = join(path, 'other.json');
    writeFileSync(other, '{}');
    expect(() => readResults([other])).toThrow('is not the result of a round');
    saveResult(join(path, 'seed-2.jsonl'), result(2), context('11'));
    saveResult(join(path, 'seed-3.jsonl'), result(3), context('12', 'b'));
    const [two, three] = [join(path, 'seed-2.json'), join(path, 'seed-3.json')];
    expect(() => merged(readResults([two, two]))).toThrow(
      'the round of seed 2 at 2026-11-30T11:00:00.000Z is given twice',
    );
    expect(() => merged(readResults([two, three]))).toThrow('two machines');
  });
});
