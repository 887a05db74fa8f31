import { beforeAll, expect, it } from '@jest/globals';
import type { Page } from 'playwright-core';
import { openBrowser, type TestBrowser } from '../support/browser/browser.ts';
import { CHROMIUM, describeWith } from '../support/programs.ts';
import { upTo } from '../support/runs.ts';
import { askUser, ScriptedWorker } from '../support/scripted-worker.ts';
import { stack, useStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

interface Received {
  readonly seqs: number[];
  readonly tears: number;
  readonly commits: number;
}

/** Events of the test of the heap. `CLIENT_EVENTS=10000` is the long form. */
const EVENTS = Number(process.env.CLIENT_EVENTS ?? 2_000);
const EVENTS_AT_ONCE = 50;
/** More than the events that `useRun` keeps. */
const WARM_UP_EVENTS = 1_100;
/** Allowed growth of the heap, in bytes: the text of the run, and noise. */
const MAX_GROWTH_BYTES = 1_000_000;

/** In the plain page: reads the events of a run. */
const READ_RUN = `asked = client.run('Hello'); seen = 0;
(async () => { for await (const event of asked) seen += 1; })(); 0`;
const text = (id: string) => `document.querySelector('#${id}').textContent`;

/** A gateway without a worker: the test appends the events of runs itself. */
const scripted = useStack({ gateways: 1, workers: 0 });

describeWith(CHROMIUM, 'a page in a browser', () => {
  let browser: TestBrowser;
  beforeAll(async () => {
    browser = await openBrowser();
  }, 60_000);

  /** Opens a page of one user, and counts the WebSockets that it opens. */
  async function open(parameters: Record<string, string>): Promise<{ page: Page; sockets: () => number }> {
    const page = await browser.context.newPage();
    let sockets = 0;
    page.on('websocket', () => {
      sockets += 1;
    });
    await page.goto(browser.address({ url: stack().gateways[0]?.url ?? '', ...parameters }));
    return { page, sockets: () => sockets };
  }
  const received = (page: Page) => page.evaluate('received') as Promise<Received>;
  const shows = (page: Page, id: string, text: string) => until(async () => (await page.textContent(id)) === text);

  it('runs an agent and continues its thread with the hooks, in strict mode, over one connection', async () => {
    const { page, sockets } = await open({ token: mintToken().token });
    await page.click('#ask');
    await shows(page, '#run', 'completed');
    expect(await page.textContent('#text')).not.toBe('');
    await shows(page, '#state', 'connected');
    expect(await page.textContent('#plan')).toBe('pro');
    await page.click('#send');
    await shows(page, '#thread-run', 'completed');
    await until(async () => (await page.locator('article').count()) === 4);
    const turns = await page.locator('article').allTextContents();
    expect(turns.map((turn) => turn.split(':')[0])).toEqual(['user', 'assistant', 'user', 'assistant']);
    await until(async () => Number(await page.textContent('#calls')) >= 2);
    expect(sockets()).toBe(1);
    const { seqs } = await received(page);
    expect(seqs).toEqual(upTo(seqs.length));
    await page.close();
  });

  it('shows what a run asks its user, the refusal of an answer, and the run after the answer', async () => {
    const { addresses } = scripted();
    const worker = await ScriptedWorker.start(addresses);
    const { token, userId } = mintToken({}, { stack: addresses });
    const { page } = await open({ token, url: addresses.gateways[0]?.url ?? '' });
    await page.click('#ask');
    await shows(page, '#run', 'running');
    const runId = (await page.textContent('#run-id')) ?? '';
    const events = await worker.claim(userId, runId);
    await events.started();
    await askUser(events, 'input_1', { kind: 'choice', message: 'Which one?', choices: ['a', 'b'] });
    await shows(page, 'legend', 'Which one?');
    await page.click('text=none of these');
    await until(async () => (await page.textContent('fieldset'))?.endsWith('FORMAT_ERROR') === true);
    await page.click('fieldset >> text="b"');
    await until(async () => (await page.locator('fieldset').count()) === 0);
    const log = await worker.claim(userId, runId);
    await log.completed({ final_response: 'It is b.', summary: '' });
    await shows(page, '#text', 'It is b.');
    await page.close();
  });

  /** Bytes of the live objects of a page. */
  async function heapOf(page: Page): Promise<number> {
    const session = await browser.context.newCDPSession(page);
    // Objects that a finalizer releases need a second collection.
    for (let collection = 0; collection < 3; collection++) await session.send('HeapProfiler.collectGarbage');
    const { usedSize } = await session.send('Runtime.getHeapUsage');
    await session.detach();
    return usedSize;
  }

  // The page in React contains the client, so the plain one is part of the long form only.
  it.each(process.env.CLIENT_EVENTS === undefined ? ['react'] : ['react', 'plain'])(
    `keeps the heap of a page (%s) within a megabyte over ${EVENTS} events of a run`,
    async (kind) => {
      const { addresses } = scripted();
      const worker = await ScriptedWorker.start(addresses);
      const { token, userId } = mintToken({}, { stack: addresses });
      const { page } = await open({ token, url: addresses.gateways[0]?.url ?? '', page: kind, quiet: '' });
      if (kind === 'react') {
        await page.click('#ask');
        await shows(page, '#run', 'running');
      } else {
        await page.evaluate(READ_RUN);
      }
      const runId = String(
        await page.evaluate(kind === 'react' ? text('run-id') : 'asked.accepted.then(({ runId }) => runId)'),
      );
      const events = await worker.claim(userId, runId);
      await events.started();
      const think = () => events.modelText({ thought: 'A thought. ', step: 1 }, {});
      const send = async (count: number) => {
        for (let sent = 0; sent < count; sent += EVENTS_AT_ONCE)
          await Promise.all(Array.from({ length: EVENTS_AT_ONCE }, think));
      };
      const seen = kind === 'react' ? text('count') : 'seen';
      const hasSeen = (count: number) =>
        until(async () => Number(await page.evaluate(seen)) >= count, { timeoutMs: 30_000 });
      await send(WARM_UP_EVENTS);
      await hasSeen(WARM_UP_EVENTS + 1);
      const before = await heapOf(page);
      await send(EVENTS);
      await hasSeen(WARM_UP_EVENTS + EVENTS + 1);
      const after = await heapOf(page);
      process.stderr.write(
        `heap of the page (${kind}): ${before} bytes, ${after - before} more after ${EVENTS} events\n`,
      );
      expect(after - before).toBeLessThan(MAX_GROWTH_BYTES);
      await page.close();
    },
    60_000 + EVENTS * 20,
  );

  it('runs an agent over server-sent events from another origin', async () => {
    const { page, sockets } = await open({ token: mintToken().token, page: 'plain', transport: 'sse' });
    const text = await page.evaluate('client.run("How is my workload doing?").result().then(({ text }) => text)');
    expect(text).not.toBe('');
    const { seqs } = await received(page);
    expect([seqs, sockets()]).toEqual([upTo(seqs.length), 0]);
    await page.close();
  });

  it('never shows two states of the connection in one commit', async () => {
    const { page } = await open({ token: mintToken().token, page: 'concurrent' });
    await until(async () => (await received(page)).commits >= 100, { timeoutMs: 20_000 });
    expect((await received(page)).tears).toBe(0);
    await page.close();
  });

  it('receives every event once although it is loaded again', async () => {
    const { page } = await open({ token: mintToken().token });
    await page.click('#ask');
    await until(async () => (await received(page)).seqs.length > 0);
    await page.reload();
    await page.click('#ask');
    await shows(page, '#run', 'completed');
    const { seqs } = await received(page);
    expect(seqs).toEqual(upTo(seqs.length));
    await page.close();
  });

  it('shares one connection with two other tabs, and another tab takes over when its own closes', async () => {
    const { token } = mintToken();
    const tabs: Awaited<ReturnType<typeof open>>[] = [];
    for (let tab = 0; tab < 3; tab++) {
      const opened = await open({ token, page: 'plain', share: '' });
      await until(async () => (await opened.page.evaluate('client.state')) === 'connected');
      tabs.push(opened);
    }
    expect(tabs.map(({ sockets }) => sockets())).toEqual([1, 0, 0]);
    const [leader, ...others] = tabs.map(({ page }) => page);
    const ask = 'client.run("How is my workload doing?").result().then(({ text }) => text)';
    const running = others.map((page) => page.evaluate(ask) as Promise<string>);
    await leader?.close();
    for (const text of await Promise.all(running)) expect(text).not.toBe('');
    const seqs = await Promise.all(others.map(async (page) => (await received(page)).seqs));
    for (const one of seqs) expect(one).toEqual(upTo(one.length));
    // The runs can end before the first tab has closed.
    await until(() => tabs.reduce((sum, { sockets }) => sum + sockets(), 0) === 2);
    for (const page of others) await page.close();
  });
});
