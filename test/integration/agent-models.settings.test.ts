import { afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import type { ModelRow } from '../../src/catalogue/model-settings.ts';
import { catalogues, toolRow } from '../support/catalogues.ts';
import { silentLogger } from '../support/core.ts';
import { ModelRuns } from '../support/model-runs.ts';
import { ModelServer, type ScriptedReply } from '../support/model-server.ts';
import { closeAfter } from '../support/open-resources.ts';
import { freshUserId } from '../support/tokens.ts';

const ANSWER: ScriptedReply = { text: ['All is well.'] };
const CALL: ScriptedReply = { calls: [{ name: 'count' }] };
const FAST = { first_chunk_seconds: 1.5, silence_seconds: 1.5, loading_seconds: 0 };

let model: ModelServer;
let second: ModelServer;
let runs: ModelRuns;

beforeAll(async () => {
  [model, second] = [await ModelServer.start(), await ModelServer.start()];
  closeAfter('file', () => model.close());
  closeAfter('file', () => second.close());
  runs = await ModelRuns.start(model);
});

beforeEach(() => {
  for (const server of [model, second]) {
    server.requests.length = 0;
    server.script = () => ANSWER;
  }
});

const logged: (readonly [object, string])[] = [];
const logger = Object.assign(Object.create(silentLogger) as typeof silentLogger, {
  warn: (fields: object, text: string) => void logged.push([fields, text]),
  error: (fields: object, text: string) => void logged.push([fields, text]),
  child: () => logger,
});
/** The fields of the log lines with a text. */
const lines = (text: string) => logged.flatMap(([fields, one]) => (one === text ? [fields] : []));
afterEach(() => {
  logged.length = 0;
});

/** Both servers as endpoints of one model; the first one gets all requests while it works. */
const both = (row: ModelRow = {}): ModelRow => ({
  ...FAST,
  ...row,
  endpoints: [
    { url: model.url, weight: 1 },
    { url: second.url, weight: 0 },
  ],
});
const requests = () => [model.requests.length, second.requests.length];

describe('the settings of a model', () => {
  it('are sent as they are, and nothing that is unset', async () => {
    await runs.run();
    const sent = Object.keys(model.requests[0]?.body ?? {}).toSorted();
    expect(sent).toEqual(['max_tokens', 'messages', 'model', 'stream', 'stream_options', 'tool_choice', 'tools']);
    await runs.run({
      settings: {
        temperature: 0,
        top_p: 0.5,
        reasoning_effort: 'low',
        response_format: { type: 'text' },
        parallel_tool_calls: false,
        max_output_tokens: 99,
        output_parameter: 'max_completion_tokens',
        stream_options: false,
        extra_body: { chat_template_kwargs: { enable_thinking: false } },
        query: { 'api-version': '1' },
      },
    });
    const [, { path, body } = {}] = model.requests;
    expect(path).toBe('/v1/chat/completions?api-version=1');
    expect(body).toMatchObject({
      temperature: 0,
      top_p: 0.5,
      reasoning_effort: 'low',
      response_format: { type: 'text' },
      parallel_tool_calls: false,
      max_completion_tokens: 99,
      chat_template_kwargs: { enable_thinking: false },
    });
    expect(Object.keys(body ?? {})).not.toEqual(expect.arrayContaining(['stream_options']));
  });

  it.each([
    ['developer', ['developer', 'user']],
    ['user', ['user']],
  ] as const)('give the instructions the role %s', async (instructions_role, roles) => {
    await runs.run({ settings: { instructions_role } });
    expect(model.requests[0]?.body.messages.map(({ role }) => role)).toEqual(roles);
    expect(model.requests[0]?.body.messages.at(-1)?.content).toContain('Count.');
  });

  it('bound the attempts, the steps and the calls of a step', async () => {
    model.script = () => ({ status: 500 });
    await runs.run({ settings: { ...FAST, attempts: 2 } });
    expect(model.requests).toHaveLength(2);
    model.requests.length = 0;
    model.script = ({ body }) =>
      body.tool_choice === 'none' ? ANSWER : { calls: [CALL, CALL].flatMap((c) => c.calls ?? []) };
    const { events } = await runs.run({ settings: { steps: 3, calls_per_step: 1 } });
    expect(model.requests).toHaveLength(3);
    expect(events.filter(({ type }) => type === 'tool_completed')).toHaveLength(2);
  });

  it('keep reasoning from clients with show_reasoning: false, and still send it back', async () => {
    const reasoned = { delta: { reasoning_content: 'Hmm.' } };
    const call = { delta: { tool_calls: [{ index: 0, id: 'c', function: { name: 'count', arguments: '{}' } }] } };
    model.script = (_request, at) =>
      at === 0 ? { stream: [{ choices: [reasoned] }, { choices: [call] }, 'data: [DONE]\n\n'] } : ANSWER;
    const { events } = await runs.run({ settings: { show_reasoning: false } });
    expect(events.some(({ type }) => type === 'agent_reasoning')).toBe(false);
    expect(model.requests[1]?.body.messages.at(-2)).toMatchObject({ reasoning_content: 'Hmm.' });
    model.requests.length = 0;
    await runs.run({ settings: { send_reasoning: false } });
    expect(model.requests[1]?.body.messages.at(-2)).not.toHaveProperty('reasoning_content');
  });

  it('remember a refused parameter, and log its name once', async () => {
    const refused: ScriptedReply = {
      status: 400,
      body: { error: { param: 'temperature', code: 'unsupported_value' } },
    };
    model.script = ({ body }) => ('temperature' in body ? refused : body.messages.length < 4 ? CALL : ANSWER);
    await runs.run({ settings: { temperature: 0.3 }, logger });
    expect(model.requests.map(({ body }) => 'temperature' in body)).toEqual([true, false, false]);
    expect(lines('model endpoint refuses a parameter')).toMatchObject([
      { parameter: 'temperature', code: 'unsupported_value' },
    ]);
  });

  it('leave out an output bound that a conversation leaves no room for, in this request only', async () => {
    const body = { error: { param: 'max_tokens', message: 'max_tokens is too large: at most 100.' } };
    model.script = (_request, at) => [{ status: 400, body }, CALL][at] ?? ANSWER;
    expect((await runs.run()).end).toBe('completed');
    const bounds = model.requests.map((one) => [one.body.max_tokens, one.body.max_completion_tokens]);
    expect(bounds).toEqual([
      [2_048, undefined],
      [undefined, undefined],
      [2_048, undefined],
    ]);
  });
});

describe('several endpoints of a model', () => {
  it.each<[string, ScriptedReply]>([
    ['HTTP 500', { status: 500 }],
    ['HTTP 401', { status: 401 }],
    ['HTTP 404', { status: 404 }],
    ['HTTP 503', { status: 503 }],
    ['silence', { fault: 'hang' }],
    ['a reset', { text: ['All '], fault: 'reset' }],
  ])('stand in for each other after %s', async (_label, fault) => {
    model.script = () => fault;
    const { end, events } = await runs.run({ settings: both() });
    expect(end).toBe('completed');
    expect(events.at(-1)?.final_response).toBe('All is well.');
    expect(requests()).toEqual([1, 1]);
  });

  it('are not asked in turn where the conversation is the reason', async () => {
    model.script = () => ({ status: 400, body: { error: { code: 'context_length_exceeded', message: 'too long' } } });
    const { events } = await runs.run({ settings: both() });
    expect(requests()).toEqual([1, 0]);
    expect(events.at(-1)?.error).toMatchObject({ reason: 'context_length', retryable: false });
  });

  it.each([
    [503, [1, 2]],
    [400, [2, 2]],
  ])('rest after HTTP %i only if the endpoint is the reason, also for other runs', async (status, seen) => {
    model.script = () => ({ status });
    const settings = both();
    const executor = runs.executor({ settings });
    for (let run = 0; run < 2; run++) {
      expect(await executor.execute(await runs.claim(await runs.accept()))).toBe('completed');
    }
    expect(requests()).toEqual(seen);
  });

  it('share one bound of attempts', async () => {
    model.script = () => ({ status: 500 });
    second.script = () => ({ status: 500 });
    const { end } = await runs.run({ settings: both({ attempts: 3 }) });
    expect(end).toBe('failed');
    expect(requests()).toEqual([2, 1]);
  });

  it('get requests by weight, and none with weight 0 while another works', async () => {
    const [a, b] = [
      { url: model.url, weight: 3 },
      { url: second.url, weight: 1 },
    ];
    for (let run = 0; run < 40; run++) await runs.run({ settings: { endpoints: [a, b] } });
    // A binomial draw of 40 with p = 1/4 is outside this range once in 100,000 times.
    expect(second.requests.length).toBeGreaterThan(0);
    expect(second.requests.length).toBeLessThan(24);
    second.requests.length = 0;
    for (let run = 0; run < 10; run++) await runs.run({ settings: both() });
    expect(second.requests).toHaveLength(0);
  });

  it('get back their own signatures only, and the run stays at the one that replied', async () => {
    const call = { index: 0, id: 'c', function: { name: 'count', arguments: '{}' }, extra_content: { signature: 's' } };
    const signed: ScriptedReply = { stream: [{ choices: [{ delta: { tool_calls: [call] } }] }, 'data: [DONE]\n\n'] };
    model.script = (_request, at) => (at === 0 ? signed : { status: 500 });
    await runs.run({ settings: both() });
    expect(requests()).toEqual([2, 1]);
    const calls = [model.requests[1], second.requests[0]].map((one) => one?.body.messages.at(-2)?.tool_calls);
    expect(calls).toMatchObject([[{ extra_content: { signature: 's' } }], [{ id: 'c' }]]);
    expect(calls[1]).not.toMatchObject([{ extra_content: {} }]);
  });
});

describe('what is sent to a model', () => {
  it('has user and assistant in turns after a run that failed', async () => {
    const userId = freshUserId();
    model.script = (_request, at) => (at === 0 ? { status: 400 } : ANSWER);
    expect((await runs.run({}, { userId })).end).toBe('failed');
    for (let run = 0; run < 2; run++) expect((await runs.run({}, { userId })).end).toBe('completed');
    const sent = model.requests.map(({ body }) => body.messages.map(({ role, content }) => [role[0], content]));
    expect(sent.map((messages) => messages.slice(1))).toEqual([
      [['u', 'Count.']],
      [['u', 'Count.\n\nCount.']],
      [
        ['u', 'Count.\n\nCount.'],
        ['a', 'All is well.'],
        ['u', 'Count.'],
      ],
    ]);
  });

  it('has tools in the form that endpoints accept; the operator reads what was changed, once', async () => {
    const anyOf = [{ properties: { a: { type: 'string' } }, required: ['a'] }, { properties: { b: {} } }];
    const tools = [
      toolRow({ name: 'count', description: 'd'.repeat(2_006), arguments: { type: 'object' } }),
      toolRow({
        name: 'other',
        arguments: { type: 'object', anyOf, $comment: 'x' },
      }),
    ];
    const adapted = await ModelRuns.start(model, catalogues({ tools }, 'file'));
    model.script = (_request, at) => (at === 0 ? CALL : ANSWER);
    await adapted.run({ logger });
    const offered = model.requests[0]?.body.tools?.map((tool) => tool.function) ?? [];
    expect(offered).toEqual([
      { name: 'count', description: `${'d'.repeat(1_023)}…`, parameters: { type: 'object', properties: {} } },
      {
        name: 'other',
        description: 'other',
        parameters: { type: 'object', properties: { a: { type: 'string' }, b: {} } },
      },
    ]);
    expect(lines('tool definition adapted to the model endpoint')).toMatchObject([
      { tool: 'count', rule: 'properties' },
      { tool: 'count', rule: 'description_length' },
      { tool: 'other', rule: 'top_level_combination', detail: 'anyOf' },
    ]);
  });

  it('has the text of a result beside an image, and the image only for a model that reads images', async () => {
    const data = Buffer.from(Array.from({ length: 40_000 }, (_, i) => (i * 7919) % 256)).toString('base64');
    const content = [
      { type: 'image', data, mimeType: 'image/png' },
      { type: 'text', text: 'The answer is 42.' },
    ];
    const count = async () => ({ content });
    for (const images of [false, true]) {
      model.requests.length = 0;
      model.script = (_request, at) => (at === 0 ? CALL : ANSWER);
      await runs.run({ settings: { images }, count });
      const [, next] = model.requests;
      const result = next?.body.messages.find(({ role }) => role === 'tool')?.content ?? '';
      expect(JSON.parse(result).result.content).toEqual([
        { type: 'text', text: '[image image/png, 40 KB]' },
        { type: 'text', text: 'The answer is 42.' },
      ]);
      const last = next?.body.messages.at(-1);
      expect(last?.role).toBe(images ? 'user' : 'tool');
      expect(JSON.stringify(last).includes(data)).toBe(images);
    }
  });
});

describe('the operator of a model', () => {
  it('reads at the start which tools are adapted, before any run', async () => {
    await runs.assembled(logger);
    expect(lines('tool definition adapted to the model endpoint')).toMatchObject([
      { endpoint: 'm', tool: 'count', rule: 'properties' },
      { endpoint: 'm', tool: 'other', rule: 'properties' },
    ]);
    expect(model.requests).toHaveLength(0);
  });

  it('reads reason, status, code and parameter of a fault, and no text of the endpoint', async () => {
    const error = { message: 'sk-secret', type: 'invalid_request_error', param: 'messages[0]', code: 'bad_role' };
    model.script = () => ({ status: 400, body: { error } });
    await runs.run({ logger });
    expect(lines('model request failed')).toMatchObject([
      { reason: 'request', status: 400, code: 'bad_role', param: 'messages[0]', endpoint: 'm' },
    ]);
    expect(JSON.stringify(logged)).not.toContain('sk-');
    const metrics = await runs.core.metrics.registry.metrics();
    expect(metrics).toMatch(/tollgate_model_requests_total\{model="m",result="refused",reason="request"\} [1-9]/);
  });
});
