import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { beforeAll, expect, it } from '@jest/globals';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { openClient } from '../support/clients.ts';
import {
  accessibilityViolations,
  CONSOLE_PAGES,
  type ConsoleTab,
  consoleOperator,
  DESKTOP,
  longTasks,
  openPage,
  PHONE,
  useBuiltConsole,
} from '../support/console/console-browser.ts';
import { CHROMIUM, describeWith } from '../support/programs.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const KIB = 1_024;
const FIRST_LOAD_BYTES = 150 * KIB;
/** Tiles and charts, a table with filters, forms, a matrix, and the playground: the long form checks every page. */
const PAGES_OF_EACH_KIND = ['#/overview', '#/runs', '#/usage', '#/catalogue', '#/playground'];
const ELEMENTS_WITHOUT_ROLE = 'table[data-cards] :is(thead, tbody, tr, th, td):not([role])';
const BUILT = join(PROJECT_ROOT, 'console/dist');
/** Markup, and the control that reverses the text after it. */
const HOSTILE = '<img src=x onerror=alert(1)>\u202Egnp.exe <b>bold</b>';
const HOSTILE_SHOWN = HOSTILE.replace('\u202E', '\\u{202e}');

describeWith(CHROMIUM, 'the console', () => {
  let tab: ConsoleTab;
  let viewer: ConsoleTab;
  useBuiltConsole();
  beforeAll(async () => {
    tab = await consoleOperator();
  }, 60_000);

  it('keeps tokens out of addresses and storage, and continues after a reload', async () => {
    const { page } = tab;
    const stored = 'JSON.stringify([{ ...localStorage }, { ...sessionStorage }])';
    expect(page.url()).not.toMatch(/code=|token/);
    expect(await page.evaluate(stored)).not.toMatch(/eyJ|refresh/i);
    await openPage(page, '#/nodes');
    await page.reload();
    await page.getByRole('heading', { name: 'Nodes' }).waitFor();
    expect(await page.evaluate(stored)).not.toMatch(/eyJ|refresh/i);
    expect(await page.context().cookies()).toEqual([]);
  });

  it('shows a run as a timeline, and no gap after a dropped connection', async () => {
    const { page } = tab;
    await openPage(page, '#/playground');
    await page.getByTestId('connection').getByText('connected').waitFor();
    await page.locator('#message').fill('How is my workload doing?');
    await page.getByRole('button', { name: 'Send' }).click();
    await page.getByRole('button', { name: 'Drop the connection' }).click();
    await page.locator('.turn', { hasText: 'completed' }).waitFor();
    await page.getByTestId('finding').getByText('Resumed').waitFor();
    const seqs = (await page.locator('.timeline [data-type] .muted', { hasText: /seq \d+$/ }).allTextContents()).map(
      (text) => Number(/\d+$/.exec(text)?.[0]),
    );
    expect(seqs.length).toBeGreaterThanOrEqual(5);
    expect(seqs).toEqual(seqs.map((_, index) => (seqs[0] ?? 0) + index));
  });

  it('shows what users write as text with hidden characters escaped, isolated from the text around it', async () => {
    const { page } = tab;
    await page.locator('#message').fill(HOSTILE);
    await page.getByRole('button', { name: 'Send' }).click();
    const question = page.locator('.question').last();
    await until(async () => (await question.textContent()) === HOSTILE_SHOWN);
    expect(await question.locator('img, b').count()).toBe(0);
    expect(await question.locator('[dir=auto]').count()).toBe(1);
    await page.locator('.turn', { hasText: 'completed' }).nth(1).waitFor();
  });

  it('shows a line of 64 KiB in steps, within the width of the page', async () => {
    const { page } = tab;
    await page.locator('#message').fill('x'.repeat(64 * KIB));
    await page.getByRole('button', { name: 'Send' }).click();
    const question = page.locator('.question').last();
    await question.getByRole('button', { name: /Show more/ }).waitFor();
    expect((await question.textContent())?.length).toBeLessThan(3 * KIB);
    expect(await page.evaluate('document.documentElement.scrollWidth <= innerWidth')).toBe(true);
    await page.getByText('MESSAGE_TOO_LARGE').first().waitFor();
  });

  it('blocks a user, and shows the effect: the connection closes and the account is blocked', async () => {
    const { page } = tab;
    const { token, userId } = mintToken();
    const client = await openClient({ token });
    await openPage(page, `#/users/${userId}`);
    await page.getByRole('cell', { name: '/ws/secure' }).first().waitFor();
    await page.getByRole('button', { name: 'Block' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Block' }).click();
    await page.getByText('The user is blocked.').waitFor();
    expect(await client.closed).toMatchObject({ reason: 'USER_BLOCKED' });
    await page.getByText('USER_BLOCKED').first().waitFor();
    await page.getByText('Not connected').waitFor();
    await openPage(page, '#/audit');
    await page.getByRole('row', { name: new RegExp(`blockUser.*${userId}`) }).waitFor();
  });

  it('says that the message limit refuses a user, until when, and leads there from the overview', async () => {
    const { page } = tab;
    const { token, userId } = mintToken({ plan: 'free' });
    const client = await openClient({ token });
    const { limits } = await client.welcome();
    const limit = Number((limits as { max_message_rate: number }).max_message_rate);
    for (let sent = 0; sent < limit + 2; sent += 1) client.send('typing', {});
    await client.waitFor('error');
    await openPage(page, '#/overview');
    const watch = await Stopwatch.start();
    const longest = await longTasks(page, async () => {
      await page.getByRole('link', { name: 'RATE_LIMITED' }).click();
      await page.getByRole('link', { name: userId }).click();
      await page.getByText('Refused because the user has sent the').waitFor();
    });
    const reason = page.getByRole('list', { name: 'Reasons for refusals' }).getByRole('listitem').first();
    expect(await reason.textContent()).toMatch(
      /^Refused because the user has sent the \d+ messages that the plan allows per minute, until .+\d{2}:\d{2}:\d{2} .+RATE_LIMITED$/,
    );
    await page.getByRole('row', { name: /^messages per minute reached/ }).waitFor();
    await page.getByRole('row', { name: /^RATE_LIMITED / }).waitFor();
    expect(longest).toBeLessThanOrEqual(watch.allow(100));
  }, 30_000);

  it('has no accessibility violation, in light and dark, and fits 360 pixels', async () => {
    const { page } = tab;
    const violations: unknown[] = [];
    for (const fragment of process.env.CONSOLE ? CONSOLE_PAGES : PAGES_OF_EACH_KIND) {
      await openPage(page, fragment);
      const found = await accessibilityViolations(page);
      violations.push(...found.map((violation) => ({ fragment, ...violation })));
      await page.setViewportSize(PHONE);
      if (process.env.CONSOLE) {
        const narrow = await accessibilityViolations(page);
        violations.push(...narrow.map((violation) => ({ fragment, width: PHONE.width, ...violation })));
      }
      const width = Number(await page.evaluate('document.documentElement.scrollWidth'));
      if (width > PHONE.width) violations.push({ fragment, width });
      // On a phone the parts of a table are no longer displayed as a table.
      const roleless = Number(await page.evaluate(`document.querySelectorAll('${ELEMENTS_WITHOUT_ROLE}').length`));
      if (roleless > 0) violations.push({ fragment, roleless });
      await page.setViewportSize(DESKTOP);
    }
    expect(violations).toEqual([]);
  }, 240_000);

  it('reports no error in the console of the browser', () => {
    expect(tab.errors).toEqual([]);
  });

  it('shows viewers everything, and users the playground only', async () => {
    viewer = await consoleOperator('viewer');
    await openPage(viewer.page, '#/settings');
    expect(await viewer.page.getByRole('button', { name: 'Test connections' }).getAttribute('aria-disabled')).toBe(
      'true',
    );
    const user = await consoleOperator('free');
    await openPage(user.page, '#/overview');
    await user.page.getByText('Your account may not see this page').waitFor();
  }, 60_000);

  it('ends the session at the issuer when the operator signs out', async () => {
    const { page } = viewer;
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('heading', { name: 'Sign in to the console' }).waitFor();
    await page.reload();
    await page.getByRole('heading', { name: 'Sign in to the console' }).waitFor();
  });

  it('loads less than 150 KiB at first, compressed', () => {
    const html = readFileSync(join(BUILT, 'index.html'), 'utf8');
    const files = readdirSync(join(BUILT, 'assets'));
    const named = files.filter((file) => html.includes(file));
    const fonts = files.filter((file) => file.endsWith('.woff2'));
    // Every page needs one chunk of its own; the largest stands for it.
    const first = [...new Set([...named, ...fonts])].map((file) => readFileSync(join(BUILT, 'assets', file)));
    const bytes = first.reduce((sum, body) => sum + gzipSync(body).length, 0);
    process.stdout.write(`first load of the console: ${(bytes / KIB).toFixed(1)} KiB\n`);
    expect(bytes).toBeLessThan(FIRST_LOAD_BYTES);
  });
});
