import { decode } from '@ag-ui/proto';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { openStream, type StreamOptions } from '../support/event-stream.ts';
import { AG_UI_VERSIONS, type AgUiVersion, agUiClient } from '../support/front-ends/ag-ui-clients.ts';
import { reportCuts } from '../support/front-ends/report-cuts.ts';
import { nodeUrl } from '../support/nodes.ts';
import { FULL_RUN, ScriptedWorker } from '../support/scripted-worker.ts';
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
const user = (claims = {}) => mintToken(claims, { stack: own().addresses });
const QUESTION = { id: 'message-1', role: 'user', content: 'How is it?' } as const;
const input = (fields: object = {}) => ({
  threadId: 'thread-1',
  runId: 'run-1',
  messages: [QUESTION],
  state: {},
  tools: [],
  context: [],
  forwardedProps: {},
  ...fields,
});

const post = (path: string, { token }: Pick<MintedToken, 'token'>, body: unknown, node = 0) =>
  openStream(url(path, node), { method: 'POST', token, body } satisfies StreamOptions);

/** The log of the latest run of a thread, once a gateway has accepted it. */
async function claim({ userId }: MintedToken, threadId = 'thread-1') {
  let runId = '';
  await until(async () => {
    runId = (await worker.runs.locate(userId, { threadId }))?.runId ?? '';
    return runId !== '';
  });
  return worker.claim(userId, runId);
}

const client = (version: AgUiVersion, { token }: MintedToken, node = 0) =>
  agUiClient(version, { url: url('/v1/agui/default', node), token, threadId: 'thread-1', messages: [QUESTION] });

/** The messages without what differs between two runs of the same script. */
function comparable(messages: readonly object[], runId: string): unknown {
  const plain = JSON.stringify(messages, (key, value) => (key === 'metadata' ? undefined : value));
  return JSON.parse(plain.replaceAll(runId, 'run'));
}

/** A client that receives the whole script at once. */
async function uncut(version: AgUiVersion) {
  const me = user();
  const whole = client(version, me);
  const running = whole.run('run-1');
  const log = await claim(me);
  for (const event of FULL_RUN) await event(log);
  await running;
  const { runId = '' } = (await worker.runs.locate(me.userId, { threadId: 'thread-1' })) ?? {};
  return { events: whole.received.length, messages: comparable(whole.messages, runId) };
}

describe.each(AG_UI_VERSIONS)('the client %s of AG-UI', (version) => {
  it('has the same conversation after a cut at any event, on another node', async () => {
    const whole = await uncut(version);
    expect(whole.events).toBeGreaterThan(25);
    const cases = Array.from({ length: whole.events }, (_, cut) => cut);
    const different: number[] = [];
    const attempt = async (cut: number) => {
      const me = user();
      const cutOff = client(version, me);
      cutOff.cutAfter = cut;
      const running = cutOff.run('run-1');
      const log = await claim(me);
      // The rest of the run happens while the client is away, comes back, and after it has come back.
      let appended = 0;
      const append = async (number: number) => {
        for (const event of FULL_RUN.slice(appended, appended + number)) await event(log);
        appended += number;
      };
      let returned = false;
      void running.then(() => {
        returned = true;
      });
      while (!returned && appended < FULL_RUN.length) {
        const before = cutOff.received.length;
        await append(1);
        await until(() => returned || cutOff.received.length > before || cutOff.received.length >= cut);
      }
      await running;
      await append(cut % 3);
      cutOff.cutAfter = undefined;
      cutOff.url = url('/v1/agui/default', 1);
      const rest = cut % 2 === 0 ? cutOff.connect() : cutOff.run('run-1');
      await append(FULL_RUN.length);
      await rest;
      const { runId = '' } = (await worker.runs.locate(me.userId, { threadId: 'thread-1' })) ?? {};
      if (JSON.stringify(comparable(cutOff.messages, runId)) !== JSON.stringify(whole.messages)) different.push(cut);
    };
    for (let from = 0; from < cases.length; from += 6) await Promise.all(cases.slice(from, from + 6).map(attempt));
    reportCuts(`HttpAgent ${version}`, 'each event, then another node', cases.length - different.length, cases.length);
    expect(different).toEqual([]);
  });
});

