import { expect, it } from '@jest/globals';
import { RecentRuns } from '../../src/runs/recent-runs.ts';
import { ManualClock } from '../support/manual-clock.ts';

it('a reconnect during the confirmation of runs lets it begin again: Redis may have lost those again', async () => {
  const recent = new RecentRuns(new ManualClock());
  const confirmed: string[] = [];
  const reconnect = () => recent.confirmAll(() => undefined);
  let second: Promise<void> | undefined;
  const add = (name: string, then: () => void = () => undefined) => {
    const confirm = async () => {
      confirmed.push(name);
      then();
    };
    recent.ended({ size: 1, confirm });
  };
  add('first');
  add('second', () => {
    second ??= reconnect();
  });
  add('third');
  await reconnect();
  await second;
  expect(confirmed).toEqual(['first', 'second', 'first', 'second', 'third']);
});
