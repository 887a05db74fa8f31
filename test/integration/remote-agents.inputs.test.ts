import { TaskState } from '@a2a-js/sdk';
import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import type { InputAnswer } from '../../src/protocol/input.ts';
import type { Execution } from '../../src/runs/run-executor.ts';
import { A2aServer } from '../support/a2a-server.ts';
import { AgentServer } from '../support/agent-server.ts';
import type { Accepted } from '../support/model-runs.ts';
import { closeAfter } from '../support/open-resources.ts';
import { RemoteRuns } from '../support/remote-runs.ts';
import { until } from '../support/until.ts';

let server: AgentServer;
let a2a: A2aServer;
let runs: RemoteRuns;

beforeAll(async () => {
  server = await AgentServer.start();
  a2a = await A2aServer.start();
  for (const one of [server, a2a.server]) closeAfter('file', () => one.close());
  runs = await RemoteRuns.start();
});

beforeEach(() => {
  server.requests.length = 0;
});

type Row = Readonly<Record<string, unknown>>;
type Lines = readonly Readonly<Record<string, unknown>>[];
const LOCATE = { name: 'locate', description: 'Where the user is.', parameters: { type: 'object', properties: {} } };
const LOCATION = { action: 'accept', content: { result: 'Oslo' } } as const;
const QUESTION = { type: 'object', properties: { days: { type: 'integer' } }, required: ['days'] };

const rowOf = {
  http: { kind: 'http', url: '', secret: '$' + '{AGENT_SECRET}', tools: ['count'] },
  agui: { kind: 'agui', url: '', tools: ['count'] },
  responses: { kind: 'responses', url: '', tools: ['count'] },
  stateless: { kind: 'responses', url: '', tools: ['count'], background: false },
};
type Kind = keyof typeof rowOf;
const row = (kind: Kind): Row => ({ ...rowOf[kind], url: server.url });

/** Answers request n with the nth list of events, in the framing of the kind. */
function serve(kind: Kind, ...rounds: readonly Lines[]): void {
  server.serve = ({ path }, response, at) => {
    if (path.endsWith('/cancel')) return void response.writeHead(200).end('{}');
    const isLines = kind === 'http';
    response.writeHead(200, { 'content-type': isLines ? 'application/x-ndjson' : 'text/event-stream' });
    const events = (rounds[at] ?? []).map((event) => JSON.stringify(event));
    response.end(events.map((event) => (isLines ? `${event}\n` : `data: ${event}\n\n`)).join(''));
  };
}

const execute = async (one: Row, accepted: Accepted): Promise<Execution> =>
  runs.executor(one, { count: async () => ({ counted: 4 }) }).execute(await runs.claim(one, accepted));

/** Executes a run up to its wait, answers, and executes it to its end as another worker does. */
async function answered(one: Row, answers: Readonly<Record<string, InputAnswer>>) {
  const accepted = await runs.accept(one, { clientTools: [LOCATE] });
  expect(await execute(one, accepted)).toBe('waiting');
  await runs.answer(one, accepted, answers);
  const end = await execute(one, accepted);
  const events = await runs.events(accepted);
  return { end, events, accepted, last: events.at(-1) };
}

const typesOf = (events: readonly { readonly type: string }[]) => events.map(({ type }) => type);

const started = { type: 'RUN_STARTED', threadId: 't', runId: 'r' };
const finished = (outcome?: object) => ({
  type: 'RUN_FINISHED',
  threadId: 't',
  runId: 'r',
  ...(outcome && { outcome }),
});
const message = (delta: string): Lines => [{ type: 'TEXT_MESSAGE_CHUNK', messageId: `m-${delta}`, delta }];
const call = (id: string, toolCallName: string, delta: string): Lines => [
  { type: 'TOOL_CALL_START', toolCallId: id, toolCallName },
  { type: 'TOOL_CALL_ARGS', toolCallId: id, delta },
  { type: 'TOOL_CALL_END', toolCallId: id },
];
const responseOf = (id: string, output: Lines) => [
  { type: 'response.created', sequence_number: 0, response: { id, status: 'in_progress' } },
  { type: 'response.completed', sequence_number: 1, response: { id, status: 'completed', output } },
];
const functionCall = (id: string, name: string) => ({
  type: 'function_call',
  id: `fc_${id}`,
  call_id: id,
  name,
  arguments: '{"near":1}',
});
const textOf = (text: string) => ({ type: 'message', role: 'assistant', content: [{ type: 'output_text', text }] });

/** Two rounds per kind: the agent calls a tool of the user's page, and one of Tollgate, and answers. */
const ROUNDS: Readonly<Record<Kind, readonly Lines[]>> = {
  http: [
    [
      { type: 'text', delta: 'I look.' },
      {
        type: 'wait',
        requests: [
          { id: 'c1', kind: 'tool', tool: 'locate', arguments: { near: 1 } },
          { id: 'c2', kind: 'tool', tool: 'count' },
        ],
        state: { step: 2 },
      },
    ],
    [{ type: 'done', final_response: 'In Oslo.' }],
  ],
  agui: [
    [started, ...message('I look.'), ...call('c1', 'locate', '{"near":1}'), ...call('c2', 'count', '{}'), finished()],
    [started, ...message('In Oslo.'), finished()],
  ],
  responses: [responseOf('resp_1', [functionCall('c1', 'locate')]), responseOf('resp_2', [textOf('In Oslo.')])],
  stateless: [responseOf('resp_1', [functionCall('c1', 'locate')]), responseOf('resp_2', [textOf('In Oslo.')])],
};

