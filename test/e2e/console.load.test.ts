import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from '@jest/globals';
import { cpuMicros } from '../../bench/lib/cpu.ts';
import { ManagedProcess } from '../../scripts/lib/processes.ts';
import { VARIABLE_NAMES } from '../../src/config.ts';
import { consoleOperator, openPage, useBuiltConsole } from '../support/console/console-browser.ts';
import { closeAfter } from '../support/open-resources.ts';
import { operator } from '../support/operators.ts';
import { CHROMIUM, describeWith } from '../support/programs.ts';
import { type StackAddresses, type StackProcesses, startStack } from '../support/stack.ts';
import { until } from '../support/until.ts';

const USERS = 2_000;
const MEASURED_MS = 20_000;
const itInLongForm = process.env.CONSOLE ? it : it.skip;

/** Starts the load generator with users of its own. */
function startLoad({ gateways, secrets, authUrl }: StackAddresses): ManagedProcess {
  const inherited = Object.entries(process.env).filter(([name]) => !VARIABLE_NAMES.includes(name));
  const size = ['--users', String(USERS), '--turns', '20/s', '--duration', '120', '--threads', '1'];
  const child = new ManagedProcess({
    name: 'load',
    command: process.execPath,
    args: ['load/main.ts', '--url', gateways[0]?.url ?? '', ...size],
    env: { ...Object.fromEntries(inherited), JWT_SECRET_KEY: secrets.jwt, AUTH_SERVICE_URL: authUrl },
  });
  closeAfter('test', () => child.stop());
  return child;
}

/** Returns the share of one core that a process uses, in percent. */
async function cpuPercent({ gateways }: StackProcesses): Promise<number> {
  const pid = gateways[0]?.pid ?? 0;
  const before = cpuMicros(pid);
  await delay(MEASURED_MS);
  return (cpuMicros(pid) - before) / (MEASURED_MS * 10);
}

describeWith(CHROMIUM, 'the overview', () => {
  useBuiltConsole();

  itInLongForm(
    'costs a gateway less than 1 % of a core, and has no long task while 2,000 users are served',
    async () => {
      const own = await startStack({ gateways: 1, workers: 1 });
      const read = operator('admin:read', own.addresses);
      const { page } = await consoleOperator('admin', own.addresses);
      const open = async () => {
        await openPage(page, '#/overview');
        await page.getByText('live', { exact: true }).waitFor();
      };
      await open();
      // A process uses more in its first seconds, for the compilation of its code.
      await cpuPercent(own);
      const shown = await cpuPercent(own);
      await openPage(page, '#/runbook');
      const cost = shown - (await cpuPercent(own));
      await open();
      startLoad(own.addresses);
      const connected = async () => (await read('GET', '/v1/admin/overview')).body.connections.total >= USERS;
      await until(connected, { timeoutMs: 90_000, everyMs: 1_000 });
      await page.evaluate(`window.longTasks = [];
        new PerformanceObserver((list) => window.longTasks.push(...list.getEntries().map(({ duration }) => duration)))
          .observe({ type: 'longtask' })`);
      await page.evaluate(`setTimeout(() => { const end = Date.now() + 200; while (Date.now() < end); })`);
      await until(() => page.evaluate('window.longTasks.some((ms) => ms >= 150) && Boolean((window.longTasks = []))'));
      await delay(MEASURED_MS);
      const longest = Number(await page.evaluate('Math.max(0, ...window.longTasks)'));
      const busy = (await read('GET', '/v1/admin/overview')).body;
      process.stdout.write(
        `console: ${cost.toFixed(2)} % of a core; longest task ${longest} ms with ${busy.connections.total} connections ` +
          `and ${busy.per_second.messages} messages/s\n`,
      );
      expect(cost).toBeLessThan(1);
      expect(longest).toBeLessThanOrEqual(100);
    },
    300_000,
  );
});
