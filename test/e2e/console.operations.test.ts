import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, it } from '@jest/globals';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { Keys, PARTITIONS, partitionOf } from '../../src/redis/keys.ts';
import { AgentServer } from '../support/agent-server.ts';
import { catalogueFolder, planFile, toolFile } from '../support/catalogues.ts';
import { openClient, type TestClient } from '../support/clients.ts';
import { type ConsoleTab, consoleOperator, openPage, useBuiltConsole } from '../support/console/console-browser.ts';
import { silentLogger } from '../support/core.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { operator } from '../support/operators.ts';
import { CHROMIUM, describeWith } from '../support/programs.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const ADMIN = 'user_admin';
const FORM = { type: 'object', properties: { days: { type: 'integer' }, why: { type: 'string' } }, required: ['days'] };
const ASKS = [
  { id: 'a', kind: 'approval', message: 'May I?' },
  { id: 'b', kind: 'choice', message: 'Which one?', choices: ['x', 'y'] },
  { id: 'c', kind: 'form', message: 'How long?', schema: FORM },
];

const itInLongForm = process.env.CONSOLE ? it : it.skip;

let agent: AgentServer;
let folder: string;
let own: StackProcesses;
let redis: Redis;
let tab: ConsoleTab;
/** A client of the gateway that does not serve the console. */
let client: TestClient;

/** Serves an agent of the kind `http` that asks its user, or fails at the first request that does not. */
async function startAgent(): Promise<AgentServer> {
  const server = await AgentServer.start();
  closeAfter('file', () => server.close());
  let failures = 0;
  server.serve = ({ body }, response) => {
    const done = { type: 'done', final_response: 'Thank you.' };
    const asks = { type: 'wait', requests: ASKS, state: {} };
    const fails = { type: 'error', code: 'broken', retryable: false };
    const line = body.continued ? done : body.message === 'Ask me.' ? asks : failures++ === 0 ? fails : done;
    response.writeHead(200, { 'content-type': 'application/x-ndjson' }).end(`${JSON.stringify(line)}\n`);
  };
  return server;
}

/** The catalogues of the product with the agent `asker`. */
function folderWith(url: string): string {
  const agents = JSON.parse(readFileSync(new URL('../../config/agents.json', import.meta.url), 'utf8'));
  const secret = '$' + '{AGENT_SECRET}';
  agents.agents.push({ name: 'asker', description: 'Asks its user.', kind: 'http', url, secret });
  return catalogueFolder({ 'plans.json': planFile, 'tools.json': toolFile, 'agents.json': agents }, 'file');
}

/** A key that the sweep of calls reads and no user of this file needs: with another type, the job fails. */
function sweptKey(): string {
  return new Keys(own.addresses.keyPrefix).activeCalls((partitionOf(ADMIN) + 1) % PARTITIONS);
}

/** Sends a message in the playground, and returns its turn. */
async function ask(message: string) {
  const { page } = tab;
  await page.locator('#message').fill(message);
  await page.getByRole('button', { name: 'Send' }).click();
  return page.locator('.turn').last();
}

/** Confirms the dialog that an action has opened. */
async function confirm(name: string): Promise<void> {
  await tab.page.getByRole('dialog').getByRole('button', { name, exact: true }).click();
}

