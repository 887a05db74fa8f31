import { setTimeout as delay } from 'node:timers/promises';
import { beforeAll, expect, it } from '@jest/globals';
import { freshRequestId } from '../support/agent-runs.ts';
import { openClient, type ReceivedEvent } from '../support/clients.ts';
import { scrape } from '../support/metrics.ts';
import { ModelServer } from '../support/model-server.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { isTerminal } from '../support/runs.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** Runs of one user that wait while the worker executes another. */
const WAITING = 3;
const RUN_MS = 1_500;
const RUN_TIMEOUT_SECONDS = 20;
/** More runs than one slot executes within their time limit. */
const TOO_MANY = 40;
/** Interval at which a worker samples an idle queue. */
const SAMPLED_EVERY_MS = 5_000;

const METRIC = 'tollgate_run_queue_wait_seconds';

let stack: StackProcesses;

beforeAll(async () => {
  const model = await ModelServer.start(() => ({ text: ['Done.'], pieceMs: RUN_MS }));
  closeAfter('file', () => model.close());
  const env = {
    ...{ AGENT_MODEL_URL: model.url, AGENT_MODEL_NAME: 'test-model' },
    ...{ RUN_CONCURRENCY: '1', RUN_TIMEOUT_SECONDS: String(RUN_TIMEOUT_SECONDS), MESSAGE_RATE_PER_MINUTE: '10000' },
  };
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
  // The first samples know the first run by its time so far only. Later at least one run waits for a run of RUN_MS.
  const wait = await until(
    async () => {
      const [seconds = 0] = await waits();
      return seconds >= RUN_MS / 1_000 && seconds;
    },
    { timeoutMs: 3 * SAMPLED_EVERY_MS, label: 'a wait' },
  );
  // A sample on a busy machine sees longer runs, but no more of them.
  expect(wait).toBeLessThan((WAITING * RUN_MS * 10) / 1_000);
  const ended = () => client.events.filter(isTerminal).length === 1 + WAITING;
  await until(ended, { timeoutMs: 60_000, label: 'the end of every run' });
  await until(async () => (await waits())[0] === 0, { timeoutMs: 3 * SAMPLED_EVERY_MS });
}, 120_000);

it('runs above what the workers can finish are refused with OVERLOADED, and no accepted run times out', async () => {
  const { token } = mintToken({ plan: 'developer' }, { stack: stack.addresses });
  const client = await openClient({ url: nodeUrl(0, stack.addresses), token });
  await client.welcome();
  const ask = (request_id: string) => client.send('agent_request', { message: 'Hello', request_id });
  const answerTo = (request_id: string) =>
    client.waitFor(({ type, fields }) => fields.request_id === request_id && /^(agent_accepted|error)$/.test(type));
  const answers = [];
  const startedAt = performance.now();
  for (let at = 0; at < TOO_MANY; at += 1) {
    const id = freshRequestId();
    ask(id);
    answers.push(await answerTo(id));
    // Ten per second: the worker reports the queue twice per second.
    await delay(100);
  }
  const accepted = answers.filter(({ type }) => type === 'agent_accepted');
  const refused = answers.filter(({ type }) => type === 'error').map(({ fields }) => fields);
  expect(refused.length).toBeGreaterThan(0);
  for (const error of refused) expect(error).toMatchObject({ code: 'OVERLOADED', retryable: true });
  const retries = refused.map(({ retry_after_ms }) => Number(retry_after_ms));
  expect(Math.min(...retries)).toBeGreaterThanOrEqual(1_000);
  // A repetition of an accepted request names its run, and other messages are served.
  const known = String(accepted.at(-1)?.fields.request_id);
  const from = client.mark();
  ask(known);
  const isRepetition = ({ type, fields }: ReceivedEvent) => type === 'agent_accepted' && fields.request_id === known;
  const repeated = await client.waitFor(isRepetition, { from });
  expect(repeated).toMatchObject({ type: 'agent_accepted', fields: { run_id: accepted.at(-1)?.fields.run_id } });
  client.send('ping');
  await client.waitFor(({ type }) => type === 'pong');
  const ends = () => client.events.filter(isTerminal);
  await until(() => ends().length === accepted.length, { timeoutMs: 60_000, label: 'the end of every run' });
  const late = ends().filter(({ type }) => type !== 'agent_completed');
  // A fifth of the limit is left for runs that take longer than the latest ones: a busy machine may use it up.
  const slowdown = (performance.now() - startedAt) / (accepted.length * RUN_MS);
  expect(late).toHaveLength(slowdown < 1.2 ? 0 : late.length);
  expect(late.length).toBeLessThan(accepted.length / 2);
}, 120_000);
