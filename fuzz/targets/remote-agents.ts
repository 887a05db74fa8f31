import { Response } from 'undici';
import { z } from 'zod';
import { a2aRunner } from '../../src/agents/remote/a2a-agent.ts';
import { aguiRunner } from '../../src/agents/remote/agui-agent.ts';
import { RemoteBody } from '../../src/agents/remote/body.ts';
import { Budget } from '../../src/agents/remote/budget.ts';
import { RemoteFault } from '../../src/agents/remote/fault.ts';
import { httpRunner } from '../../src/agents/remote/http-agent.ts';
import { responsesRunner } from '../../src/agents/remote/responses-agent.ts';
import type { TurnRunner } from '../../src/agents/remote/turn.ts';
import { REMOTE_KINDS, type RemoteSettings } from '../../src/catalogue/remote-agents.ts';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { FormSchema, type InputRequest } from '../../src/protocol/input.ts';
import { isWithinJsonBounds } from '../../src/protocol/json-bounds.ts';
import { require, requireSame, type Target } from '../lib/target.ts';

/** Waits between two connections end at once. Deadlines of silence are longer than a run. */
const clock: Clock = {
  ...systemClock,
  after(ms, task) {
    if (ms > 10_000) return systemClock.after(ms, task);
    const waiting = setImmediate(task);
    return () => clearImmediate(waiting);
  },
};
const BOUNDS = { maxDepth: 66, maxValues: 100_000 };
const MAX_EVENTS = 200;
const LIMITS = { event_kib: 4, total_kib: 64, events: MAX_EVENTS };

function settingsOf<Settings extends RemoteSettings>(kind: Settings['kind']): Settings {
  const row = { kind, url: 'http://agent.test/', secret: 'secret of the fuzz targets alone', ...LIMITS };
  return z.object(REMOTE_KINDS[kind]).parse(row) as unknown as Settings;
}

function bodyOf(input: Buffer, { budget, type, pieces }: { budget: Budget; type: string; pieces: number }): RemoteBody {
  const size = Math.max(1, Math.ceil(input.length / pieces));
  const stream = new ReadableStream<Uint8Array>({
    start(controller) {
      for (let at = 0; at < input.length; at += size) controller.enqueue(input.subarray(at, at + size));
      controller.close();
    },
  });
  const abort = new AbortController();
  const deps = { clock, signal: new AbortController().signal, abort, budget, onFault: () => undefined };
  return new RemoteBody(deps, new Response(stream, { headers: { 'content-type': type } }), 60_000);
}

/** Runs a turn whose server answers each request with the input; records what it writes into the log. */
async function turn<Settings extends RemoteSettings>(
  runner: TurnRunner<Settings>,
  settings: Settings,
  { input, type }: { input: Buffer; type: string },
): Promise<void> {
  const budget = new Budget(settings);
  let text = 0;
  let requests = 0;
  const write = async (...fields: unknown[]) => {
    const json = JSON.stringify(fields);
    require(isWithinJsonBounds(json, { ...BOUNDS, maxDepth: BOUNDS.maxDepth + 4 }), 'an event has bounded JSON');
    require(json.isWellFormed(), 'an event is well-formed');
  };
  const remote = {
    ...{ takenOver: false, cursor: undefined, position: 0 },
    ...{ resume() {}, restart() {}, endMessage() {} },
    save: write,
    flush: async () => undefined,
    event: write,
    async text(delta: unknown) {
      require(typeof delta === 'string', 'a text is a text');
      text += String(delta).length;
    },
    reasoning: async (delta: unknown) => require(typeof delta === 'string', 'a text is a text'),
  };
  const outcome = { success: true, result: { n: 1 }, duration_ms: 1, usage_record_id: null };
  const asked = async (_tool: string, args: unknown) => {
    await write(args);
    return outcome;
  };
  const context = {
    remote,
    call: asked,
    callClientTool: asked,
    async requestInput(request: InputRequest) {
      require(request.message.length <= 2_000 && request.message.isWellFormed(), 'a question is bounded text');
      if (request.kind === 'form')
        require(FormSchema.safeParse(request.schema).success, 'a form has the schema of one');
      return { action: 'accept', content: { answer: 'yes' } };
    },
    signal: new AbortController().signal,
  };
  const client = {
    resolve: () => settings.url,
    async open() {
      requests += 1;
      if (requests > 12) throw new RemoteFault('refused', 'enough requests');
      return bodyOf(input, { budget, type, pieces: 1 + (input.length % 5) });
    },
  };
  const task = {
    ...{
      agent: 'a',
      userId: 'user_1',
      runId: 'run_1',
      message: 'Hello',
      threadId: 't',
      deadlineAt: Date.now() + 60_000,
    },
    ...{ instructions: 'x', model: undefined, tools: ['count'], clientTools: [{ name: 'pick', description: 'p' }] },
    ...{ caller: { plan: 'pro' }, degraded: false },
  };
  const ignored = (type: unknown) =>
    require(typeof type === 'string' && type.length <= 5_000, 'an ignored type is text');
  const given = { task, context, settings, client, budget, history: [], toolAccess: undefined, ignored };
  const answer = await runner(given as never);
  require(typeof answer.text === 'string' && answer.text.length <= 2 * LIMITS.total_kib * 1_024, 'an answer is text');
  require(text <= 12 * LIMITS.total_kib * 1_024, 'the text is not longer than what was sent');
  const { input: sent = 0, output = 0 } = answer.tokens ?? {};
  require([sent, output].every((count) => Number.isSafeInteger(count) && count >= 0), 'tokens are whole numbers');
}

