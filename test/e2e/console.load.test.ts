import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from '@jest/globals';
import { cpuMicros } from '../../bench/lib/cpu.ts';
import { ManagedProcess } from '../../scripts/lib/processes.ts';
import { VARIABLE_NAMES } from '../../src/config.ts';
import { consoleOperator, longTasks, openPage, useBuiltConsole } from '../support/console/console-browser.ts';
import { openStream } from '../support/event-stream.ts';
import { closeAfter } from '../support/open-resources.ts';
import { operator, operatorToken } from '../support/operators.ts';
import { CHROMIUM, describeWith } from '../support/programs.ts';
import { type StackAddresses, type StackProcesses, startStack } from '../support/stack.ts';
import { until } from '../support/until.ts';

/** `CONSOLE_LOAD=2000 npm test -- test/e2e/console.load` runs this test alone, with so many users. */
const USERS = Number(process.env.CONSOLE_LOAD ?? 2_000);
const WATCHED_MS = 30_000;
/** Open overviews in the measurement of CPU: so many that their cost is above its noise. A node serves 32. */
const CONSOLES = 16;
const ROUNDS = 5;
const ROUND_MS = 10_000;
/** As the page reads the history of an hour. */
const SERIES_MS = 20_000;
const itInLongForm = process.env.CONSOLE || process.env.CONSOLE_LOAD ? it : it.skip;

/** Starts the load generator with users of its own. */
function startLoad({ gateways, secrets, authUrl }: StackAddresses): ManagedProcess {
  const inherited = Object.entries(process.env).filter(([name]) => !VARIABLE_NAMES.includes(name));
  const size = ['--users', String(USERS), '--turns', '20/s', '--duration', '300', '--threads', '1'];
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
async function cpuPercent(pid: number): Promise<number> {
  const before = cpuMicros(pid);
  await delay(ROUND_MS);
  return (cpuMicros(pid) - before) / (ROUND_MS * 10);
}

/** Sends what open overviews send. @returns a function that closes them */
function openOverviews({ addresses }: StackProcesses): () => void {
  const { url = '' } = addresses.gateways[0] ?? {};
  const consoles = Array.from({ length: CONSOLES }, () => {
    const { token } = operatorToken('admin:read', { of: addresses });
    const stream = openStream(`${url}/v1/admin/stream`, { token });
    const readSeries = async () => {
      const headers = { authorization: `Bearer ${token}` };
      await (await fetch(`${url}/v1/admin/series?step=minute`, { headers })).arrayBuffer();
    };
    void readSeries();
    const timer = setInterval(() => void readSeries(), SERIES_MS);
    return () => {
      clearInterval(timer);
      stream.destroy();
    };
  });
  return () => {
    for (const close of consoles) close();
  };
}

/** Returns what one open overview costs a gateway, in percent of a core: the median of pairs with and without them. */
async function costOfOverview(own: StackProcesses): Promise<number> {
  const { pid = 0 } = own.gateways[0] ?? {};
  const costs: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const without = await cpuPercent(pid);
    const close = openOverviews(own);
    costs.push(((await cpuPercent(pid)) - without) / CONSOLES);
    close();
  }
  return costs.toSorted((one, other) => one - other)[Math.floor(ROUNDS / 2)] ?? Number.NaN;
}

describeWith(CHROMIUM, 'the overview', () => {
  useBuiltConsole();

  itInLongForm(
    'has no long task and costs a gateway less than 1 % of a core, while 2,000 users are served',
    async () => {
      const own = await startStack({ gateways: 1, workers: 1 });
      const read = operator('admin:read', own.addresses);
      const { page } = await consoleOperator('admin', own.addresses);
      await openPage(page, '#/overview');
      await page.getByText('live', { exact: true }).waitFor();
      startLoad(own.addresses);
      const connected = async () => (await read('GET', '/v1/admin/overview')).body.connections.total >= USERS;
      await until(connected, { timeoutMs: 150_000, everyMs: 1_000 });
      const longest = await longTasks(page, () => delay(WATCHED_MS));
      const busy = (await read('GET', '/v1/admin/overview')).body;
      await openPage(page, '#/runbook');
      const cost = await costOfOverview(own);
      process.stdout.write(
        `console: ${cost.toFixed(2)} % of a core; longest task ${longest} ms with ${busy.connections.total} connections ` +
          `and ${busy.per_second.messages} messages/s\n`,
      );
      expect(longest).toBeLessThanOrEqual(100);
      expect(cost).toBeLessThan(1);
    },
    420_000,
  );
});