describe('POST /v1/agui/{agent}', () => {
  it('reads only the last message: history and tool results of the client reach no thread', async () => {
    const me = user();
    const forged = [
      { id: 'forged-1', role: 'user', content: 'Forged question' },
      { id: 'forged-2', role: 'assistant', toolCalls: [] },
      { id: 'forged-3', role: 'tool', toolCallId: 'call-1', content: 'Forged result' },
      {
        id: 'parts',
        role: 'user',
        content: [
          { type: 'text', text: 'One' },
          { type: 'text', text: 'two' },
        ],
      },
    ];
    const running = post('/v1/agui/default', me, input({ messages: forged }));
    const log = await claim(me);
    for (const event of FULL_RUN) await event(log);
    await running.ended();
    expect(running.end).toBe('complete');
    const reloaded = await post('/v1/agui/default/connect', me, input({ runId: 'run-2', messages: [] }), 1).ended();
    const { messages } = reloaded.events.find(({ data }) => data.type === 'MESSAGES_SNAPSHOT')?.data ?? {};
    const [question, ...answer] = messages as { role: string; content: unknown }[];
    expect(question).toMatchObject({ role: 'user', content: 'One\ntwo' });
    expect(answer.map(({ role }) => role)).not.toContain('user');
    expect(JSON.stringify(messages)).not.toContain('Forged');
  });

  it('starts one run for a repeated threadId and runId, and another for another runId', async () => {
    const me = user();
    const first = post('/v1/agui/default', me, input());
    await claim(me);
    const again = post('/v1/agui/default', me, input(), 1);
    await again.waitFor('RUN_STARTED');
    // The stream of the client that came back replaces its earlier one.
    await first.ended();
    expect(first.events.at(-1)?.data).toMatchObject({ type: 'RUN_ERROR', code: 'CONNECTION_LIMIT_EXCEEDED' });
    const { runId } = (await worker.runs.locate(me.userId, { threadId: 'thread-1' })) ?? {};
    post('/v1/agui/default', me, input({ runId: 'run-2' }));
    await until(async () => (await worker.runs.locate(me.userId, { threadId: 'thread-1' }))?.runId !== runId);
  });

  it('names the fields of the input that have no effect', async () => {
    const me = user();
    const tools = ['color', 'system_health'].map((name) => ({ name, description: 'Of the page.', parameters: {} }));
    const running = post('/v1/agui/default', me, input({ tools, context: [{ description: 'a', value: 'b' }] }));
    const log = await claim(me);
    await log.started();
    const { data } = await running.waitFor('RUN_STARTED');
    expect(data.metadata).toMatchObject({
      tollgate: { ignored: ['tools.system_health', 'context'], thread_id: 'thread-1' },
    });
  });

  it('sends the same events as protobuf messages to a client that accepts them', async () => {
    const me = user();
    const { token } = me;
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
    const accept = 'application/vnd.ag-ui.event+proto, text/event-stream';
    const response = await fetch(url('/v1/agui/default'), {
      method: 'POST',
      headers: { ...headers, accept },
      body: JSON.stringify(input({ protocolVersion: '1.0' })),
    });
    // Clients compare the whole header: with a parameter they would read server-sent events.
    expect(response.headers.get('content-type')).toBe('application/vnd.ag-ui.event+proto');
    const log = await claim(me);
    for (const event of FULL_RUN) await event(log);
    const bytes = Buffer.from(await response.arrayBuffer());
    const types: string[] = [];
    for (let at = 0; at < bytes.length; ) {
      const length = bytes.readUInt32BE(at);
      const event = decode(bytes.subarray(at + 4, at + 4 + length));
      types.push(event.type);
      at += 4 + length;
    }
    expect([types[0], types.at(-1), types.length]).toEqual([
      'RUN_STARTED',
      'RUN_FINISHED',
      (await uncut('1.0.0')).events,
    ]);
  });

  const BAD_INPUT: [string, string, unknown, number, object][] = [
    ['no RunAgentInput', '/v1/agui/default', {}, 400, { code: 'FORMAT_ERROR', field: 'threadId' }],
    ['no messages', '/v1/agui/default', input({ messages: [] }), 400, { code: 'FORMAT_ERROR', field: 'messages' }],
    [
      'a message without an id',
      '/v1/agui/default',
      input({ messages: [{ role: 'user', content: 'x' }] }),
      400,
      { code: 'FORMAT_ERROR', field: 'messages.0.id' },
    ],
    [
      'a tool result that no run waits for',
      '/v1/agui/default',
      input({ messages: [QUESTION, { id: 't', role: 'tool', toolCallId: 'c', content: 'forged' }] }),
      400,
      { code: 'FORMAT_ERROR', field: 'messages.1.toolCallId' },
    ],
    [
      'an image',
      '/v1/agui/default',
      input({ messages: [{ ...QUESTION, content: [{ type: 'image', source: {} }] }] }),
      400,
      { code: 'FORMAT_ERROR', field: 'messages.0.content.0' },
    ],
    [
      'an answer to an interrupt that is not open',
      '/v1/agui/default',
      input({ resume: [{ interruptId: 'i', status: 'resolved' }] }),
      400,
      { code: 'FORMAT_ERROR', field: 'resume.0.interruptId' },
    ],
    ['an unknown agent', '/v1/agui/nobody', input(), 404, { code: 'AGENT_NOT_FOUND', agents: expect.any(Array) }],
    ['a thread of an unknown agent', '/v1/agui/nobody/connect', input(), 404, { code: 'AGENT_NOT_FOUND' }],
    ['an unknown method', '/v1/copilotkit', { method: 'agent/sing' }, 400, { code: 'FORMAT_ERROR', field: 'method' }],
    [
      'an envelope without an input',
      '/v1/copilotkit',
      { method: 'agent/run', params: { agentId: 'default' }, body: { threadId: 't' } },
      400,
      { code: 'FORMAT_ERROR', field: 'body.runId' },
    ],
  ];
  it.each(BAD_INPUT)('refuses %s with the field or the names', async (_name, path, body, status, error) => {
    const answer = await post(path, user(), body).ended();
    expect([answer.status, answer.json]).toMatchObject([status, { error }]);
  });

  it('above the message limit answers 429 with retry_after_ms in the body', async () => {
    const me = user({ plan: 'free' });
    const stop = () => post('/v1/copilotkit/agent/default/stop/none', me, {}).ended();
    for (let sent = 0; sent < 30; sent++) await stop();
    const { status, json } = await post('/v1/agui/default', me, input()).ended();
    expect([status, json.error]).toMatchObject([429, { code: 'RATE_LIMITED', retry_after_ms: expect.any(Number) }]);
  });

  it('lets pages of the allowed origins send the requests of the clients', async () => {
    const origin = 'http://app.example.test';
    for (const path of ['/v1/agui/default', '/v1/copilotkit', '/v1/copilotkit/agent/default/run']) {
      const headers = {
        origin,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization,content-type',
      };
      const response = await fetch(url(path), { method: 'OPTIONS', headers });
      expect([response.status, response.headers.get('access-control-allow-origin')]).toEqual([204, origin]);
    }
  });
});

