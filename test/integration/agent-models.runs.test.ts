import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { Record } from '../../src/http/usage-schemas.ts';
import type { Fields } from '../../src/protocol/messages.ts';
import { freshRequestId, runToEnd, type SeenRun } from '../support/agent-runs.ts';
import { openClient, type TestClient, TRANSPORTS } from '../support/clients.ts';
import { billedRecords } from '../support/ledger.ts';
import { ModelServer } from '../support/model-server.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { isTerminal, seqs, upTo } from '../support/runs.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { mintToken, type PlanName, serviceToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const KEY = 'sk-the-key-of-the-model';

let model: ModelServer;
let stack: StackProcesses;

beforeAll(async () => {
  model = await ModelServer.start();
  closeAfter('file', () => model.close());
  stack = await startStack({
    gateways: 1,
    workers: 1,
    env: {
      AGENT_MODEL_URL: model.url,
      AGENT_MODEL_NAME: 'test-model',
      AGENT_MODEL_KEY: KEY,
      RUN_TIMEOUT_SECONDS: '6',
      MESSAGE_RATE_PER_MINUTE: '1000',
    },
  });
});

beforeEach(() => {
  model.requests.length = 0;
});

async function connect(transport: (typeof TRANSPORTS)[number] = 'ws', plan: PlanName = 'pro') {
  const { token, userId } = mintToken({ plan }, { stack: stack.addresses });
  const client = await openClient({ transport, url: nodeUrl(0, stack.addresses), token });
  await client.welcome();
  return { client, userId };
}

const types = ({ events }: SeenRun) => events.map(({ type }) => type);
const of = ({ events }: SeenRun, type: string) => events.filter((event) => event.type === type).map((e) => e.fields);
const text = (run: SeenRun) =>
  of(run, 'agent_thinking')
    .map(({ thought }) => thought)
    .join('');

async function failure(client: TestClient, fields: Fields = {}) {
  const run = await runToEnd(client, fields);
  expect(types(run).at(-1)).toBe('agent_failed');
  return of(run, 'agent_failed')[0]?.error as Fields;
}

describe.each(TRANSPORTS)('a run on a model over %s', (transport) => {
  it('B218 B221 B223 tells the text as it comes and completes with all of it', async () => {
    const pieces = Array.from({ length: 40 }, (_, i) => `word${i} `);
    model.script = () => ({ text: pieces, pieceMs: 20 });
    const { client } = await connect(transport);
    const watch = await Stopwatch.start();
    const run = await runToEnd(client);
    expect(types(run).join(' ')).toMatch(/^agent_started( agent_thinking){3,8} agent_completed$/);
    expect(text(run)).toBe(pieces.join(''));
    expect(new Set(of(run, 'agent_thinking').map(({ step }) => step))).toEqual(new Set([1]));
    expect(of(run, 'agent_completed')[0]).toMatchObject({ final_response: pieces.join('').trim(), tools_used: [] });
    const [first] = run.events;
    expect((first?.at ?? Number.NaN) - run.sentAt).toBeLessThan(watch.allow(1_000));
  });

  it('runs the tools that the model calls, several at once, and returns their results to it', async () => {
    model.script = (_request, at) =>
      at === 0
        ? {
            calls: [
              { name: 'system_health' },
              { name: 'analyze_workload', args: { hours: 48 } },
              { name: 'list_agents' },
            ],
          }
        : { text: ['All ', 'is ', 'well.'] };
    const { client } = await connect(transport);
    const run = await runToEnd(client);
    expect(types(run).join(' ')).toMatch(
      /^agent_started agent_thinking( tool_executing){3}( tool_completed){3}( agent_thinking)+ agent_completed$/,
    );
    expect(of(run, 'tool_executing').map(({ tool_name, arguments: args }) => [tool_name, args])).toEqual([
      ['system_health', {}],
      ['analyze_workload', { hours: 48 }],
      ['list_agents', {}],
    ]);
    const completed = of(run, 'tool_completed');
    expect(completed.map(({ tool_call_id }) => tool_call_id).toSorted()).toEqual(
      of(run, 'tool_executing')
        .map(({ tool_call_id }) => tool_call_id)
        .toSorted(),
    );
    const [, second] = model.requests;
    const seen = second?.body.messages.slice(2) ?? [];
    expect(seen.map(({ role }) => role)).toEqual(['assistant', 'tool', 'tool', 'tool']);
    expect(seen.slice(1).map(({ tool_call_id }) => tool_call_id)).toEqual(['call_0_abc', 'call_1_abc', 'call_2_abc']);
    expect(JSON.parse(seen[2]?.content ?? '')).toMatchObject({ result: { period_hours: 48 } });
    expect(of(run, 'agent_completed')[0]).toMatchObject({ final_response: 'All is well.', summary: 'All is well.' });
  });
});

describe('what a model receives', () => {
  it('is the instructions, the tools of the agent with their schemas, and the message', async () => {
    model.script = () => ({ text: ['Yes.'] });
    const { client } = await connect();
    await runToEnd(client, { agent: 'usage_agent', message: 'What do I spend?' });
    const [request] = model.requests;
    expect(request).toMatchObject({ path: '/v1/chat/completions', authorization: `Bearer ${KEY}` });
    expect(request?.body).toMatchObject({ model: 'test-model', stream: true, tool_choice: 'auto', max_tokens: 2048 });
    expect(request?.body.tools?.map((tool) => tool.function)).toMatchObject([
      { name: 'analyze_workload', parameters: { properties: { hours: { maximum: 720 } } } },
      { name: 'get_agent_status' },
    ]);
    expect(request?.body.messages).toEqual([
      { role: 'system', content: expect.stringContaining('usage and what it costs') },
      { role: 'user', content: 'What do I spend?' },
    ]);
  });

  it('is the thread’s earlier messages, of this user and this thread only', async () => {
    model.script = (_request, at) => ({ text: [`answer ${at}`] });
    const { client } = await connect();
    const { client: stranger } = await connect();
    await runToEnd(client, { message: 'first', thread_id: 'thread_a' });
    await runToEnd(client, { message: 'elsewhere', thread_id: 'thread_b' });
    await runToEnd(stranger, { message: 'not yours', thread_id: 'thread_a' });
    await runToEnd(client, { message: 'second', thread_id: 'thread_a' });
    expect(model.requests.at(-1)?.body.messages.slice(1)).toEqual([
      { role: 'user', content: 'first' },
      { role: 'assistant', content: 'answer 0' },
      { role: 'user', content: 'second' },
    ]);
  });

  it('is at most twenty earlier messages and 16 KiB of them, the latest', async () => {
    model.script = () => ({ text: ['ok.'] });
    const { client } = await connect('ws', 'developer');
    for (let i = 0; i < 12; i++) await runToEnd(client, { message: `m${i}`, thread_id: 'thread_many' });
    const { messages } = model.requests.at(-1)?.body ?? { messages: [] };
    expect(messages).toHaveLength(22);
    expect(messages[1]).toEqual({ role: 'user', content: 'm1' });
    for (const letter of ['a', 'b', 'c']) {
      await runToEnd(client, { message: letter.repeat(7_000), thread_id: 'thread_large' });
    }
    const large = model.requests.at(-1)?.body.messages.slice(1) ?? [];
    expect(large.map(({ content }) => content?.[0])).toEqual(['a', 'o', 'b', 'o', 'c']);
    await runToEnd(client, { message: 'd', thread_id: 'thread_large' });
    const larger = model.requests.at(-1)?.body.messages.slice(1) ?? [];
    // An answer whose question is out of bounds is left out with it.
    expect(larger.map(({ content }) => content?.[0])).toEqual(['b', 'o', 'c', 'o', 'd']);
  });

  it('is a refusal where the plan does not include the tool, with what would', async () => {
    model.script = (_request, at) => (at === 0 ? { calls: [{ name: 'system_health' }] } : { text: ['Not for you.'] });
    const { client } = await connect('ws', 'free');
    const run = await runToEnd(client);
    expect(of(run, 'tool_completed')).toMatchObject([{ success: false, error: { code: 'PERMISSION_DENIED' } }]);
    const refusal = JSON.parse(model.requests[1]?.body.messages.at(-1)?.content ?? '');
    expect(refusal.error).toMatchObject({ code: 'PERMISSION_DENIED', upgrade_path: 'pro' });
    expect(of(run, 'agent_completed')).toHaveLength(1);
  });

  it.each([
    ['arguments that are no JSON', { name: 'system_health', args: '{"hours": ' }, 'FORMAT_ERROR', 0],
    ['arguments that are no object', { name: 'system_health', args: '[1]' }, 'FORMAT_ERROR', 0],
    ['arguments of 9,000 characters', { name: 'system_health', args: { a: 'x'.repeat(9_000) } }, 'FORMAT_ERROR', 0],
    ['arguments that the schema refuses', { name: 'analyze_workload', args: { hours: 'many' } }, 'FORMAT_ERROR', 1],
    ['a tool that does not exist', { name: 'rm_rf' }, 'TOOL_NOT_FOUND', 0],
    ['a tool of another agent', { name: 'create_thread' }, 'TOOL_NOT_FOUND', 0],
  ])('is an error for %s, and the run goes on', async (_label, call, code, seen) => {
    model.script = (_request, at) => (at === 0 ? { calls: [call] } : { text: ['I see.'] });
    const { client } = await connect();
    const run = await runToEnd(client, { agent: code === 'TOOL_NOT_FOUND' ? 'usage_agent' : 'triage_agent' });
    expect(of(run, 'tool_executing')).toHaveLength(seen);
    const [assistant, result] = model.requests[1]?.body.messages.slice(-2) ?? [];
    expect(JSON.parse(result?.content ?? '')).toMatchObject({ error: { code } });
    const [sent] = (assistant?.tool_calls ?? []) as { function: { arguments: string } }[];
    expect(() => JSON.parse(sent?.function.arguments ?? '')).not.toThrow();
    expect(of(run, 'agent_completed')).toMatchObject([{ final_response: 'I see.' }]);
  });
});

describe('the bill of a run on a model', () => {
  it('has a record for every step, with its tokens by kind, named by an event', async () => {
    model.script = (_request, at) =>
      at === 0
        ? { calls: [{ name: 'list_agents' }], usage: { prompt_tokens: 1_200, completion_tokens: 30 } }
        : { text: ['Three ', 'agents.'], usage: { prompt_tokens: 1_500, completion_tokens: 250 } };
    const { client, userId } = await connect();
    const run = await runToEnd(client);
    await until(async () => (await billedRecords(userId, stack.addresses)).length === 3, { timeoutMs: 10_000 });
    const billed = await billedRecords(userId, stack.addresses);
    const steps = billed.filter(({ tool }) => tool === 'model:test-model');
    expect(steps).toMatchObject([
      { status: 'success', units: 2, units_by_kind: { input_tokens: 1_200, output_tokens: 30 }, run_id: run.runId },
      { status: 'success', units: 3, units_by_kind: { input_tokens: 1_500, output_tokens: 250 }, run_id: run.runId },
    ]);
    expect(steps.some((record) => 'estimated' in record)).toBe(false);
    const named = run.events.flatMap(({ fields }) => (fields.usage_record_id ? [fields.usage_record_id] : []));
    expect(named.toSorted()).toEqual(billed.map(({ id }) => id).toSorted());
  });

  it('has only records of the documented form, adds up in the tallies, and is proved by verify', async () => {
    model.script = () => ({ text: ['Yes.'], usage: { prompt_tokens: 1_000, completion_tokens: 1_000 } });
    const { client, userId } = await connect();
    await runToEnd(client);
    await until(async () => (await billedRecords(userId, stack.addresses)).length === 1, { timeoutMs: 10_000 });
    const documented = z.strictObject(Record.shape);
    for (const record of await billedRecords(undefined, stack.addresses)) documented.parse(record);
    const headers = { authorization: `Bearer ${await serviceToken('usage:read', { stack: stack.addresses })}` };
    const ask = async (path: string) =>
      (await fetch(`${nodeUrl(0, stack.addresses)}/v1/usage/${path}`, { headers })).json();
    expect(await ask(`tallies?user_id=${userId}&group_by=tool`)).toMatchObject({
      tallies: [{ tool: 'model:test-model', executions: 1, succeeded: 1, units: 5 }],
    });
    expect(await ask('verify')).toMatchObject({ ok: true, problem: null });
    client.send('usage_summary', {});
    const { fields } = await client.waitFor('usage_summary');
    expect(fields.today).toMatchObject({ calls: 1, units: 5 });
  });

  it('estimates the tokens of a model that does not count them, and says so', async () => {
    model.script = () => ({ text: ['x'.repeat(400)], usage: null });
    const { client, userId } = await connect();
    await runToEnd(client);
    await until(async () => (await billedRecords(userId, stack.addresses)).length === 1, { timeoutMs: 10_000 });
    const [record] = await billedRecords(userId, stack.addresses);
    expect(record).toMatchObject({ estimated: true, units_by_kind: { output_tokens: 100 } });
  });
});

describe('a run on a model that is stopped', () => {
  it('by agent_cancel ends the request to the model at once, and records what was said at no price', async () => {
    model.script = () => ({ text: ['I begin ', 'to say ', 'something'], fault: 'hang' });
    const { client, userId } = await connect();
    const request_id = freshRequestId();
    client.send('agent_request', { message: 'go', request_id });
    const { run_id } = (await client.waitFor('agent_accepted')).fields;
    await client.waitFor('agent_thinking');
    const watch = await Stopwatch.start();
    client.send('agent_cancel', { run_id });
    await client.waitFor('agent_cancelled');
    await model.requests[0]?.closed;
    expect(watch.ms).toBeLessThan(watch.allow(900));
    expect(model.requests[0]?.aborted).toBe(true);
    expect(client.events.filter(isTerminal)).toHaveLength(1);
    expect(seqs(client.events)).toEqual(upTo(seqs(client.events).length));
    await until(async () => (await billedRecords(userId, stack.addresses)).length === 1, { timeoutMs: 10_000 });
    expect(await billedRecords(userId, stack.addresses)).toMatchObject([
      { status: 'cancelled', units: 0, tool: 'model:test-model', estimated: true },
    ]);
  });

  it('by its deadline fails with RUN_TIMEOUT, and the request to the model ends with it', async () => {
    model.script = () => ({ text: ['Slowly '], fault: 'hang' });
    const { client } = await connect();
    expect(await failure(client)).toMatchObject({ code: 'RUN_TIMEOUT', retryable: true });
    await model.requests[0]?.closed;
    expect(model.requests[0]?.aborted).toBe(true);
  });
});

describe('a model that cannot be used', () => {
  it('fails the run with a neutral text, and key and response are in no log', async () => {
    model.script = () => ({ status: 401 });
    const { client } = await connect();
    const error = await failure(client);
    expect(error).toEqual({
      code: 'INTERNAL_ERROR',
      message: 'The model cannot be used: its endpoint refuses the request. Contact the operator.',
      retryable: false,
      reason: 'authentication',
    });
    expect(model.requests).toHaveLength(1);
    // The run's event can arrive before the line that the worker has written to its pipe.
    const output = () => stack.workers[0]?.output ?? '';
    await until(() => output().includes('the model answered HTTP 401'), { timeoutMs: 5_000 });
    expect(output()).not.toMatch(/sk-/);
  });

  it('leads nowhere by a redirect', async () => {
    model.script = () => ({ status: 307, headers: { location: `${model.url}/elsewhere` } });
    const { client } = await connect();
    expect(await failure(client)).toMatchObject({ code: 'INTERNAL_ERROR' });
    expect(model.requests).toHaveLength(1);
  });

  it('leaves the health of the worker as it is', async () => {
    expect((await fetch(`${stack.workers[0]?.url}/health/ready`)).status).toBe(200);
  });
});
