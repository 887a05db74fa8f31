import { WorkflowChatTransport } from '@ai-sdk/workflow/client';
import { beforeAll, beforeEach, describe, expect, it, jest } from '@jest/globals';
import {
  type ChatTransport,
  DefaultChatTransport,
  lastAssistantMessageIsCompleteWithApprovalResponses,
  type UIMessage,
  WebSocketChatTransport,
} from 'ai';
import { type Cut, cuttingFetch, TestChat } from '../support/ai-chat.ts';
import { openStream } from '../support/event-stream.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { askUser, ScriptedWorker } from '../support/scripted-worker.ts';
import { useStack } from '../support/stack.ts';
import { type MintedToken, mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const own = useStack({ gateways: 2, workers: 0 });
let worker: ScriptedWorker;

beforeAll(async () => {
  worker = await ScriptedWorker.start(own().addresses);
});
// The package logs each cut that it handles.
beforeEach(() => void jest.spyOn(console, 'error').mockImplementation(() => undefined));

const api = (node = 0) => `${nodeUrl(node, own().addresses)}/v1/chat`;
const user = () => mintToken({}, { stack: own().addresses });
const NO_CUT: Cut = { after: undefined, how: 'broken' };

type Client = (me: MintedToken, fetcher?: typeof fetch, node?: number) => ChatTransport<UIMessage>;
const CLIENTS = {
  DefaultChatTransport: ({ token }, fetcher = fetch, node = 0) =>
    new DefaultChatTransport({ api: api(node), headers: { authorization: `Bearer ${token}` }, fetch: fetcher }),
  WorkflowChatTransport({ token }, fetcher = fetch) {
    const authorization = `Bearer ${token}`;
    return new WorkflowChatTransport({
      api: api(),
      fetch: fetcher,
      prepareSendMessagesRequest: ({ id, messages, trigger }) => ({
        body: { id, messages, trigger },
        headers: { authorization, 'content-type': 'application/json' },
      }),
      prepareReconnectToStreamRequest: ({ api: url }) => ({ api: url, headers: { authorization } }),
    }) as ChatTransport<UIMessage>;
  },
  WebSocketChatTransport({ token }) {
    const protocols = ['jwt-auth', `jwt.${Buffer.from(token).toString('base64url')}`];
    const transport = new WebSocketChatTransport({ url: `${api()}/ws`, protocols });
    closeAfter('test', () => transport.close());
    return transport;
  },
} satisfies Record<string, Client>;

const CALL = { callId: 'call_a', tool: 'cost_analyzer' };
const APPROVAL = {
  kind: 'approval',
  message: 'May it?',
  tool_name: CALL.tool,
  tool_call_id: CALL.callId,
  arguments: {},
} as const;
const REFUSED = { message: 'It was not approved.', retryable: false };

/** A run up to the request for an approval of its call. */
async function waitingRun({ userId }: MintedToken, expiresMs?: number) {
  const runId = await until(async () => (await worker.redis.zrange(worker.keys.user(userId).runs, '0', '0'))[0]);
  const log = await worker.claim(userId, runId);
  await log.started();
  await log.modelText({ thought: 'Let me see: ', step: 1 }, {});
  await log.toolExecuting({ ...CALL, args: {} });
  await askUser(log, 'input_1', APPROVAL, expiresMs);
  return runId;
}

/** The run after the answer, as a worker continues it. */
async function continued({ userId }: MintedToken, runId: string): Promise<void> {
  await until(async () => (await worker.runs.status(userId, runId)).status === 'queued');
  const log = await worker.claim(userId, runId);
  log.skipReplayed();
  const { action } = await log.requestInput('input_1', APPROVAL, 1);
  const usage = { duration_ms: 3, usage_record_id: 'usage_1' };
  if (action === 'accept') await log.toolCompleted(CALL, { success: true, result: { units: 12 }, ...usage });
  else {
    const error = { ...REFUSED, code: action === 'expired' ? 'INPUT_EXPIRED' : 'APPROVAL_DECLINED' } as const;
    await log.toolCompleted(CALL, { success: false, error, duration_ms: 0, usage_record_id: null });
  }
  await log.modelText({ thought: 'That is all.', step: 2 }, {});
  await log.completed({ final_response: 'That is all.', summary: '' });
}

/** A chat that sends the answers to approvals by itself, as applications configure `useChat`. */
function chatOf(transport: ChatTransport<UIMessage>, messages: UIMessage[] = []): TestChat {
  const sendAutomaticallyWhen = lastAssistantMessageIsCompleteWithApprovalResponses;
  return new TestChat({ id: 'chat-1', transport, messages, sendAutomaticallyWhen });
}

const answerOf = ({ messages }: TestChat) => messages.at(-1)?.parts.filter(({ type }) => type !== 'step-start');
const toolOf = (chat: TestChat) => answerOf(chat)?.find(({ type }) => type === 'tool-cost_analyzer');
const ended = (chat: TestChat) => until(() => chat.status === 'ready' && answerOf(chat)?.at(-1)?.type === 'text');
const whole = (tool: object) => [
  { type: 'text', text: 'Let me see: ' },
  { type: 'tool-cost_analyzer', ...tool },
  { type: 'text', text: 'That is all.' },
];

describe('an approval in a chat of the AI SDK', () => {
  it.each(Object.entries(CLIENTS))('is given over %s, and the same message continues', async (_name, client) => {
    const me = user();
    const chat = chatOf(client(me));
    const sent = chat.sendMessage({ text: 'How much?' });
    const runId = await waitingRun(me);
    await sent;
    expect([chat.status, toolOf(chat)]).toMatchObject([
      'ready',
      { state: 'approval-requested', approval: { id: 'input_1' } },
    ]);
    await chat.addToolApprovalResponse({ id: 'input_1', approved: true });
    await continued(me, runId);
    await ended(chat);
    expect(answerOf(chat)).toMatchObject(whole({ state: 'output-available', output: { units: 12 } }));
    expect(chat.messages.map(({ role, id }) => (role === 'user' ? role : id))).toEqual(['user', runId]);
  });

  it('is refused, and the tool is denied', async () => {
    const me = user();
    const chat = chatOf(CLIENTS.DefaultChatTransport(me));
    const sent = chat.sendMessage({ text: 'How much?' });
    const runId = await waitingRun(me);
    await sent;
    await chat.addToolApprovalResponse({ id: 'input_1', approved: false, reason: 'Too much.' });
    await continued(me, runId);
    await ended(chat);
    expect(answerOf(chat)).toMatchObject(whole({ state: 'output-denied', approval: { approved: false } }));
  });

  it('is still asked for after a cut and a reload, on another node', async () => {
    const me = user();
    const { fetch: fetcher } = cuttingFetch({ after: 4, how: 'broken' });
    const first = chatOf(CLIENTS.DefaultChatTransport(me, fetcher));
    const sent = first.sendMessage({ text: 'How much?' });
    const runId = await waitingRun(me);
    await sent;
    const chat = chatOf(CLIENTS.DefaultChatTransport(me, fetch, 1), first.messages);
    await chat.resumeStream();
    expect([chat.status, toolOf(chat)]).toMatchObject(['ready', { state: 'approval-requested' }]);
    await chat.addToolApprovalResponse({ id: 'input_1', approved: true });
    await continued(me, runId);
    await ended(chat);
    expect(answerOf(chat)).toMatchObject(whole({ state: 'output-available' }));
  });

  it('is given without the end of the response that was cut behind the request', async () => {
    const me = user();
    const { fetch: fetcher, seen } = cuttingFetch({ after: 8, how: 'clean' });
    const chat = chatOf(CLIENTS.DefaultChatTransport(me, fetcher));
    const sent = chat.sendMessage({ text: 'How much?' });
    const runId = await waitingRun(me);
    await sent;
    expect([seen.wasCut, toolOf(chat)]).toMatchObject([true, { state: 'approval-requested' }]);
    await chat.addToolApprovalResponse({ id: 'input_1', approved: true });
    await continued(me, runId);
    await ended(chat);
    expect(answerOf(chat)).toMatchObject(whole({ state: 'output-available' }));
    expect(answerOf(chat)).toHaveLength(3);
  });

  it.each([1, 2, 3])('continues after a cut of the continued response at chunk %d', async (after) => {
    const me = user();
    let cutting: ReturnType<typeof cuttingFetch> = cuttingFetch(NO_CUT);
    const fetcher: typeof fetch = (input, init) => cutting.fetch(input, init);
    const chat = chatOf(CLIENTS.WorkflowChatTransport(me, fetcher));
    const sent = chat.sendMessage({ text: 'How much?' });
    const runId = await waitingRun(me);
    await sent;
    cutting = cuttingFetch({ after, how: 'broken' });
    await chat.addToolApprovalResponse({ id: 'input_1', approved: true });
    await continued(me, runId);
    await ended(chat);
    expect(cutting.seen.wasCut).toBe(true);
    expect(answerOf(chat)).toMatchObject(whole({ state: 'output-available' }));
    expect(answerOf(chat)).toHaveLength(3);
  });

  it('that comes after its expiry is INPUT_EXPIRED, and the chat shows the end', async () => {
    const me = user();
    const chat = chatOf(CLIENTS.DefaultChatTransport(me));
    const sent = chat.sendMessage({ text: 'How much?' });
    const runId = await waitingRun(me, 1);
    await sent;
    await until(() => worker.inputs.expire({ user_id: me.userId, run_id: runId }));
    await chat.addToolApprovalResponse({ id: 'input_1', approved: true });
    await until(() => chat.status === 'error');
    expect(chat.error?.message).toContain('INPUT_EXPIRED');
    await continued(me, runId);
    await chat.resumeStream();
    expect(answerOf(chat)).toMatchObject(whole({ state: 'output-error', errorText: REFUSED.message }));
  });
});

describe('POST /v1/chat with approvals', () => {
  const part = (approval: object) => ({ type: 'tool-cost_analyzer', state: 'approval-responded', approval });
  const position = (run_id: string, epoch: string) => ({ tollgate: { run_id, epoch, seq: 4 } });
  const send = (me: MintedToken, parts: readonly object[], metadata?: object) => {
    const body = { id: 'chat-1', messages: [{ id: 'm', role: 'assistant', parts, metadata }] };
    return openStream(api(1), { method: 'POST', token: me.token, body }).ended();
  };

  it('answers only open requests of a run of the user', async () => {
    const me = user();
    const stream = await openStream(api(), {
      method: 'POST',
      token: me.token,
      body: { id: 'chat-1', messages: [{ id: 'm', role: 'user', parts: [{ type: 'text', text: 'How much?' }] }] },
    }).opened();
    const runId = await waitingRun(me);
    await stream.ended();
    expect([stream.end, stream.types.at(-1)]).toEqual(['complete', 'finish']);
    const [, epoch = ''] = String(stream.headers['x-workflow-run-id']).split('.');
    const given = part({ id: 'input_1', approved: true });
    const answers = [
      await send(me, [given]),
      await send(me, [part({ id: 'input_1' })], position(runId, epoch)),
      await send(me, [part({ id: 'input_2', approved: true })], position(runId, epoch)),
      await send(me, [given], position(runId, 'epoch_0')),
      await send(user(), [given], position(runId, epoch)),
    ];
    expect(answers.map(({ status, json }) => [status, json.error])).toMatchObject([
      [400, { code: 'FORMAT_ERROR', field: 'messages.0.metadata' }],
      [400, { code: 'FORMAT_ERROR', field: 'messages.0.parts.0.approval' }],
      [404, { code: 'INPUT_NOT_FOUND' }],
      [expect.any(Number), { code: 'EVENTS_TRIMMED' }],
      [404, { code: 'RUN_NOT_FOUND' }],
    ]);
    expect((await worker.runs.status(me.userId, runId)).status).toBe('waiting');
    await worker.inputs.answer(me.userId, { runId, inputId: 'input_1', answer: { action: 'decline' } });
    const late = await send(me, [given], position(runId, epoch));
    expect([late.status, late.json.error]).toMatchObject([409, { code: 'INPUT_ALREADY_ANSWERED' }]);
  });
});
