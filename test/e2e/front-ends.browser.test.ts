import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from '@jest/globals';
import type { Page } from 'playwright-core';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { openBrowser, type PageSource, type TestBrowser } from '../support/browser/browser.ts';
import { installExample } from '../support/front-ends/installed-packages.ts';
import { reportCuts } from '../support/front-ends/report-cuts.ts';
import { servingGateway } from '../support/front-ends/serving-gateway.ts';
import { startLoadBalancer } from '../support/load-balancer.ts';
import { CHROMIUM, describeWith, HAPROXY, isInstalled } from '../support/programs.ts';
import { FULL_RUN, type ScriptedEvent, ScriptedWorker } from '../support/scripted-worker.ts';
import { useStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** `SCREENSHOTS=1 npm run test:front-ends` writes the images of docs/front-ends.md. */
const IMAGES = process.env.SCREENSHOTS === undefined ? undefined : join(PROJECT_ROOT, 'docs/images');
/** Two parallel tools and a replaced step, with text that every font has. */
const RUN: readonly ScriptedEvent[] = [
  ...FULL_RUN.slice(0, -2),
  (log) => log.modelText({ thought: 'twelve units.', step: 3 }, {}),
  (log) => log.completed({ final_response: 'It is twelve units.', summary: 'Twelve.' }),
];
/** Events before the gateway dies: within the text of the second step. */
const CUT = 9;
/** Chromium needs a while for a page of CopilotKit, which has 12 MB. */
const PAGE_MS = 30_000;

/** A page of an example, and how a test uses it. */
interface ChatPage {
  readonly example: string;
  /** Elements of the messages. */
  readonly messages: string;
  ask(page: Page): Promise<void>;
  /** Anything that shows an error. */
  readonly errors: string;
  /** Errors that the libraries of the page leave to the browser, which the user does not see. */
  readonly uncaught: readonly string[];
}

const AI_SDK: ChatPage = {
  example: 'ai-sdk-chat',
  messages: 'article',
  ask: async (page) => {
    await page.fill('[name=message]', 'How much?');
    await page.click('button');
  },
  errors: '[role=alert]',
  uncaught: [],
};

const COPILOT_KIT: ChatPage = {
  example: 'copilotkit-chat',
  messages: '[data-testid=copilot-user-message], [data-testid=copilot-assistant-message]',
  ask: async (page) => {
    await page.fill('textarea', 'How much?');
    await page.press('textarea', 'Enter');
  },
  errors: '[role=alert], [data-testid*=error]',
  // The AG-UI client cancels the reader of a broken stream without catching its error.
  uncaught: ['network error'],
};

const own = useStack({ gateways: 3, workers: 0 });
let worker: ScriptedWorker;
let url: string;

if (isInstalled(HAPROXY)) {
  beforeAll(async () => {
    worker = await ScriptedWorker.start(own().addresses);
    ({ url } = await startLoadBalancer(own().addresses.gateways.map((gateway) => gateway.url)));
  });
}

/** A page with a run whose first events have been appended. */
async function asked(browser: TestBrowser, chat: ChatPage, events: number) {
  const me = mintToken({}, { stack: own().addresses });
  const page = await browser.context.newPage();
  await page.setViewportSize({ width: 640, height: 720 });
  const failures: string[] = [];
  page.on('pageerror', (error) => failures.push(error.message));
  await page.goto(browser.address({ url, token: me.token }));
  await chat.ask(page);
  const runId = await until(async () => (await worker.redis.zrange(worker.keys.user(me.userId).runs, '0', '0'))[0], {
    timeoutMs: PAGE_MS,
  });
  const log = await worker.claim(me.userId, runId);
  for (const append of RUN.slice(0, events)) await append(log);
  return { page, failures, log };
}

const textOf = (page: Page, { messages }: ChatPage) => page.locator(messages).allInnerTexts();
const has = (page: Page, text: string) => {
  return until(async () => (await page.locator('body').allInnerTexts()).join().includes(text), {
    timeoutMs: PAGE_MS,
    label: text,
  });
};
const isIn = (page: Page, state: string) => {
  return until(async () => (await page.textContent('#status')) === state, { timeoutMs: PAGE_MS, label: state });
};

async function screenshot(page: Page, name: string): Promise<void> {
  if (IMAGES === undefined) return;
  await mkdir(IMAGES, { recursive: true });
  await page.screenshot({ path: join(IMAGES, `${name}.png`) });
}

function test(chat: ChatPage, source: () => Promise<PageSource>): void {
  let browser: TestBrowser;
  let uncut: readonly string[];

  beforeAll(async () => {
    browser = await openBrowser(await source());
    const { page } = await asked(browser, chat, RUN.length);
    await has(page, 'It is twelve units.');
    await isIn(page, 'ready');
    uncut = await textOf(page, chat);
    await page.close();
  }, 300_000);

  it('shows the whole run once although kill -9 ended its gateway', async () => {
    const { page, failures, log } = await asked(browser, chat, CUT);
    await has(page, 'It is aborted');
    await screenshot(page, `${chat.example}-running`);
    const gateway = await servingGateway(own());
    await gateway.kill();
    await isIn(page, 'reconnecting');
    for (const append of RUN.slice(CUT)) await append(log);
    await has(page, 'It is twelve units.');
    await isIn(page, 'ready');
    await screenshot(page, `${chat.example}-survived`);
    expect(await textOf(page, chat)).toEqual(uncut);
    expect([await page.locator(chat.errors).allInnerTexts(), failures]).toEqual([[], chat.uncaught]);
    reportCuts(`${chat.example} in Chromium`, 'gateway killed', 1, 1);
    await page.close();
    await gateway.start();
  }, 60_000);

  it('shows the whole run once after it was loaded again', async () => {
    const { page, log } = await asked(browser, chat, CUT);
    await has(page, 'It is aborted');
    await page.reload();
    for (const append of RUN.slice(CUT)) await append(log);
    await has(page, 'It is twelve units.');
    await isIn(page, 'ready');
    expect(await textOf(page, chat)).toEqual(uncut);
    reportCuts(`${chat.example} in Chromium`, 'page loaded again', 1, 1);
    await page.close();
  }, 60_000);
}

const folderOf = ({ example }: ChatPage) => join(PROJECT_ROOT, 'examples', example);
const source = (folder: string): PageSource => ({
  entry: join(folder, 'main.jsx'),
  html: join(folder, 'www/index.html'),
});

describeWith(HAPROXY, 'behind HAProxy', () => {
  describeWith(CHROMIUM, 'a page with useChat', () => test(AI_SDK, async () => source(folderOf(AI_SDK))));

  // In the long form only (`npm run test:front-ends`): the packages have 500 MB.
  (process.env.FRONT_ENDS === undefined ? describe.skip : describe)('in the long form', () => {
    describeWith(CHROMIUM, 'a page with CopilotKit', () => {
      test(COPILOT_KIT, async () => source(await installExample(folderOf(COPILOT_KIT))));
    });
  });
});