describeWith(CHROMIUM, 'an operator of a cluster', () => {
  useBuiltConsole();
  beforeAll(async () => {
    agent = await startAgent();
    folder = folderWith(agent.url);
    const env = { CATALOGUE_DIR: folder, AGENT_SECRET: 'a secret for the signature of requests' };
    own = await startStack({ gateways: 2, workers: 1, env });
    redis = await connectRedis(own.addresses.redisUrl, 'commands', silentLogger);
    closeAfter('file', () => disconnectRedis(redis));
    await redis.set(sweptKey(), 'not a sorted set');
    tab = await consoleOperator('admin', own.addresses);
    const { token } = mintToken({}, { stack: own.addresses });
    client = await openClient({ url: nodeUrl(1, own.addresses), token, lifetime: 'file' });
  }, 60_000);

  it('drains another node, which closes its connections and exits', async () => {
    const { page } = tab;
    await openPage(page, '#/nodes');
    const gateways = page.getByRole('table', { name: 'Gateways' });
    const other = gateways.getByRole('row').filter({ hasNotText: 'serves this page' });
    await other.getByRole('button', { name: 'Drain' }).click();
    await confirm('Drain');
    await page.getByText(/^node_\S+ drains\./).waitFor();
    // Shown at once, although the node notices at its next renewal, during the following tests.
    await other.getByText('draining', { exact: true }).waitFor({ timeout: 3_000 });
  });

  it('answers an approval, a choice and a form beside the timeline', async () => {
    const { page } = tab;
    await openPage(page, '#/playground');
    await page.getByTestId('connection').getByText('connected').waitFor();
    await page.locator('.agent-select').selectOption('asker');
    const turn = await ask('Ask me.');
    const forms = page.locator('.input-request');
    await forms.nth(2).waitFor();
    await forms.filter({ hasText: 'May I?' }).getByRole('button', { name: 'Approve' }).click();
    const choice = forms.filter({ hasText: 'Which one?' });
    await choice.getByLabel('y').check();
    await choice.getByRole('button', { name: 'Answer' }).click();
    const form = forms.filter({ hasText: 'How long?' });
    await form.getByLabel('days').fill('3');
    await form.getByRole('button', { name: 'Answer' }).click();
    await turn.getByText('Thank you.').waitFor();
    expect(await forms.count()).toBe(0);
    expect(agent.requests.at(-1)?.body.continued).toMatchObject({
      answers: [
        { id: 'a', action: 'accept' },
        { id: 'b', action: 'accept', content: { choice: 'y' } },
        { id: 'c', action: 'accept', content: { days: 3 } },
      ],
    });
  });

  it('finds a failed run without its user, with the reason, and runs it again', async () => {
    const { page } = tab;
    const failed = await ask('Fail once.');
    await failed.getByText(/AGENT_FAILED/).waitFor();
    await openPage(page, '#/runs');
    const row = page.getByRole('row', { name: /Fail once\..*AGENT_FAILED/ });
    await row.getByRole('button', { name: 'Run again' }).click();
    await confirm('Run again');
    await page.getByText('Thank you.').first().waitFor();
    expect(page.url()).toMatch(/#\/runs\/user_admin\/run_/);
  });

  it('changes a plan, and the open connection has its rights at once', async () => {
    const { page } = tab;
    await openPage(page, '#/playground');
    await page.getByTestId('connection').getByText('connected').waitFor();
    await page.locator('.agent-select').selectOption('usage_agent');
    const allowed = await ask('How is my workload doing?');
    await allowed.getByText('completed', { exact: true }).waitFor();
    await page.locator('.tool-card', { hasText: 'success' }).first().waitFor();
    await openPage(page, `#/users/${ADMIN}`);
    await page.getByRole('button', { name: 'Change plan' }).click();
    await page.getByRole('dialog').getByLabel('Plan').selectOption('free');
    await confirm('Change plan');
    await page.locator('.tile', { hasText: 'stored by an administrator' }).getByText('free').waitFor();
    await openPage(page, '#/playground');
    await until(async () => (await page.locator('.plan-select').inputValue()) === 'free');
    await page.locator('.agent-select').selectOption('usage_agent');
    const denied = await ask('How is my workload doing?');
    await denied.getByText('completed', { exact: true }).waitFor();
    await page.locator('.tool-card', { hasText: 'PERMISSION_DENIED' }).first().waitFor();
    await page.locator('.plan-select').selectOption('enterprise');
    await until(async () => (await page.locator('.plan-select').inputValue()) === 'enterprise');
  });

  it('sees in an older tab that a newer connection has evicted it', async () => {
    const { page } = tab;
    await openPage(page, '#/playground');
    await page.getByTestId('connection').getByText('connected').waitFor();
    const newer = await consoleOperator('admin', own.addresses);
    await openPage(newer.page, '#/playground');
    await newer.page.getByTestId('connection').getByText('connected').waitFor();
    await newer.page.getByRole('button', { name: /^Exceed the connection cap/ }).click();
    await page.locator('.connection-bar').getByText('CONNECTION_LIMIT_EXCEEDED').first().waitFor();
    await newer.context.close();
    await page.getByRole('button', { name: 'Connect again' }).click();
    await page.getByTestId('connection').getByText('connected').waitFor();
  });

  it('sees the change of a file before the reload, and applies it', async () => {
    const { page } = tab;
    const free = { ...planFile.plans.free, threads: 7 };
    writeFileSync(join(folder, 'plans.json'), JSON.stringify({ ...planFile, plans: { ...planFile.plans, free } }));
    await openPage(page, '#/catalogue');
    await page.getByRole('row', { name: 'plans.free.threads changed 5 7' }).waitFor();
    await page.getByRole('button', { name: 'Reload', exact: true }).click();
    await confirm('Reload');
    await page.getByText('The files contain what the nodes use.').waitFor();
    const { body } = await operator('admin:read', own.addresses)('GET', '/v1/admin/catalogue');
    expect(body.plans.find(({ name }: { name: string }) => name === 'free').threads).toBe(7);
  });

  it('reads the same units in the bill and its chart as in the API, and verifies the ledger', async () => {
    const { page } = tab;
    const read = operator('admin:read', own.addresses);
    const since = new Date(Date.now() - 86_400_000).toISOString().slice(0, 13);
    const units = await until(async () => {
      const { body } = await read('GET', `/v1/usage/tallies?from=${since}:00:00Z&group_by=hour`);
      return body.tallies.reduce((sum: number, row: { units: number }) => sum + row.units, 0);
    });
    await openPage(page, '#/usage?days=1');
    await page.locator('.tile', { hasText: 'Units charged' }).getByText(String(units), { exact: true }).waitFor();
    expect(await page.locator('.legend').first().textContent()).toContain(`units ${units}`);
    await page.locator('.chart canvas').first().waitFor();
    const ofUsers = await read('GET', `/v1/usage/tallies?from=${since}:00:00Z&group_by=user`);
    await openPage(page, '#/usage?days=1&by=user');
    const bill = page.getByRole('table', { name: 'Usage' });
    for (const row of ofUsers.body.tallies) {
      const cells = bill.getByRole('row').filter({ hasText: row.user });
      expect(await cells.getByRole('rowheader').textContent()).toBe(row.user);
      expect(await cells.getByRole('cell').first().textContent()).toBe(String(row.units));
    }
    expect(await bill.getByRole('row').count()).toBe(ofUsers.body.tallies.length + 1);
    await openPage(page, '#/usage/windows');
    await page.getByRole('button', { name: /^Verify \d+ window/ }).click();
    const outcome = page.getByTestId('verification');
    await outcome.getByText('No contradiction').waitFor();
    expect(await outcome.textContent()).toMatch(/^(\d+) of \1 windows?, [1-9]\d* record/);
    const progress = outcome.getByRole('progressbar');
    expect(await progress.getAttribute('value')).toBe(await progress.getAttribute('max'));
  });

  it('runs a failed job again, after its cause is gone', async () => {
    const { page } = tab;
    await openPage(page, '#/queues');
    const failed = page.getByRole('row', { name: /^sweep-runs .*WRONGTYPE/ });
    await failed.first().waitFor();
    await redis.del(sweptKey());
    const before = await failed.count();
    await failed.first().getByRole('button', { name: 'Retry' }).click();
    await confirm('Retry');
    await page.getByText('sweep-runs waits for a worker.').waitFor();
    await until(async () => (await failed.count()) < before, { timeoutMs: 10_000 });
  });

  it('has seen the drained node leave, and no error in the console of the browser', async () => {
    const { page } = tab;
    const drained = own.gateways[1];
    await until(() => drained?.running === false, { timeoutMs: 15_000 });
    expect(await drained?.stop()).toEqual({ code: 0, signal: null });
    expect(await client.closed).toMatchObject({ code: 1012 });
    await openPage(page, '#/nodes');
    await page.getByRole('heading', { name: 'Gateways (1)' }).waitFor();
    expect(tab.errors).toEqual([]);
  });

  itInLongForm('kills the node of its connection, which continues when the node is back', async () => {
    const { page } = tab;
    const [gateway] = own.gateways;
    await openPage(page, '#/playground');
    await page.getByTestId('connection').getByText('connected').waitFor();
    await page.getByRole('button', { name: 'Kill the node' }).click();
    await until(() => gateway?.running === false, { timeoutMs: 10_000 });
    expect(await gateway?.kill()).toEqual({ code: null, signal: 'SIGKILL' });
    await gateway?.start();
    await page.getByTestId('finding').getByText('Resumed').waitFor();
  });
});
