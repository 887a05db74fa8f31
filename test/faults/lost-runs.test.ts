import { afterAll, describe, expect, it } from '@jest/globals';
import { type AcceptedRuns, runsThroughLoss } from '../support/chaos/accepted-runs.ts';
import { type Failure, lossyRedis } from '../support/chaos/lossy-redis.ts';

/** `npm run faults` sets more, and tests every failure. */
const ROUNDS = Number(process.env.FAULT_RUN_LOSSES ?? 1);
const EVERY_FAILURE = process.env.FAULT_RUN_LOSSES !== undefined;
const FAILURES: Failure[] = ['lagging fail-over', 'emptied', ...(EVERY_FAILURE ? (['power cut'] as const) : [])];

const table: string[] = [];

async function round(failure: Failure): Promise<AcceptedRuns> {
  const { url, fail } = await lossyRedis(failure, 'everysec');
  return runsThroughLoss({ url, fail: (worked) => fail(() => undefined, worked) });
}

afterAll(() => {
  if (!EVERY_FAILURE) return;
  process.stdout.write(
    `| failure | accepted | without an end | RUN_TIMEOUT |\n| --- | --- | --- | --- |\n${table.join('\n')}\n`,
  );
});

describe('every accepted run ends once', () => {
  it.each(FAILURES)(
    'although Redis loses acknowledged writes: %s',
    async (failure) => {
      const rounds: AcceptedRuns[] = [];
      for (let at = 0; at < ROUNDS; at++) rounds.push(await round(failure));
      const sum = (name: keyof AcceptedRuns) => rounds.reduce((all, one) => all + one[name], 0);
      table.push(`| ${[failure, sum('accepted'), sum('withoutEnd'), sum('timedOut')].join(' | ')} |`);
      expect(sum('withoutEnd')).toBe(0);
    },
    ROUNDS * 60_000,
  );
});
