import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { expect, it } from '@jest/globals';
import { httpStatus } from '../../scripts/lib/processes.ts';
import { type StackProcess, startStack } from '../support/stack.ts';
import { until } from '../support/until.ts';

/** The processes read their figures every five seconds. */
const READINGS_MS = 5_500;

/** The next descriptor is the lowest free number, which this limit excludes. */
function usedDescriptors({ pid }: StackProcess): number {
  const open = new Set(readdirSync(`/proc/${pid}/fd`).map(Number));
  let lowest = 0;
  while (open.has(lowest)) lowest += 1;
  return lowest;
}

function limit({ pid }: StackProcess, descriptors: number): void {
  const { status, stderr } = spawnSync('prlimit', ['--pid', String(pid), `--nofile=${descriptors}:`]);
  if (status !== 0) throw new Error(String(stderr));
}

const itOnLinux = process.platform === 'linux' ? it : it.skip;

itOnLinux(
  'a gateway and a worker without a free file descriptor live on, and serve when they have one',
  async () => {
    const { gateways, workers } = await startStack({ gateways: 1, workers: 1 });
    const processes = [...gateways, ...workers];
    const statuses = () => Promise.all(processes.map(({ url }) => httpStatus(`${url}/health/live`)));
    for (const process of processes) limit(process, usedDescriptors(process));
    const endsAt = performance.now() + READINGS_MS;
    await until(() => performance.now() > endsAt || processes.some(({ running }) => !running), { timeoutMs: 10_000 });
    expect(processes.map(({ running }) => running)).toEqual([true, true]);
    for (const process of processes) limit(process, 1_024);
    await until(async () => (await statuses()).every((status) => status === 200), { timeoutMs: 10_000 });
  },
  60_000,
);
