import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll } from '@jest/globals';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { PROJECT_ROOT } from '../../../scripts/lib/processes.ts';
import { closeAfter } from '../open-resources.ts';
import { CHROMIUM } from '../programs.ts';
import { type StackAddresses, stack } from '../stack.ts';
import { until } from '../until.ts';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
export const DESKTOP = { width: 1_280, height: 860 };
export const PHONE = { width: 360, height: 740 };

/** The pages of operators, without those of single users and runs. */
export const CONSOLE_PAGES = [
  '#/overview',
  '#/nodes',
  '#/users',
  '#/users?view=refused',
  '#/users/user_pro',
  '#/runs',
  '#/queues',
  '#/usage',
  '#/usage/records',
  '#/usage/windows',
  '#/usage/consumers',
  '#/audit',
  '#/catalogue',
  '#/catalogue/plans',
  '#/settings',
  '#/runbook',
  '#/playground',
];
/** Rows like those above them: they would cost most of the time. */
const FURTHER_ROWS = 'tbody tr:nth-child(n + 4)';
const BUILD_TIMEOUT_MS = 120_000;

/** Builds the console before the tests of a file, unless it is up to date. */
export function useBuiltConsole(): void {
  beforeAll(async () => {
    await promisify(execFile)(process.execPath, [join(PROJECT_ROOT, 'scripts/build-console.ts')]);
  }, BUILD_TIMEOUT_MS);
}

export interface ConsoleTab {
  readonly page: Page;
  /** Messages of the browser's console at the level error, and uncaught errors. */
  readonly errors: string[];
  readonly context: BrowserContext;
}

let browser: Promise<Browser> | undefined;

/** Opens a tab without cookies or storage of others. Closed when the test file ends. */
async function openTab(viewport = DESKTOP): Promise<ConsoleTab> {
  browser ??= launch();
  // Headless Chromium reports no scheme of the system: each test chooses one.
  const context = await (await browser).newContext({ viewport, colorScheme: 'light', reducedMotion: 'reduce' });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const errors: string[] = [];
  page.on('console', (message) => {
    if (message.type() === 'error') errors.push(message.text());
  });
  page.on('pageerror', (error) => errors.push(String(error)));
  return { page, errors, context };
}

async function launch(): Promise<Browser> {
  // As root Chromium has no sandbox.
  const launched = await chromium.launch({ executablePath: CHROMIUM.command, args: ['--no-sandbox'] });
  closeAfter('file', () => launched.close());
  return launched;
}

/** Opens a tab of the first gateway of a stack, and signs in through the page of its auth service with a demo account. */
export async function consoleOperator(account = 'admin', of: StackAddresses = stack()): Promise<ConsoleTab> {
  const tab = await openTab();
  const { page } = tab;
  await page.goto(`${of.gateways[0]?.url}/console/`);
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  await page.locator('input[name=email]').fill(`${account}@demo.local`);
  await page.locator('input[name=password]').fill(of.demoPassword);
  await page.locator('button[type=submit]').click();
  await page.getByRole('button', { name: 'Sign out' }).waitFor({ state: 'attached' });
  return tab;
}

/** Opens a page of the console by its fragment, and waits until its data is there. */
export async function openPage(page: Page, fragment: string): Promise<void> {
  await page.evaluate(`location.hash = ${JSON.stringify(fragment)}`);
  await page.locator('main h1').first().waitFor();
  await page.locator('main .state[role=status]').first().waitFor({ state: 'detached' });
}

/** Returns the longest task of the page, in milliseconds, while something happens; 0 without one above 50 ms. */
export async function longTasks(page: Page, happens: () => Promise<unknown>): Promise<number> {
  await page.evaluate(`window.longTasks = [];
    window.longTaskObserver = new PerformanceObserver((list) => {
      window.longTasks.push(...list.getEntries().map(({ duration }) => duration));
    });
    window.longTaskObserver.observe({ type: 'longtask' })`);
  // Proves that the observer sees a task.
  await page.evaluate('setTimeout(() => { const end = Date.now() + 200; while (Date.now() < end); })');
  await until(() => page.evaluate('window.longTasks.some((ms) => ms >= 150) && Boolean((window.longTasks = []))'));
  await happens();
  return Number(await page.evaluate('window.longTaskObserver.disconnect(), Math.max(0, ...window.longTasks)'));
}

export interface Violation {
  readonly id: string;
  readonly nodes: readonly string[];
}

/**
 * Runs axe-core, in dark colours with the one rule that depends on them. The content security policy allows no script of
 * others, so it is evaluated, not added.
 */
export async function accessibilityViolations(page: Page): Promise<readonly Violation[]> {
  if (await page.evaluate('typeof axe === "undefined"')) await page.evaluate(AXE);
  await page.emulateMedia({ colorScheme: 'light' });
  const light = await violationsOf(page, '{ resultTypes: ["violations"] }');
  await page.emulateMedia({ colorScheme: 'dark' });
  const dark = await violationsOf(page, '{ resultTypes: ["violations"], runOnly: ["color-contrast"] }');
  await page.emulateMedia({ colorScheme: 'light' });
  return [...light, ...dark.map((violation) => ({ ...violation, id: `${violation.id} in dark` }))];
}

async function violationsOf(page: Page, options: string): Promise<readonly Violation[]> {
  const found = await page.evaluate(`axe.run({ exclude: [${JSON.stringify(FURTHER_ROWS)}] }, ${options})`);
  const { violations } = found as { violations: { id: string; nodes: { html: string; failureSummary: string }[] }[] };
  return violations.map(({ id, nodes }) => ({
    id,
    nodes: nodes.slice(0, 3).map(({ html, failureSummary }) => `${html.slice(0, 160)}\n${failureSummary}`),
  }));
}