describe.each(['http', 'agui', 'responses', 'stateless'] as const)('an agent of kind %s', (kind) => {
  it('calls a tool of the page: the run waits without a worker, and continues with the result', async () => {
    serve(kind, ...ROUNDS[kind]);
    const { end, events, last } = await answered(row(kind), { locate: LOCATION });
    expect([end, last]).toMatchObject(['completed', { final_response: 'In Oslo.' }]);
    expect(server.requests).toHaveLength(2);
    expect(JSON.stringify(server.requests[0]?.body)).toContain('Where the user is.');
    expect(JSON.stringify(server.requests[1]?.body)).toContain('Oslo');
    const ofClient = events.filter(({ client }) => client === true);
    expect(ofClient).toMatchObject([
      { type: 'tool_executing', tool_name: 'locate', arguments: { near: 1 } },
      { type: 'tool_completed', tool_name: 'locate', success: true, result: 'Oslo', usage_record_id: null },
    ]);
    const ids = events.flatMap(({ type, tool_call_id }) => (type === 'tool_executing' ? [tool_call_id] : []));
    expect(new Set(ids).size).toBe(ids.length);
    expect(events.find(({ type }) => type === 'input_requested')).toMatchObject({
      kind: 'tool',
      tool_name: 'locate',
      tool_call_id: ids[0],
      arguments: { near: 1 },
    });
  });

  it('is not asked twice when the worker dies behind the answer', async () => {
    serve(kind, ...ROUNDS[kind]);
    const one = row(kind);
    const accepted = await runs.accept(one, { clientTools: [LOCATE] });
    expect(await execute(one, accepted)).toBe('waiting');
    await runs.answer(one, accepted, { locate: LOCATION });
    // The second request is sent, and the response never arrives.
    server.serve = () => undefined;
    void runs.executor(one).execute(await runs.claim(one, accepted));
    await until(() => server.requests.length === 2);
    expect(await execute(one, accepted)).toBe('failed');
    expect(server.requests).toHaveLength(2);
    expect((await runs.events(accepted)).at(-1)).toMatchObject({ error: { code: 'AGENT_INTERRUPTED' } });
  });
});

describe('an agent of kind http', () => {
  it('asks its user for an approval, a choice and a form, and gets the answers with its own state', async () => {
    const requests = [
      { id: 'a', kind: 'approval', message: 'May I?' },
      { id: 'b', kind: 'choice', message: 'Which?', choices: ['x', 'y'] },
      { id: 'c', kind: 'form', message: 'How long?', schema: QUESTION },
    ];
    serve('http', [{ type: 'wait', requests, state: { step: 2 } }], [{ type: 'done', final_response: 'Done.' }]);
    const { end } = await answered(row('http'), {
      approval: { action: 'accept' },
      choice: { action: 'accept', content: { choice: 'y' } },
      form: { action: 'decline' },
    });
    expect(end).toBe('completed');
    expect(server.requests[0]?.body).toMatchObject({ continued: null, client_tools: [LOCATE] });
    expect(server.requests[1]?.body.continued).toEqual({
      state: { step: 2 },
      answers: [
        { id: 'a', action: 'accept' },
        { id: 'b', action: 'accept', content: { choice: 'y' } },
        { id: 'c', action: 'decline' },
      ],
    });
  });

  it.each([
    ['no requests', { type: 'wait', requests: [] }],
    ['an unknown kind', { type: 'wait', requests: [{ id: 'a', kind: 'guess', message: 'x' }] }],
    [
      'a form that is none',
      { type: 'wait', requests: [{ id: 'a', kind: 'form', message: 'x', schema: { type: 'array' } }] },
    ],
  ])('ends its run if its line "wait" has %s', async (_name, line) => {
    serve('http', [line]);
    const { end, events } = await runs.run(row('http'));
    expect([end, events.at(-1)]).toMatchObject(['failed', { error: { code: 'AGENT_FAILED', reason: 'invalid' } }]);
  });
});

