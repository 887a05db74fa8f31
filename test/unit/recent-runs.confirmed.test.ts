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

it('keeps the logs of ended runs for a minute and 16 MiB in all, and of running ones until their end', async () => {
  const clock = new ManualClock();
  const recent = new RecentRuns(clock);
  const logOf = (name: string, size: number) => ({ size, confirm: async () => void confirmed.push(name) });
  let confirmed: string[] = [];
  const confirmedNow = async () => {
    confirmed = [];
    await recent.confirmAll(() => undefined);
    return confirmed;
  };
  const MIB = 1024 * 1024;
  recent.started(logOf('running', 1));
  recent.ended(logOf('first', 8 * MIB));
  recent.ended(logOf('second', 8 * MIB));
  expect(await confirmedNow()).toEqual(['running', 'first', 'second']);
  clock.advance(30_000);
  recent.ended(logOf('third', 1));
  expect(await confirmedNow()).toEqual(['running', 'second', 'third']);
  clock.advance(30_000);
  expect(await confirmedNow()).toEqual(['running', 'second', 'third']);
  clock.advance(1);
  expect(await confirmedNow()).toEqual(['running', 'third']);
});