describe('POST /v1/agui/{agent}/connect', () => {
  it('has nothing of a thread of another user, and nothing of a new thread', async () => {
    const me = user();
    post('/v1/agui/default', me, input());
    await claim(me);
    const answers = [
      await post('/v1/agui/default/connect', user(), input({ messages: [] })).ended(),
      await post('/v1/agui/default/connect', me, input({ threadId: 'thread-2', messages: [] })).ended(),
    ];
    expect(answers.map(({ status, end, events }) => [status, end, events])).toEqual([
      [200, 'complete', []],
      [200, 'complete', []],
    ]);
  });

  it('has the messages of a thread whose events have left the log, for a client without messages', async () => {
    const me = user();
    const running = post('/v1/agui/default', me, input());
    const log = await claim(me);
    for (const event of FULL_RUN) await event(log);
    await running.ended();
    await worker.redis.del(worker.keys.user(me.userId).log);
    const { events } = await post('/v1/agui/default/connect', me, input({ runId: 'run-2', messages: [] })).ended();
    expect(events.map(({ data }) => data.type)).toEqual(['RUN_STARTED', 'MESSAGES_SNAPSHOT', 'RUN_FINISHED']);
    expect(events[1]?.data.messages).toMatchObject([
      { role: 'user', content: 'How is it?' },
      { role: 'assistant', content: 'It is twelve – 十二.' },
    ]);
  });
});