const isFault = (error: unknown) => error instanceof RemoteFault && error.public.code !== 'INTERNAL_ERROR';

const sse = (...events: object[]) => events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join('');
const lines = (...values: object[]) => values.map((value) => `${JSON.stringify(value)}\n`).join('');

async function valuesOf(values: AsyncIterable<unknown>) {
  const read: unknown[] = [];
  let fault: string | undefined;
  try {
    for await (const value of values) read.push(value);
  } catch (error) {
    if (!(error instanceof RemoteFault)) throw error;
    fault = error.reason;
  }
  return { read, fault };
}

const body: Target = {
  name: 'agent-body',
  seeds: [
    sse({ a: 1 }, { b: [] }),
    'id: 7\nevent: x\ndata: {"a":\ndata: 1}\n\n: c\r\n\r\ndata: [DONE]\n\n',
    lines({ a: 1 }, { b: '\ud800' }),
  ],
  words: ['data: ', '\n\n', '\r\n', '[DONE]', 'event:', ': ', 'id: ', 'retry: ', '\\ud800', '\ufeff'],
  maxBytes: 16_384,
  packages: ['eventsource-parser'],
  isRefusal: () => false,
  async run(input) {
    for (const kind of ['lines', 'events'] as const) {
      const read = (pieces: number) => {
        return valuesOf(bodyOf(input, { budget: new Budget(LIMITS), type: 'text/event-stream', pieces })[kind]());
      };
      const [whole, other] = await Promise.all([read(1), read(9)]);
      require(whole.read.length <= MAX_EVENTS, 'events are bounded');
      // The bound applies to what is pending, which depends on the boundaries.
      const isCut = [whole, other].some(({ fault }) => fault === 'too_large');
      if (!isCut) requireSame(other, whole, 'the boundaries of the pieces do not matter');
      require(JSON.stringify(whole).isWellFormed(), 'values are well-formed');
    }
  },
};

const http: Target = {
  name: 'agent-http',
  seeds: [
    lines({ type: 'think', text: 'x' }, { type: 'text', delta: 'Hi' }, { type: 'done', final_response: 'Hi' }),
    lines(
      { type: 'call', id: '1', tool: 'own', arguments: {} },
      { type: 'result', id: '1', error: 'no' },
      { type: 'done' },
    ),
    lines({ type: 'wait', state: {}, requests: [{ id: 'a', kind: 'choice', message: 'm', choices: ['x'] }] }),
    lines({ type: 'wait', requests: [{ id: 'a', kind: 'tool', tool: 'count', arguments: { days: 1 } }] }),
    lines({ type: 'state', state: [] }, { type: 'error', code: 'x', retryable: true, usage: { input_tokens: 1 } }),
  ],
  words: [
    'type',
    'text',
    'delta',
    'done',
    'wait',
    'requests',
    'kind',
    'form',
    'approval',
    'schema',
    'call',
    'result',
    'error',
    'usage',
    '\n',
  ],
  maxBytes: 8_192,
  isRefusal: isFault,
  run: (input) =>
    turn(httpRunner('secret of the fuzz targets', clock), settingsOf('http'), { input, type: 'application/x-ndjson' }),
};