describe('an agent of kind agui', () => {
  it.each([
    [
      'an approval',
      { type: 'object', properties: { approved: { type: 'boolean' } } },
      'approval',
      { action: 'accept' },
      { approved: true },
    ],
    [
      'a refused approval',
      { type: 'object', properties: { approved: { type: 'boolean' } } },
      'approval',
      { action: 'decline' },
      { approved: false },
    ],
    ['a form', QUESTION, 'form', { action: 'accept', content: { days: 3 } }, { days: 3 }],
    ['a text', undefined, 'form', { action: 'accept', content: { answer: 'Soon.' } }, 'Soon.'],
    ['a refusal', QUESTION, 'form', { action: 'cancel' }, undefined],
  ] as const)('interrupts its run, and is resumed with %s', async (_name, responseSchema, kind, answer, payload) => {
    const interrupts = [{ id: 'i1', reason: 'ask', message: 'Shall I?', ...(responseSchema && { responseSchema }) }];
    serve(
      'agui',
      [started, ...message('Well. '), ...call('c2', 'count', '{}'), finished({ type: 'interrupt', interrupts })],
      [started, ...message('Done.'), finished()],
    );
    const { end, events, last } = await answered(row('agui'), { [kind]: answer });
    expect([end, last]).toMatchObject(['completed', { final_response: 'Done.' }]);
    expect(events.find(({ type }) => type === 'input_requested')).toMatchObject({ kind, message: 'Shall I?' });
    const { resume, messages } = server.requests[1]?.body ?? {};
    const entry = payload === undefined ? { status: 'cancelled' } : { status: 'resolved', payload };
    expect(resume).toEqual([{ interruptId: 'i1', ...entry }]);
    expect(messages).toMatchObject([{}, { role: 'assistant' }, { role: 'tool', toolCallId: 'c2' }]);
    expect(typesOf(events).filter((type) => type === 'tool_executing')).toHaveLength(1);
  });
});

describe('an agent of kind a2a', () => {
  const one = () => ({ kind: 'a2a', url: `${a2a.server.origin}/rpc` });
  const ask = (text: string, state = TaskState.TASK_STATE_INPUT_REQUIRED) => ({ state, text });
  const text = (answer: string) => ({ form: { action: 'accept', content: { answer } } }) as const;

  it.each([true, false])('asks its user twice, in one task, with streaming %s', async (streaming) => {
    a2a.reset({ text: ['Done.'], asks: [ask('How long?'), ask('Really?')], streaming });
    const accepted = await runs.accept(one());
    expect(await execute(one(), accepted)).toBe('waiting');
    await runs.answer(one(), accepted, text('Three days.'));
    expect(await execute(one(), accepted)).toBe('waiting');
    await runs.answer(one(), accepted, text('Yes.'));
    expect(await execute(one(), accepted)).toBe('completed');
    const events = await runs.events(accepted);
    expect(events.at(-1)).toMatchObject({ final_response: 'Done.' });
    expect(events.filter(({ type }) => type === 'input_requested')).toMatchObject([
      { kind: 'form', message: 'How long?' },
      { kind: 'form', message: 'Really?' },
    ]);
    const messages = a2a.userMessages.map((json) => JSON.parse(json));
    const texts = a2a.userMessages.map((json) => /"text":"([^"]*)"/.exec(json)?.[1]);
    expect(texts).toEqual(['Count.', 'Three days.', 'Yes.']);
    expect(new Set(messages.map(({ taskId }) => taskId)).size).toBe(1);
  });

  it('continues after a connection that broke behind the answer, and is answered once', async () => {
    a2a.reset({ text: ['A', 'B'], asks: [ask('How long?')], holdAt: 1 });
    const accepted = await runs.accept(one());
    expect(await execute(one(), accepted)).toBe('waiting');
    await runs.answer(one(), accepted, text('Three days.'));
    const dying = runs.dyingLog(1);
    void runs.executor(one(), { log: dying.log }).execute(await runs.claim(one(), accepted));
    await until(() => a2a.userMessages.length === 2);
    const executed = execute(one(), accepted);
    await until(() => a2a.methods.filter((method) => method === 'GetTask').length >= 2);
    a2a.release();
    expect(await executed).toBe('completed');
    expect((await runs.events(accepted)).at(-1)).toMatchObject({ final_response: 'AB' });
    expect(a2a.userMessages).toHaveLength(2);
  });

  it('gets the authorization of its user as an approval', async () => {
    a2a.reset({ text: ['Done.'], asks: [ask('Log in at example.com.', TaskState.TASK_STATE_AUTH_REQUIRED)] });
    const { end, events } = await answered(one(), { approval: { action: 'accept' } });
    expect(end).toBe('completed');
    expect(events.find(({ type }) => type === 'input_requested')).toMatchObject({
      kind: 'approval',
      message: expect.stringContaining('Log in at example.com.'),
    });
  });

  it.each([
    ['cancel', TaskState.TASK_STATE_INPUT_REQUIRED, 'form', 'input_required'],
    ['decline', TaskState.TASK_STATE_AUTH_REQUIRED, 'approval', 'auth_required'],
  ] as const)('is cancelled, and the run ends, after %s', async (action, state, kind, reason) => {
    a2a.reset({ text: ['Done.'], asks: [ask('Well?', state)] });
    const { end, last } = await answered(one(), { [kind]: { action } });
    expect([end, last]).toMatchObject(['failed', { error: { code: 'AGENT_INPUT_REQUIRED', reason } }]);
    await until(() => a2a.methods.includes('CancelTask'));
  });

  it('receives the refusal of its user, and goes on', async () => {
    a2a.reset({ text: ['Done.'], asks: [ask('Well?')] });
    const { end } = await answered(one(), { form: { action: 'decline' } });
    expect(end).toBe('completed');
    expect(a2a.userMessages[1]).toContain('declines');
  });
});
