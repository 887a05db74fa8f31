import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from '@jest/globals';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import {
  CONSOLE_PAGES,
  consoleOperator,
  DESKTOP,
  openPage,
  PHONE,
  useBuiltConsole,
} from '../support/console/console-browser.ts';
import { CHROMIUM, describeWith } from '../support/programs.ts';
import { stack } from '../support/stack.ts';
import { login } from '../support/tokens.ts';

/** Where the pictures of a run with `CONSOLE=1` are left. */
const FOLDER = join(PROJECT_ROOT, '.tollgate/console-screenshots');
const RUNS = 12;
const MESSAGES = ['How is my workload doing?', 'Is the system healthy?', 'What can you do?'];
const itInLongForm = process.env.CONSOLE ? it : it.skip;

/** Runs of a demo user, so that the pages have something to show. */
async function makeRuns(): Promise<void> {
  const { access_token } = await login('pro');
  const headers = { authorization: `Bearer ${access_token}`, 'content-type': 'application/json' };
  for (let run = 0; run < RUNS; run++) {
    const body = JSON.stringify({ message: MESSAGES[run % MESSAGES.length] });
    const answer = await fetch(`${stack().gateways[0]?.url}/v1/runs?wait=10`, { method: 'POST', headers, body });
    expect(answer.status).toBe(200);
  }
}

describeWith(CHROMIUM, 'pictures of the console', () => {
  useBuiltConsole();

  itInLongForm(
    'of every page, light and dark, wide and narrow, without an error of the browser',
    async () => {
      mkdirSync(FOLDER, { recursive: true });
      await makeRuns();
      const { page, errors } = await consoleOperator();
      for (const fragment of CONSOLE_PAGES) {
        await openPage(page, fragment);
        for (const colorScheme of ['light', 'dark'] as const) {
          for (const viewport of [DESKTOP, PHONE]) {
            await page.emulateMedia({ colorScheme });
            await page.setViewportSize(viewport);
            await page.evaluate('new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))');
            const name = [fragment.replace('#/', '').replaceAll(/[/?]/g, '-'), colorScheme, viewport.width].join('-');
            await page.screenshot({ path: join(FOLDER, `${name}.png`), fullPage: viewport === PHONE });
          }
        }
        await page.setViewportSize(DESKTOP);
      }
      process.stdout.write(`pictures of the console: ${FOLDER}\n`);
      expect(errors).toEqual([]);
    },
    180_000,
  );
});
