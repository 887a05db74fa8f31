import { beforeAll, describe, expect, it } from '@jest/globals';
import { openStream } from '../support/event-stream.ts';
import { AG_UI_VERSIONS, type AgUiVersion, agUiClient } from '../support/front-ends/ag-ui-clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { askUser, ScriptedWorker } from '../support/scripted-worker.ts';
import { useStack } from '../support/stack.ts';
import { type MintedToken, mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** Two gateways without a worker: the test appends the events of runs itself. */
const own = useStack({ gateways: 2, workers: 0 });
let worker: ScriptedWorker;

beforeAll(async () => {
  worker = await ScriptedWorker.start(own().addresses);
});

const url = (path: string, node = 0) => nodeUrl(node, own().addresses) + path;
const user = () => mintToken({}, { stack: own().addresses });
const QUESTION = { id: 'message-1', role: 'user', content: 'How is it?' } as const;
const client = (version: AgUiVersion, { token }: MintedToken, node = 0) =>
  agUiClient(version, { url: url('/v1/agui/default', node), token, threadId: 'thread-1', messages: [QUESTION] });
const send = ({ token }: MintedToken, fields: object) => {
  const body = {
    threadId: 'thread-1',
    runId: 'run-2',
    messages: [QUESTION],
    state: {},
    tools: [],
    context: [],
    ...fields,
  };
  return openStream(url('/v1/agui/default', 1), { method: 'POST', token, body }).ended();
};

const CALL = { callId: 'call_a', tool: 'cost_analyzer' };
const OF_CALL = { tool_name: CALL.tool, tool_call_id: CALL.callId, arguments: {} };
const REQUESTS = {
  approval: { kind: 'approval', message: 'May it?', ...OF_CALL },
  choice: { kind: 'choice', message: 'Which one?', choices: ['a', 'b'], ...OF_CALL },
} as const;
type Kind = keyof typeof REQUESTS;

/** A run up to its input request. */
async function waitingRun({ userId }: MintedToken, kind: Kind = 'approval', expiresMs?: number) {
  const { runId } = await until(() => worker.runs.locate(userId, { threadId: 'thread-1' }));
  const log = await worker.claim(userId, runId);
  await log.started();
  await log.modelText({ thought: 'Let me see.', step: 1 }, {});
  await log.toolExecuting({ ...CALL, args: {} });
  await askUser(log, 'input_1', REQUESTS[kind], expiresMs);
  return runId;
}

/** The run after the answer, as a worker continues it. Returns the answer. */
async function continued({ userId }: MintedToken, runId: string, kind: Kind = 'approval') {
  await until(async () => (await worker.runs.status(userId, runId)).status === 'queued');
  const log = await worker.claim(userId, runId);
  log.skipReplayed();
  const answer = await log.requestInput('input_1', REQUESTS[kind], 1);
  await log.toolCompleted(CALL, { success: true, result: answer, duration_ms: 3, usage_record_id: 'usage_1' });
  await log.completed({ final_response: 'That is all.', summary: '' });
  return answer;
}

const contents = ({ messages }: ReturnType<typeof client>) => messages.map(({ role, content }) => [role, content]);
const conversation = (answer: object) => [
  ['user', 'How is it?'],
  ['assistant', 'Let me see.'],
  ['tool', JSON.stringify(answer)],
  ['assistant', 'That is all.'],
];

describe('a run that waits for its user, over AG-UI', () => {
  it.each([
    ['approval', { approved: true }, { action: 'accept' }],
    ['approval', { approved: false }, { action: 'decline' }],
    ['choice', { choice: 'b' }, { action: 'accept', content: { choice: 'b' } }],
  ] as const)('ends with an interrupt, and continues with the answer: %s %j', async (kind, payload, answer) => {
    const me = user();
    const agent = client('1.0.0', me);
    const running = agent.run('run-1');
    const runId = await waitingRun(me, kind);
    await running;
    expect(agent.interrupts).toMatchObject([
      {
        id: 'input_1',
        reason: kind,
        message: REQUESTS[kind].message,
        toolCallId: CALL.callId,
        responseSchema: { type: 'object', required: Object.keys(payload) },
        expiresAt: expect.stringMatching(/Z$/),
      },
    ]);
    agent.url = url('/v1/agui/default', 1);
    const resumed = agent.run('run-2', [{ interruptId: 'input_1', status: 'resolved', payload }]);
    expect(await continued(me, runId, kind)).toEqual(answer);
    await resumed;
    expect([agent.interrupts, agent.errorCode]).toEqual([[], undefined]);
    expect(contents(agent)).toEqual(conversation(answer));
    expect((await worker.runs.locate(me.userId, { threadId: 'thread-1' }))?.runId).toBe(runId);
  });

  it('is cut while it waits and while it continues, and the conversation is the same', async () => {
    const me = user();
    const agent = client('1.0.0', me);
    agent.cutAfter = 6;
    const running = agent.run('run-1');
    const runId = await waitingRun(me);
    await running;
    agent.cutAfter = undefined;
    agent.url = url('/v1/agui/default', 1);
    await agent.connect();
    expect(agent.interrupts).toMatchObject([{ id: 'input_1' }]);
    agent.cutAfter = 1;
    const resume = [{ interruptId: 'input_1', status: 'resolved', payload: { approved: true } }] as const;
    await agent.run('run-2', resume);
    agent.cutAfter = undefined;
    await continued(me, runId);
    // The same request again: the answer is stored once.
    await agent.run('run-2', resume);
    expect([agent.interrupts, contents(agent)]).toEqual([[], conversation({ action: 'accept' })]);
  });

  it('that expired is abandoned by cancelled; an answer then is INPUT_EXPIRED', async () => {
    const me = user();
    const agent = client('1.0.0', me);
    const running = agent.run('run-1');
    const runId = await waitingRun(me, 'approval', 300);
    await running;
    await until(() =>
      worker.inputs.expire({ user_id: me.userId, run_id: runId }).then(async () => {
        return (await worker.runs.status(me.userId, runId)).status === 'queued';
      }),
    );
    const late = await send(me, {
      resume: [{ interruptId: 'input_1', status: 'resolved', payload: { approved: true } }],
    });
    expect([late.status, late.json.error]).toMatchObject([410, { code: 'INPUT_EXPIRED' }]);
    const resumed = agent.run('run-2', [{ interruptId: 'input_1', status: 'cancelled' }]);
    await continued(me, runId);
    await resumed;
    expect(contents(agent)).toEqual(conversation({ action: 'expired' }));
  });

  it('sends clients before 1.0 a CUSTOM event, and they continue with connect', async () => {
    const [, older] = AG_UI_VERSIONS;
    if (!older) throw new Error('one generation');
    const me = user();
    const agent = client(older, me);
    const running = agent.run('run-1');
    const runId = await waitingRun(me);
    await running;
    expect(agent.custom).toMatchObject([
      { name: 'tollgate.input_requested', value: { id: 'input_1', reason: 'approval' } },
    ]);
    expect([agent.received.at(-1), agent.errorCode]).toEqual(['RUN_FINISHED', undefined]);
    const path = url(`/v1/runs/${runId}/inputs/input_1`);
    await openStream(path, { method: 'POST', token: me.token, body: { action: 'accept' } }).ended();
    const connected = agent.connect();
    await continued(me, runId);
    await connected;
    expect(contents(agent)).toEqual(conversation({ action: 'accept' }));
  });

  it.each([
    ['an unknown interrupt', [{ interruptId: 'input_2', status: 'cancelled' }], 'resume.0.interruptId'],
    ['an approval without a decision', [{ interruptId: 'input_1', status: 'resolved' }], 'resume.0.payload'],
    ['an unknown status', [{ interruptId: 'input_1', status: 'perhaps' }], 'resume.0.status'],
  ])('refuses %s with the field, and waits on', async (_name, resume, field) => {
    const me = user();
    const running = client('1.0.0', me).run('run-1');
    const runId = await waitingRun(me);
    await running;
    const { status, json } = await send(me, { resume });
    expect([status, json.error]).toMatchObject([400, { code: 'FORMAT_ERROR', field }]);
    const answered = [QUESTION, { id: `${runId}-1`, role: 'assistant', content: '' }, { ...QUESTION, id: 'message-2' }];
    const mixed = await send(me, { resume: [{ interruptId: 'input_1', status: 'cancelled' }], messages: answered });
    expect([mixed.status, mixed.json.error]).toMatchObject([400, { code: 'FORMAT_ERROR', field: 'messages.2' }]);
    expect((await worker.runs.status(me.userId, runId)).status).toBe('waiting');
  });
});
