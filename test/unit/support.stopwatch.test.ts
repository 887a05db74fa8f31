import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from '@jest/globals';
import { cpuMs, Stopwatch } from '../support/stopwatch.ts';
import { until } from '../support/until.ts';

/** Keeps the processor of this thread busy. */
function compute(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

it('a stopwatch allows for ten times the lateness that it has seen, and keeps doing so', async () => {
  const watch = await Stopwatch.start();
  compute(100);
  expect(watch.allow(0)).toBeGreaterThan(10 * 70);
  await delay(100);
  expect(watch.allow(0)).toBeGreaterThan(10 * 70);
  expect(watch.ms).toBeGreaterThan(190);
});

it('a stopwatch adds little where the machine is not late', async () => {
  // The quietest of many samples: another process may be busy now and then.
  await until(
    async () => {
      const watch = await Stopwatch.start();
      await delay(200);
      return watch.allow(1_000) < 1_500;
    },
    { timeoutMs: 20_000 },
  );
});

it('CPU time counts what is computed, and not what is waited for', async () => {
  const before = cpuMs();
  // On a busy machine, this thread gets a part of the 100 ms only.
  await until(() => {
    compute(100);
    return cpuMs() - before > 50;
  });
  // Other threads of this process compute too, garbage collection for example, so one quiet wait is enough.
  await until(async () => {
    const waited = cpuMs();
    await delay(500);
    return cpuMs() - waited < 400;
  });
});
