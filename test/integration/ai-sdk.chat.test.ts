import { WorkflowChatTransport } from '@ai-sdk/workflow/client';
import { beforeAll, beforeEach, describe, expect, it, jest } from '@jest/globals';
import { type ChatTransport, DefaultChatTransport, type UIMessage, WebSocketChatTransport } from 'ai';
import { type Cut, cuttingFetch, cuttingWebSocket, TestChat } from '../support/ai-chat.ts';
import { type EventStreamClient, openStream, type StreamOptions } from '../support/event-stream.ts';
import { reportCuts } from '../support/front-ends/report-cuts.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { FULL_RUN, ScriptedWorker } from '../support/scripted-worker.ts';
import { useStack } from '../support/stack.ts';
import { type MintedToken, mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** Number of chunks of the run `FULL_RUN` after each of its events. */
const chunksAfter = [1, 4, 7, 8, 10, 11, 12, 13, 17, 20, 21, 25];
const CHUNKS = 25;

const own = useStack({ gateways: 2, workers: 0 });
let worker: ScriptedWorker;

beforeAll(async () => {
  worker = await ScriptedWorker.start(own().addresses);
});

const api = (node = 0) => `${nodeUrl(node, own().addresses)}/v1/chat`;
const user = (claims = {}) => mintToken(claims, { stack: own().addresses });

const NO_CUT: Cut = { after: undefined, how: 'broken' };
type Cutting = ReturnType<typeof cuttingFetch> | ReturnType<typeof cuttingWebSocket>;
type Client = (me: MintedToken, cutting: Cutting, node?: number) => ChatTransport<UIMessage>;
const fetcherOf = (cutting: Cutting) => ('fetch' in cutting ? cutting.fetch : fetch);

const authorized = ({ token }: MintedToken) => ({ authorization: `Bearer ${token}` });
const CLIENTS: Readonly<Record<string, Client>> = {
  DefaultChatTransport: (me, cutting, node) =>
    new DefaultChatTransport({ api: api(node), headers: authorized(me), fetch: fetcherOf(cutting) }),
  WebSocketChatTransport({ token }, cutting, node) {
    const transport = new WebSocketChatTransport({
      url: `${api(node)}/ws`,
      protocols: ['jwt-auth', `jwt.${Buffer.from(token).toString('base64url')}`],
      webSocket: 'webSocket' in cutting ? cutting.webSocket : cuttingWebSocket(NO_CUT).webSocket,
    });
    closeAfter('test', () => transport.close());
    return transport;
  },
  WorkflowChatTransport: (me, cutting, node) =>
    // The types of the package do not allow exactOptionalPropertyTypes.
    new WorkflowChatTransport({
      api: api(node),
      fetch: fetcherOf(cutting),
      prepareSendMessagesRequest: ({ id, messages, trigger }) => ({
        body: { id, messages, trigger },
        headers: { ...authorized(me), 'content-type': 'application/json' },
      }),
      prepareReconnectToStreamRequest: ({ api: url }) => ({ api: url, headers: authorized(me) }),
    }) as ChatTransport<UIMessage>,
};

/** The only run of a user, when it has been accepted. */
async function acceptedRun({ userId }: MintedToken): Promise<string> {
  return until(async () => (await worker.redis.zrange(worker.keys.user(userId).runs, '0', '0'))[0]);
}

/** What a user sees: everything but the ids that differ between runs. */
function visible(messages: readonly UIMessage[]) {
  return messages.map(({ role, parts, metadata }) => {
    const { tollgate } = (metadata ?? {}) as { tollgate?: { seq: number } };
    return { role, parts, seq: tollgate?.seq };
  });
}

/**
 * Sends a message and cuts the stream. The run continues when the client has come back, so that the stream has a replayed
 * and a live part.
 */
async function cutRun(client: Client, cut: Cut, { reload = false } = {}) {
  const me = user();
  const cutting = client === CLIENTS.WebSocketChatTransport ? cuttingWebSocket(cut) : cuttingFetch(cut);
  const { seen } = cutting;
  let chat = new TestChat({ id: 'chat-1', transport: client(me, cutting) });
  const sent = chat.sendMessage({ text: 'How much?' });
  const log = await worker.claim(me.userId, await acceptedRun(me));
  let resumed: Promise<void> | undefined;
  for (const [at, append] of FULL_RUN.entries()) {
    await append(log);
    if (resumed) continue;
    await until(() => seen.wasCut || seen.events >= (chunksAfter[at] ?? 0));
    if (!seen.wasCut) continue;
    if (client === CLIENTS.WorkflowChatTransport) resumed = sent;
    else {
      await sent;
      const { messages } = chat;
      // A reload keeps what the page has stored, and opens another connection.
      if (reload) chat = new TestChat({ id: 'chat-1', transport: client(me, { fetch, seen }, 1), messages });
      resumed = chat.resumeStream();
    }
  }
  await sent;
  await resumed;
  return chat;
}

let whole: ReturnType<typeof visible>;

beforeAll(async () => {
  const { DefaultChatTransport: client } = CLIENTS;
  if (!client) throw new Error('no client');
  const chat = await cutRun(client, NO_CUT);
  whole = visible(chat.messages);
});

describe('a chat of the AI SDK', () => {
  it('shows the run: reasoning, text, tools in parallel, and no part of the replaced step', () => {
    expect(whole).toMatchObject([
      { role: 'user' },
      {
        role: 'assistant',
        seq: FULL_RUN.length,
        parts: [
          { type: 'step-start' },
          { type: 'reasoning', text: 'Look at both.' },
          { type: 'text', text: 'I look at both: ' },
          { type: 'tool-analyze_workload', state: 'output-error', errorText: 'The tool failed.' },
          { type: 'tool-cost_analyzer', state: 'output-available', output: { units: 12 } },
          { type: 'step-start' },
          { type: 'text', text: 'It is twelve – 十二.' },
        ],
      },
    ]);
  });

  // The package logs each cut that it handles.
  beforeEach(() => void jest.spyOn(console, 'error').mockImplementation(() => undefined));

  // The short form cuts at every fifth chunk, each client at others.
  const every = process.env.FRONT_ENDS === undefined ? 5 : 1;
  const cutsFrom = (first: number) => {
    return Array.from({ length: CHUNKS - 1 }, (_, at) => at + 1).filter((at) => (at - first) % every === 0);
  };
  it.each([
    ['DefaultChatTransport', 'broken', false, 1],
    ['DefaultChatTransport', 'broken', true, 2],
    ['WorkflowChatTransport', 'broken', false, 3],
    ['WorkflowChatTransport', 'clean', false, 4],
    ['WebSocketChatTransport', 'broken', false, 5],
    ['WebSocketChatTransport', 'broken', true, 2],
  ] as const)('%s ends in the same state wherever it is cut: %s, reload %s', async (name, how, reload, first) => {
    const client = CLIENTS[name];
    if (!client) throw new Error(`no ${name}`);
    const results = await Promise.all(
      cutsFrom(first).map(async (after) => {
        const { messages, status } = await cutRun(client, { after, how }, { reload });
        return { after, status, messages: visible(messages) };
      }),
    );
    for (const result of results) {
      expect(result).toEqual({ after: result.after, status: 'ready', messages: whole });
    }
    reportCuts(name, `each chunk, ${how}${reload ? ', then a reload' : ''}`, results.length, results.length);
  });
});

const message = (id: string, text: string) => ({ id, role: 'user', parts: [{ type: 'text', text }] });
const post = (me: MintedToken, body: object, node = 0, options: StreamOptions = {}) =>
  openStream(api(node), { method: 'POST', token: me.token, body, ...options });
const get = (me: MintedToken, path: string, node = 0) => openStream(`${api(node)}/${path}`, { token: me.token });
const errorOf = ({ status, json }: EventStreamClient) => [status, json.error];

describe('POST /v1/chat', () => {
  it.each([
    ['no messages', {}, 'messages'],
    ['no list of messages', { id: 'chat-1', messages: 'Hello' }, 'messages'],
    ['a message without parts', { messages: [{ role: 'user', content: 'Hello' }] }, 'messages.0.parts'],
    ['an unknown role', { messages: [{ ...message('m', 'Hello'), role: 'tool' }] }, 'messages.0.role'],
    [
      'a last message of the assistant',
      { messages: [{ ...message('m', 'Hi'), role: 'assistant' }] },
      'messages.0.role',
    ],
    [
      'a file',
      { messages: [{ id: 'm', role: 'user', parts: [{ type: 'file', url: 'data:,x' }] }] },
      'messages.0.parts.0',
    ],
    ['no text', { messages: [{ id: 'm', role: 'user', parts: [] }] }, 'messages.0.parts'],
  ])('with %s is 400 and names the field', async (_name, body, field) => {
    const answer = await openStream(api(), { method: 'POST', token: user().token, body }).ended();
    expect(errorOf(answer)).toMatchObject([400, { code: 'FORMAT_ERROR', field }]);
  });

  it('with an unknown agent is 404 with the list of agents, and over the message limit 429 with the time', async () => {
    const me = user({ plan: 'free' });
    const body = { id: 'chat-1', messages: [message('m', 'Hello')], agent: 'nobody' };
    const unknown = await post(me, body).ended();
    expect(errorOf(unknown)).toMatchObject([
      404,
      { code: 'AGENT_NOT_FOUND', agents: expect.arrayContaining(['triage_agent']) },
    ]);
    let last = unknown;
    for (let sent = 1; sent <= 31 && last.status !== 429; sent++) last = await post(me, body).ended();
    expect(errorOf(last)).toMatchObject([429, { code: 'RATE_LIMITED', retry_after_ms: expect.any(Number) }]);
  });

  it('starts one run per message, also when it is repeated on another node, and replaces the lost stream', async () => {
    const me = user();
    const body = { id: 'chat-1', messages: [message('m-1', 'Hello')] };
    const first = await post(me, body).opened();
    const runId = await acceptedRun(me);
    expect(first.headers['x-workflow-run-id']).toMatch(new RegExp(`^${runId}\\.epoch_\\w+\\.3$`));
    const second = await post(me, body, 1).opened();
    await first.ended();
    expect([first.end, first.types]).toEqual(['broken', ['error', 'finish']]);
    expect(first.events[0]?.data).toMatchObject({ code: 'CONNECTION_LIMIT_EXCEEDED' });
    const log = await worker.claim(me.userId, runId);
    for (const append of FULL_RUN) await append(log);
    await second.ended();
    expect([second.end, second.types.at(-1), second.events.length]).toEqual(['complete', 'finish', CHUNKS]);
    expect(second.events.map(({ data }) => data.type)).not.toContain('error');
    expect(await worker.redis.zcard(worker.keys.user(me.userId).runs)).toBe(1);
    // The same text as a new message, and a second answer to the same one, are new runs.
    await post(me, { ...body, messages: [message('m-2', 'Hello')] }).opened();
    await post(me, { ...body, trigger: 'regenerate-message', messageId: runId }).opened();
    expect(await worker.redis.zcard(worker.keys.user(me.userId).runs)).toBe(3);
  });

  it('ends with error and finish when its run fails, and with abort and finish after stop', async () => {
    const me = user();
    const stream = await post(me, { id: 'chat 2/ö', messages: [message('m', 'Hello')] }).opened();
    const log = await worker.claim(me.userId, await acceptedRun(me));
    await log.started();
    stream.destroy();
    const path = encodeURIComponent('chat 2/ö');
    const resumed = await get(me, `${path}/stream`, 1).opened();
    const stopped = await openStream(`${api(1)}/${path}/stop`, { method: 'POST', token: me.token }).ended();
    expect(stopped.status).toBe(202);
    await log.cancelled();
    await resumed.ended();
    expect([resumed.end, resumed.types]).toEqual(['complete', ['start', 'abort', 'data-tollgate', 'finish']]);
    expect((await openStream(`${api()}/${path}/stop`, { method: 'POST', token: me.token }).ended()).status).toBe(204);
  });
});

describe('GET /v1/chat/{chat_id}/stream', () => {
  it('is 204 when nothing runs, also for the chat of another user, and 404 for the run of another user', async () => {
    const [me, other] = [user(), user()];
    await post(other, { id: 'chat-1', messages: [message('m', 'Hello')] }).opened();
    expect((await get(me, 'chat-1/stream').ended()).status).toBe(204);
    expect((await get(me, 'chat-1/stream?startIndex=0').ended()).status).toBe(204);
    const foreign = await get(me, `${await acceptedRun(other)}.epoch_1.1/stream?startIndex=3`).ended();
    expect(errorOf(foreign)).toMatchObject([404, { code: 'RUN_NOT_FOUND' }]);
    const nobody = await openStream(`${api()}/chat-1/stream`).ended();
    expect(errorOf(nobody)).toMatchObject([401, { code: 'NO_TOKEN' }]);
  });

  it('with an index of another mapping or another history ends with error and finish', async () => {
    const me = user();
    const stream = await post(me, { id: 'chat-1', messages: [message('m', 'Hello')] }).opened();
    const [run, epoch] = String(stream.headers['x-workflow-run-id']).split('.');
    for (const name of [`${run}.${epoch}.999`, `${run}.epoch_0.1`]) {
      const refused = await get(me, `${name}/stream?startIndex=1`).ended();
      expect([refused.status, refused.end, refused.types]).toEqual([200, 'complete', ['error', 'finish']]);
    }
  });

  it('gives the end of a run that has ended while its client was away', async () => {
    const me = user();
    const stream = await post(me, { id: 'chat-1', messages: [message('m', 'Hello')] }).opened();
    stream.destroy();
    const log = await worker.claim(me.userId, await acceptedRun(me));
    for (const append of FULL_RUN) await append(log);
    const resumed = await get(me, 'chat-1/stream', 1).ended();
    expect([resumed.end, resumed.events.length]).toEqual(['complete', CHUNKS]);
  });

  it('gives the answer of an ended run whose beginning the log no longer has, and EVENTS_TRIMMED before', async () => {
    const me = user();
    const stream = await post(me, { id: 'chat-1', messages: [message('m', 'Hello')] }).opened();
    stream.destroy();
    const log = await worker.claim(me.userId, await acceptedRun(me));
    for (const append of FULL_RUN.slice(0, -1)) await append(log);
    await worker.redis.xtrim(worker.keys.user(me.userId).log, 'MAXLEN', 2);
    expect(errorOf(await get(me, 'chat-1/stream').ended())).toMatchObject([410, { code: 'EVENTS_TRIMMED' }]);
    await FULL_RUN.at(-1)?.(log);
    const resumed = await get(me, 'chat-1/stream', 1).ended();
    expect([resumed.end, resumed.types]).toEqual([
      'complete',
      ['start', 'start-step', 'text-start', 'text-delta', 'text-end', 'finish-step', 'data-tollgate', 'finish'],
    ]);
    // Each name counts its own chunks.
    const whole = String(stream.headers['x-workflow-run-id']);
    const part = String(resumed.headers['x-workflow-run-id']);
    expect((await get(me, `${whole}/stream?startIndex=3`).ended()).types).toEqual(['error', 'finish']);
    expect((await get(me, `${part}/stream?startIndex=3`).ended()).types).toEqual(resumed.types.slice(3));
    for (const client of [CLIENTS.DefaultChatTransport, CLIENTS.WebSocketChatTransport]) {
      if (!client) throw new Error('no client');
      const chat = new TestChat({ id: 'chat-1', transport: client(me, cuttingFetch(NO_CUT)) });
      await chat.resumeStream();
      expect([chat.status, chat.messages.at(-1)?.parts]).toMatchObject([
        'ready',
        [{ type: 'step-start' }, { type: 'text', text: 'It is twelve – 十二.' }],
      ]);
    }
  });
});
