import { describe, expect, it } from '@jest/globals';
import { changedModel, modelChecks, runCheck } from '../../scripts/lib/quint.ts';

/** Enough for the change below with this seed; `npm run check:models` takes more, and all changes. */
const SAMPLING = { samples: 20, attempts: 2_000, seed: 18 };
/** The simulator needs a second of CPU to start. */
const TIMEOUT_MS = 90_000;

describe('the models of docs/formal-models.md', () => {
  it(
    'keep their invariants in a few samples, and runs without the fence do not',
    async () => {
      const unfenced = (name: string | undefined) => name === 'onlyTheOwnerAppends';
      const checks = modelChecks().filter(({ violates, invariants }) => !violates || unfenced(invariants[0]));
      expect(checks.map(({ model, violates }) => [model, violates])).toEqual([
        ['admission', false],
        ['runs', false],
        ['runs', true],
        ['ledger', false],
        ['ledger', false],
      ]);
      const results = await Promise.all(checks.map((check) => runCheck(check, SAMPLING)));
      expect(results.filter(({ passed }) => !passed)).toEqual([]);
    },
    TIMEOUT_MS,
  );

  it('each contain the text that a change replaces once', () => {
    for (const { model, change } of modelChecks()) expect(changedModel(model, change)).not.toBe('');
  });
});
