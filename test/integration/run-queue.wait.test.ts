import { beforeAll, expect, it } from '@jest/globals';
import { openClient } from '../support/clients.ts';
import { scrape } from '../support/metrics.ts';
import { ModelServer } from '../support/model-server.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { isTerminal } from '../support/runs.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** Runs of one user that wait while the worker executes another. */
const WAITING = 6;
const RUN_MS = 1_500;
/** Interval at which a worker samples the queue. */
const SAMPLED_EVERY_MS = 5_000;

const METRIC = 'tollgate_run_queue_wait_seconds';

let stack: StackProcesses;

beforeAll(async () => {
  const model = await ModelServer.start(() => ({ text: ['Done.'], pieceMs: RUN_MS }));
  closeAfter('file', () => model.close());
  const env = { AGENT_MODEL_URL: model.url, AGENT_MODEL_NAME: 'test-model', RUN_CONCURRENCY: '1' };
  stack = await startStack({ gateways: 1, workers: 1, env });
});

const waits = async () => [...(await scrape(String(stack.workers[0]?.url), METRIC)).values()];

it('a worker exports the expected wait of a new run: 0, then the length of its queue, then 0 again', async () => {
  await until(async () => (await waits())[0] === 0, { timeoutMs: 2 * SAMPLED_EVERY_MS });
  const { token } = mintToken({ plan: 'pro' }, { stack: stack.addresses });
  const client = await openClient({ url: nodeUrl(0, stack.addresses), token });
  await client.welcome();
  const request = () => client.send('agent_request', { message: 'Hello' });
  for (let at = 0; at < 1 + WAITING; at += 1) request();
  const wait = await until(async () => (await waits())[0], { timeoutMs: 3 * SAMPLED_EVERY_MS, label: 'a wait' });
  // At least one run waits for a run of RUN_MS; a sample on a busy machine sees longer runs, but no more of them.
  expect(wait).toBeGreaterThanOrEqual((RUN_MS * 0.5) / 1_000);
  expect(wait).toBeLessThan((WAITING * RUN_MS * 10) / 1_000);
  const ended = () => client.events.filter(isTerminal).length === 1 + WAITING;
  await until(ended, { timeoutMs: 60_000, label: 'the end of every run' });
  await until(async () => (await waits())[0] === 0, { timeoutMs: 3 * SAMPLED_EVERY_MS });
}, 120_000);
