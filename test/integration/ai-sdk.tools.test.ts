import { WorkflowChatTransport } from '@ai-sdk/workflow/client';
import { beforeAll, beforeEach, describe, expect, it, jest } from '@jest/globals';
import {
  type ChatTransport,
  DefaultChatTransport,
  lastAssistantMessageIsCompleteWithApprovalResponses,
  lastAssistantMessageIsCompleteWithToolCalls,
  type UIMessage,
  WebSocketChatTransport,
} from 'ai';
import { RunSuspended } from '../../src/runs/run-end.ts';
import type { RunLog } from '../../src/runs/run-log.ts';
import { cuttingFetch, TestChat } from '../support/ai-chat.ts';
import { openStream } from '../support/event-stream.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { callId, callPageTools, ScriptedWorker } from '../support/scripted-worker.ts';
import { useStack } from '../support/stack.ts';
import { type MintedToken, mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** Two gateways without a worker: the test appends the events of runs itself. */
const own = useStack({ gateways: 2, workers: 0 });
let worker: ScriptedWorker;

beforeAll(async () => {
  worker = await ScriptedWorker.start(own().addresses);
});
// The package logs each cut that it handles.
beforeEach(() => void jest.spyOn(console, 'error').mockImplementation(() => undefined));

const api = (node = 0) => `${nodeUrl(node, own().addresses)}/v1/chat`;
const user = () => mintToken({}, { stack: own().addresses });
const SCHEMA = { type: 'object', properties: { at: { type: 'integer' } } };
const LOCATE = { name: 'locate', description: 'Where the user is.', inputSchema: SCHEMA };
const TOOLS = [LOCATE, { name: 'confirm' }];

type Client = (me: MintedToken, fetcher?: typeof fetch, node?: number) => ChatTransport<UIMessage>;
const CLIENTS = {
  DefaultChatTransport({ token }, fetcher = fetch, node = 0) {
    const headers = { authorization: `Bearer ${token}` };
    return new DefaultChatTransport({ api: api(node), headers, fetch: fetcher, body: { tools: TOOLS } });
  },
  WorkflowChatTransport({ token }, fetcher = fetch) {
    const authorization = `Bearer ${token}`;
    return new WorkflowChatTransport({
      api: api(),
      fetch: fetcher,
      prepareSendMessagesRequest: ({ id, messages, trigger }) => ({
        body: { id, messages, trigger, tools: TOOLS },
        headers: { authorization, 'content-type': 'application/json' },
      }),
      prepareReconnectToStreamRequest: ({ api: url }) => ({ api: url, headers: { authorization } }),
    }) as ChatTransport<UIMessage>;
  },
  WebSocketChatTransport({ token }) {
    const protocols = ['jwt-auth', `jwt.${Buffer.from(token).toString('base64url')}`];
    const transport = new WebSocketChatTransport({ url: `${api()}/ws`, protocols, body: { tools: TOOLS } });
    closeAfter('test', () => transport.close());
    return transport;
  },
} satisfies Record<string, Client>;

const OUTPUTS: Readonly<Record<string, unknown>> = { locate: { city: 'Oslo' }, confirm: 'yes' };

/** A page as applications configure `useChat`, and the calls that it has executed. */
function pageOf(transport: ChatTransport<UIMessage>, messages: UIMessage[] = [], outputs = OUTPUTS) {
  const calls: string[] = [];
  const chat: TestChat = new TestChat({
    id: 'chat-1',
    transport,
    messages,
    sendAutomaticallyWhen: (state) =>
      lastAssistantMessageIsCompleteWithToolCalls(state) || lastAssistantMessageIsCompleteWithApprovalResponses(state),
    onToolCall({ toolCall: { toolName, toolCallId, dynamic } }) {
      // As the documentation of the AI SDK advises.
      if (dynamic) return;
      calls.push(toolCallId);
      const output = outputs[toolName];
      if (output !== undefined) void chat.addToolOutput({ tool: toolName, toolCallId, output });
    },
  });
  return { chat, calls };
}

/** A `fetch` that counts the messages that are sent. */
function countingFetch() {
  const seen = { sent: 0 };
  const counting: typeof fetch = (input, init) => {
    if (init?.method === 'POST') seen.sent += 1;
    return fetch(input, init);
  };
  return { fetch: counting, seen };
}

const runOf = ({ userId }: MintedToken) =>
  until(async () => (await worker.redis.zrange(worker.keys.user(userId).runs, '0', '0'))[0]);

/** A run up to its calls. */
async function waiting(me: MintedToken, ...tools: readonly string[]) {
  const runId = await runOf(me);
  const log = await worker.claim(me.userId, runId);
  await log.started();
  await log.modelText({ thought: 'Let me see.', step: 1 }, {});
  expect(await callPageTools(log, runId, 1, ...tools)).toBeUndefined();
  return runId;
}

/** Waits until the run has all of its answers. */
const answered = ({ userId }: MintedToken, runId: string) =>
  until(async () => {
    const { status, input_requests = [] } = await worker.runs.status(userId, runId);
    return status !== 'waiting' && input_requests.length === 0;
  });

/** The run after the results, as a worker continues it. @returns the outcomes */
async function continued(me: MintedToken, runId: string, ...tools: readonly string[]) {
  await answered(me, runId);
  const log = await worker.claim(me.userId, runId);
  await log.started();
  await log.modelText({ thought: 'Let me see.', step: 1 }, {});
  const outcomes = await callPageTools(log, runId, 1, ...tools);
  await log.modelText({ thought: 'In Oslo.', step: 2 }, {});
  await log.completed({ final_response: 'In Oslo.', summary: '' });
  return outcomes;
}

const answerOf = ({ messages }: TestChat) => messages.at(-1)?.parts.filter(({ type }) => type !== 'step-start');
const ended = (chat: TestChat) =>
  until(() => {
    const last = answerOf(chat)?.at(-1);
    return chat.status === 'ready' && last?.type === 'text' && last.text === 'In Oslo.';
  });
const tool = (name: string, output: unknown, state = 'output-available') => ({ type: `tool-${name}`, state, output });
const whole = (...tools: readonly object[]) => [
  { type: 'text', text: 'Let me see.' },
  ...tools,
  { type: 'text', text: 'In Oslo.' },
];

describe('the tools of a page, in a chat of the AI SDK', () => {
  it.each(Object.entries(CLIENTS))('are called, and their outputs continue the message: %s', async (_name, client) => {
    const me = user();
    const { chat, calls } = pageOf(client(me));
    const sent = chat.sendMessage({ text: 'Where am I?' });
    const runId = await waiting(me, 'locate', 'confirm');
    const stored = await worker.redis.hget(worker.keys.user(me.userId).run(runId), 'client_tools');
    expect(JSON.parse(stored ?? '')).toMatchObject([{ name: 'locate', parameters: SCHEMA }, { name: 'confirm' }]);
    expect(await continued(me, runId, 'locate', 'confirm')).toMatchObject([
      { success: true, result: { city: 'Oslo' }, usage_record_id: null },
      { success: true, result: 'yes' },
    ]);
    await Promise.all([sent, ended(chat)]);
    expect(calls).toEqual([callId(runId, 1), callId(runId, 2)]);
    expect(answerOf(chat)).toMatchObject(whole(tool('locate', { city: 'Oslo' }), tool('confirm', 'yes')));
    expect(chat.messages.map(({ role, id }) => (role === 'user' ? role : id))).toEqual(['user', runId]);
  });

  it('are called again after a cut and a reload, on another node, while they are open', async () => {
    const me = user();
    // The end of the response is lost behind the call: the page has executed it and does not send its output.
    const { fetch: fetcher, seen } = cuttingFetch({ after: 8, how: 'broken' });
    const first = pageOf(CLIENTS.DefaultChatTransport(me, fetcher));
    const sent = first.chat.sendMessage({ text: 'Where am I?' });
    const runId = await waiting(me, 'locate');
    await sent;
    expect([seen.wasCut, first.chat.status, first.calls]).toEqual([true, 'error', [callId(runId, 1)]]);
    const { chat, calls } = pageOf(CLIENTS.DefaultChatTransport(me, fetch, 1), first.chat.messages);
    const resumed = chat.resumeStream();
    await continued(me, runId, 'locate');
    await Promise.all([resumed, ended(chat)]);
    expect(calls).toEqual([callId(runId, 1)]);
    expect(answerOf(chat)).toMatchObject(whole(tool('locate', { city: 'Oslo' })));
  });

  it.each(['DefaultChatTransport', 'WebSocketChatTransport'] as const)(
    'are not called by a reload when they have been answered: %s',
    async (name) => {
      const me = user();
      const first = pageOf(CLIENTS[name](me));
      const sent = first.chat.sendMessage({ text: 'Where am I?' });
      const runId = await waiting(me, 'locate');
      await answered(me, runId);
      // The result is stored, and no worker has continued the run yet.
      const second = pageOf(CLIENTS[name](me));
      const resumed = second.chat.resumeStream();
      await continued(me, runId, 'locate');
      await Promise.all([sent, resumed]);
      const third = pageOf(CLIENTS[name](me));
      await third.chat.resumeStream();
      for (const { chat } of [second, third]) {
        expect(answerOf(chat)).toMatchObject(whole(tool('locate', { city: 'Oslo' })));
      }
      expect([second.calls, third.calls]).toEqual([[], []]);
    },
  );

  it('count once: the first of two pages wins, and the other shows its output', async () => {
    const me = user();
    const one = pageOf(CLIENTS.DefaultChatTransport(me), [], {});
    const sent = one.chat.sendMessage({ text: 'Where am I?' });
    const runId = await waiting(me, 'locate');
    await sent;
    const other = pageOf(CLIENTS.DefaultChatTransport(me), [], { locate: 'Bergen' });
    const resumed = other.chat.resumeStream();
    await answered(me, runId);
    await one.chat.addToolOutput({ tool: 'locate', toolCallId: callId(runId, 1), output: 'Oslo' });
    expect(await continued(me, runId, 'locate')).toMatchObject([{ result: 'Bergen' }]);
    await Promise.all([resumed, ended(one.chat)]);
    expect(answerOf(one.chat)).toMatchObject(whole(tool('locate', 'Bergen')));
  });

  it('report a failure, which the agent reads', async () => {
    const me = user();
    const { chat } = pageOf(CLIENTS.DefaultChatTransport(me), [], {});
    const sent = chat.sendMessage({ text: 'Where am I?' });
    const runId = await waiting(me, 'locate');
    await sent;
    const failed = { state: 'output-error', errorText: 'No permission.' } as const;
    await chat.addToolOutput({ tool: 'locate', toolCallId: callId(runId, 1), ...failed });
    expect(await continued(me, runId, 'locate')).toMatchObject([
      { success: false, error: { code: 'TOOL_FAILED', message: 'No permission.' } },
    ]);
    await ended(chat);
    expect(answerOf(chat)).toMatchObject(whole({ type: 'tool-locate', ...failed }));
  });

  it('are answered beside an approval of the same step, each with one request', async () => {
    const me = user();
    const { fetch: fetcher, seen } = countingFetch();
    const { chat } = pageOf(CLIENTS.DefaultChatTransport(me, fetcher));
    const sent = chat.sendMessage({ text: 'Where am I?' });
    const runId = await runOf(me);
    const guarded = { callId: callId(runId, 2), tool: 'cost_analyzer', args: {} };
    const named = { tool_name: guarded.tool, tool_call_id: guarded.callId, arguments: {} };
    const request = { kind: 'approval', message: 'May it?', ...named } as const;
    const ask = (log: RunLog) => log.requestInput('input_1', request, 60_000);
    const claim = async () => {
      const log = await worker.claim(me.userId, runId);
      await log.started();
      await log.modelText({ thought: 'Let me see.', step: 1 }, {});
      await log.toolExecuting(guarded);
      return log;
    };
    const first = await claim();
    // An agent announces concurrent calls before the first request.
    const called = callPageTools(first, runId, 1, 'locate');
    await expect(ask(first)).rejects.toBeInstanceOf(RunSuspended);
    expect(await called).toBeUndefined();
    await until(async () => (await worker.runs.status(me.userId, runId)).status === 'queued');
    const second = await claim();
    await expect(ask(second)).rejects.toBeInstanceOf(RunSuspended);
    expect(await callPageTools(second, runId, 1, 'locate')).toHaveLength(1);
    expect(await second.suspend(60_000)).toBe('waiting');
    await sent;
    expect([chat.status, seen.sent, answerOf(chat)?.slice(1)]).toMatchObject([
      ...['ready', 2],
      [{ state: 'approval-requested' }, { state: 'output-available', output: { city: 'Oslo' } }],
    ]);
    await chat.addToolApprovalResponse({ id: 'input_1', approved: true });
    await answered(me, runId);
    const third = await claim();
    expect(await ask(third)).toEqual({ action: 'accept' });
    await callPageTools(third, runId, 1, 'locate');
    await third.toolCompleted(guarded, { success: true, result: 12, duration_ms: 3, usage_record_id: 'usage_1' });
    await third.completed({ final_response: 'In Oslo.', summary: '' });
    await ended(chat);
    expect(answerOf(chat)).toMatchObject(whole(tool('cost_analyzer', 12), tool('locate', { city: 'Oslo' })));
    expect(seen.sent).toBe(3);
  });

  it('end with a run that is cancelled, and the page sends their late output once at most', async () => {
    const me = user();
    const { fetch: fetcher, seen } = countingFetch();
    const { chat } = pageOf(CLIENTS.DefaultChatTransport(me, fetcher), [], {});
    const sent = chat.sendMessage({ text: 'Where am I?' });
    const runId = await waiting(me, 'locate');
    await sent;
    await openStream(`${api()}/chat-1/stop`, { method: 'POST', token: me.token }).ended();
    await until(async () => (await worker.runs.status(me.userId, runId)).status === 'queued');
    await (await worker.claim(me.userId, runId)).cancelled();
    await chat.addToolOutput({ tool: 'locate', toolCallId: callId(runId, 1), output: 'Oslo' });
    const isEnded = () => answerOf(chat)?.at(-1);
    await until(() => chat.status === 'ready' && JSON.stringify(isEnded()).includes('The run has ended.'));
    expect(isEnded()).toMatchObject({ type: 'tool-locate', state: 'output-error', providerExecuted: true });
    expect(lastAssistantMessageIsCompleteWithToolCalls(chat)).toBe(false);
    expect(seen.sent).toBe(2);
  });
});

describe('POST /v1/chat with outputs of tools', () => {
  const send = (me: MintedToken, parts: readonly object[], metadata?: object) => {
    const body = { id: 'chat-1', messages: [{ id: 'm', role: 'assistant', parts, metadata }] };
    return openStream(api(1), { method: 'POST', token: me.token, body }).ended();
  };
  const part = (toolCallId: unknown, fields: object = {}) => {
    return { type: 'tool-locate', toolCallId, state: 'output-available', output: 'Oslo', ...fields };
  };
  const FIRST = 'messages.0.parts.0';

  it('stores only those of calls that the run of the message waits for', async () => {
    const me = user();
    const { chat } = pageOf(CLIENTS.DefaultChatTransport(me), [], {});
    const sent = chat.sendMessage({ text: 'Where am I?' });
    const runId = await runOf(me);
    const log = await worker.claim(me.userId, runId);
    await log.started();
    await log.toolExecuting({ callId: callId(runId, 2), tool: 'cost_analyzer', args: {} });
    expect(await callPageTools(log, runId, 1, 'locate')).toBeUndefined();
    await until(() => answerOf(chat)?.some(({ type }) => type === 'tool-locate'));
    const metadata = chat.messages.at(-1)?.metadata as object;
    const large = part(callId(runId, 1), { output: 'x'.repeat(65_536) });
    const refused = await Promise.all([
      send(me, [part(callId(runId, 2), { type: 'tool-cost_analyzer' })], metadata),
      send(me, [part(callId(runId, 3), { type: 'dynamic-tool' })], metadata),
      send(me, [part('call_of_a_page')], metadata),
      send(me, [part(undefined)], metadata),
      send(me, [part(callId(runId, 1))]),
      send(me, [large], metadata),
      send(me, [part(callId(runId, 1), { providerExecuted: true })], metadata),
      send(user(), [part(callId(runId, 1))], metadata),
    ]);
    expect(refused.map(({ status, json }) => [status, json.error])).toMatchObject([
      ...Array.from({ length: 4 }, () => [400, { code: 'FORMAT_ERROR', field: `${FIRST}.toolCallId` }]),
      [400, { code: 'FORMAT_ERROR', field: 'messages.0.metadata' }],
      [400, { code: 'FORMAT_ERROR', field: `${FIRST}.output` }],
      [400, { code: 'FORMAT_ERROR', field: 'messages.0.role' }],
      [404, { code: 'RUN_NOT_FOUND' }],
    ]);
    expect((await worker.runs.status(me.userId, runId)).input_requests).toMatchObject([{ kind: 'tool' }]);
    await chat.stop();
    await sent;
  });

  it.each([
    ['no name', [{ description: 'x' }], 'tools.0.name'],
    ['one name twice', [LOCATE, LOCATE], 'tools.1.name'],
    ['a schema that is no object', [{ name: 'a', inputSchema: 'x' }], 'tools.0.inputSchema'],
    ['no list', {}, 'tools'],
  ])('refuses tools with the field: %s', async (_name, tools, field) => {
    const messages = [{ id: 'm', role: 'user', parts: [{ type: 'text', text: 'Where am I?' }] }];
    const body = { id: 'chat-1', messages, tools };
    const { status, json } = await openStream(api(), { method: 'POST', token: user().token, body }).ended();
    expect([status, json]).toMatchObject([400, { error: { code: 'FORMAT_ERROR', field } }]);
  });
});