const agui: Target = {
  name: 'agent-ag-ui',
  seeds: [
    sse(
      { type: 'RUN_STARTED' },
      { type: 'TEXT_MESSAGE_CONTENT', messageId: 'm', delta: 'Hi' },
      { type: 'RUN_FINISHED' },
    ),
    sse(
      { type: 'TOOL_CALL_START', toolCallId: 'c', toolCallName: 'count' },
      { type: 'TOOL_CALL_ARGS', toolCallId: 'c', delta: '{"days":1}' },
      { type: 'TOOL_CALL_END', toolCallId: 'c' },
      { type: 'RUN_FINISHED' },
    ),
    sse(
      { type: 'STATE_SNAPSHOT', snapshot: { a: [1] } },
      { type: 'STATE_DELTA', delta: [{ op: 'copy', from: '/a', path: '/a/0' }] },
      { type: 'RUN_FINISHED', outcome: { type: 'interrupt', interrupts: [{ id: 'i', message: 'ok?' }] } },
    ),
    sse(
      { type: 'TOOL_CALL_CHUNK', toolCallId: 'c', toolCallName: 'own', delta: '{}' },
      { type: 'TOOL_CALL_RESULT', toolCallId: 'c', content: 'x' },
      { type: 'RUN_ERROR', code: 'x' },
    ),
    sse(
      { type: 'MESSAGES_SNAPSHOT', messages: [{ role: 'assistant', content: 'x' }] },
      { type: 'ACTIVITY_DELTA', patch: [] },
      { type: 'RUN_FINISHED' },
    ),
  ],
  words: [
    'TEXT_MESSAGE_START',
    'TEXT_MESSAGE_CHUNK',
    'STATE_DELTA',
    'REASONING_MESSAGE_CONTENT',
    'op',
    'copy',
    'add',
    'move',
    'from',
    'path',
    '/a',
    '/-',
    'value',
    'toolCallId',
    'outcome',
    'usage',
    'count',
    'pick',
  ],
  maxBytes: 8_192,
  packages: ['fast-json-patch'],
  isRefusal: isFault,
  run: (input) =>
    turn(aguiRunner({ clock, tools: { get: () => undefined } }), settingsOf('agui'), {
      input,
      type: 'text/event-stream',
    }),
};

const responses: Target = {
  name: 'agent-responses',
  seeds: [
    sse(
      { type: 'response.created', sequence_number: 0, response: { id: 'resp_1' } },
      { type: 'response.output_text.delta', sequence_number: 1, delta: 'Hi' },
      {
        type: 'response.completed',
        sequence_number: 2,
        response: { id: 'resp_1', status: 'completed', output: [], usage: { input_tokens: 1, output_tokens: 1 } },
      },
    ),
    sse(
      {
        type: 'response.output_item.done',
        item: { type: 'function_call', call_id: 'c', name: 'pick', arguments: '{}' },
      },
      { type: 'response.completed', response: { id: 'r' } },
    ),
    sse(
      { type: 'response.output_item.added', item: { type: 'mcp_call', id: 'm', name: 'x', server_label: 'l' } },
      { type: 'response.failed', response: { error: { code: 'x' } } },
    ),
    sse(
      {
        type: 'response.output_item.done',
        item: { type: 'mcp_approval_request', id: 'a', name: 'x', arguments: '{}' },
      },
      { type: 'response.incomplete', response: { incomplete_details: { reason: 'max_output_tokens' } } },
    ),
  ],
  words: [
    'response.created',
    'response.completed',
    'response.output_item.done',
    'response.refusal.delta',
    'sequence_number',
    'item',
    'type',
    'function_call',
    'mcp_call',
    'arguments',
    'output',
    'message',
    'content',
    'output_text',
    'error',
    'code',
  ],
  maxBytes: 8_192,
  isRefusal: isFault,
  run: (input) => turn(responsesRunner(clock), settingsOf('responses'), { input, type: 'text/event-stream' }),
};

const rpc = (result: object) => ({ jsonrpc: '2.0', id: 1, result });
const card = {
  supportedInterfaces: [{ protocolBinding: 'JSONRPC', url: 'http://agent.test/' }],
  capabilities: { streaming: true },
};

const a2a: Target = {
  name: 'agent-a2a',
  seeds: [
    // The same bytes answer the request for the card, and the messages.
    JSON.stringify({
      ...card,
      ...rpc({
        task: {
          id: 't',
          status: { state: 'TASK_STATE_COMPLETED' },
          artifacts: [{ artifactId: 'a', parts: [{ text: 'Hi' }] }],
        },
      }),
    }),
    JSON.stringify({ ...card, ...rpc({ message: { parts: [{ text: 'Hi' }] } }) }),
    JSON.stringify({
      ...card,
      ...rpc({
        statusUpdate: {
          taskId: 't',
          status: { state: 'TASK_STATE_INPUT_REQUIRED', message: { messageId: 'm', parts: [{ text: '?' }] } },
        },
      }),
    }),
    JSON.stringify({
      ...card,
      ...rpc({
        artifactUpdate: {
          taskId: 't',
          append: true,
          artifact: { artifactId: 'a', parts: [{ data: {} }, { raw: 'AA==' }] },
        },
      }),
    }),
    JSON.stringify({ ...card, error: { code: -32001, message: 'x' } }),
  ],
  words: [
    'result',
    'task',
    'message',
    'statusUpdate',
    'artifactUpdate',
    'status',
    'state',
    'TASK_STATE_FAILED',
    'TASK_STATE_AUTH_REQUIRED',
    'parts',
    'text',
    'data',
    'url',
    'capabilities',
    'streaming',
    'metadata',
    'usage',
  ],
  maxBytes: 8_192,
  isRefusal: isFault,
  run: (input) => turn(a2aRunner(clock), settingsOf('a2a'), { input, type: 'application/json' }),
};

export const REMOTE_AGENT_TARGETS: readonly Target[] = [body, http, agui, responses, a2a];
