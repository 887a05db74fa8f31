import { type Check, modelChecks, type Result, runCheck } from './lib/quint.ts';
import { runScript } from './lib/user-error.ts';

/** Quint runs in one thread per process. */
const AT_ONCE = 2;
const SAMPLING = { samples: 500, attempts: 5_000, seed: 18 };

function describe({ model, invariants, change, violates }: Check): string {
  const name = change ? `${model} without ${change.without}` : model;
  return `${name}: ${violates ? `${invariants.join()} is violated` : `${invariants.length} invariants hold`}`;
}

/**
 * `npm run check:models`: simulates the models of docs/formal-models.md. The invariants hold, each change of a model
 * violates its invariant, and each limit is reached.
 */
await runScript(async () => {
  const waiting = modelChecks();
  const failed: Result[] = [];
  const work = async () => {
    for (let check = waiting.shift(); check; check = waiting.shift()) {
      const result = await runCheck(check, SAMPLING);
      process.stdout.write(`${result.passed ? 'ok  ' : 'FAIL'} ${describe(check)} (${result.seconds.toFixed(1)} s)\n`);
      if (result.passed) continue;
      process.stdout.write(`${result.output}\n`);
      failed.push(result);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return failed.length === 0 ? 0 : 1;
});