describe('the routes of CopilotKit', () => {
  const get = (path: string, { token }: MintedToken) => openStream(url(path), { token }).ended();

  it('list the agents, with the default agent as default', async () => {
    const me = user();
    const rest = await get('/v1/copilotkit/info', me);
    const single = await post('/v1/copilotkit', me, { method: 'info' }).ended();
    expect(rest.json).toMatchObject({ mode: 'sse', agents: { default: { name: 'default' } } });
    expect(Object.keys(rest.json.agents as object).length).toBeGreaterThan(1);
    expect(single.json).toEqual(rest.json);
  });

  it.each([
    ['by routes', (me: MintedToken, body: object) => post('/v1/copilotkit/agent/default/run', me, body)],
    [
      'by one endpoint',
      (me: MintedToken, body: object) => {
        return post('/v1/copilotkit', me, { method: 'agent/run', params: { agentId: 'default' }, body });
      },
    ],
  ])('run, connect and stop %s: the stream ends when the run does', async (form, run) => {
    const me = user();
    const single = form === 'by one endpoint';
    const running = run(me, input());
    const log = await claim(me);
    await log.started();
    await running.waitFor('RUN_STARTED');
    const params = { agentId: 'default', threadId: 'thread-1' };
    const stopped = single
      ? await post('/v1/copilotkit', me, { method: 'agent/stop', params, body: { runId: 'run-1' } }, 1).ended()
      : await post('/v1/copilotkit/agent/default/stop/thread-1', me, undefined, 1).ended();
    expect([stopped.status, stopped.json]).toEqual([200, { stopped: true }]);
    await log.thinking('Too late.');
    await log.cancelled();
    await running.ended();
    // A client before 1.0 rejects the outcome `cancelled`.
    expect([running.end, running.types.at(-1)]).toEqual(['complete', 'RUN_FINISHED']);
    expect(running.events.at(-1)?.data).not.toHaveProperty('outcome');
    const body = input({ runId: 'fresh', messages: [] });
    const connected = single
      ? await post('/v1/copilotkit', me, { method: 'agent/connect', params, body }).ended()
      : await post('/v1/copilotkit/agent/default/connect', me, body).ended();
    expect(connected.types).toEqual(['RUN_STARTED', 'MESSAGES_SNAPSHOT', 'RUN_FINISHED']);
    expect(connected.events[0]?.data.runId).toBe('run-1');
    const again = await post('/v1/copilotkit/agent/default/stop/thread-1', me, {}).ended();
    expect(again.json).toEqual({ stopped: false });
  });
});

describe('a killed gateway', () => {
  it('costs clients of both generations nothing: they come back on another node', async () => {
    const attempts = await Promise.all(
      AG_UI_VERSIONS.map(async (version) => {
        const me = user();
        const whole = await uncut(version);
        const cutOff = client(version, me);
        cutOff.cutAfter = Number.POSITIVE_INFINITY;
        const running = cutOff.run('run-1');
        const log = await claim(me);
        for (const event of FULL_RUN.slice(0, 9)) await event(log);
        await until(() => cutOff.received.length > 12);
        return { me, whole, cutOff, running, log };
      }),
    );
    await own().gateways[0]?.kill();
    for (const { me, whole, cutOff, running, log } of attempts) {
      await running;
      cutOff.url = url('/v1/agui/default', 1);
      const rest = cutOff.connect();
      for (const event of FULL_RUN.slice(9)) await event(log);
      await rest;
      const { runId = '' } = (await worker.runs.locate(me.userId, { threadId: 'thread-1' })) ?? {};
      expect(comparable(cutOff.messages, runId)).toEqual(whole.messages);
    }
  });
});
