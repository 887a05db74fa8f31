import { EventEncoder } from '@ag-ui/encoder';
import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { AgentServer } from '../support/agent-server.ts';
import { closeAfter } from '../support/open-resources.ts';
import { RemoteRuns } from '../support/remote-runs.ts';
import { until } from '../support/until.ts';

let server: AgentServer;
let runs: RemoteRuns;
const encoder = new EventEncoder();

beforeAll(async () => {
  server = await AgentServer.start();
  closeAfter('file', () => server.close());
  runs = await RemoteRuns.start();
});

beforeEach(() => {
  server.requests.length = 0;
});

type Event = { readonly type: string; readonly [field: string]: unknown };

const row = (more: object = {}) => ({ kind: 'agui', url: server.url, ...more });
const started = { type: 'RUN_STARTED', threadId: 't', runId: 'r' };
const finished = (more: object = {}) => ({ type: 'RUN_FINISHED', threadId: 't', runId: 'r', ...more });
const message = (id: string, ...deltas: string[]): Event[] => [
  { type: 'TEXT_MESSAGE_START', messageId: id, role: 'assistant' },
  ...deltas.map((delta) => ({ type: 'TEXT_MESSAGE_CONTENT', messageId: id, delta })),
  { type: 'TEXT_MESSAGE_END', messageId: id },
];
const call = (id: string, name: string, args: string): Event[] => [
  { type: 'TOOL_CALL_START', toolCallId: id, toolCallName: name },
  { type: 'TOOL_CALL_ARGS', toolCallId: id, delta: args.slice(0, 3) },
  { type: 'TOOL_CALL_ARGS', toolCallId: id, delta: args.slice(3) },
  { type: 'TOOL_CALL_END', toolCallId: id },
];
/** Answers request n with the nth list of events, as the package of AG-UI encodes them. */
const answer = (...rounds: readonly (readonly Event[])[]) => {
  server.serve = (_request, response, at) => {
    response.writeHead(200, { 'content-type': encoder.getContentType() });
    for (const event of rounds[at] ?? [])
      response.write(encoder.encodeSSE(event as Parameters<typeof encoder.encodeSSE>[0]));
    response.end();
  };
};

describe('an agent of kind agui', () => {
  it('receives a RunAgentInput with the thread, the tools and what the operator chose', async () => {
    answer([started, ...message('m', 'One.'), finished()], [started, finished()]);
    const chosen = row({
      tools: ['count'],
      forwarded_props: { tenant: 'a' },
      state: { n: 1 },
      instructions: 'Be brief.',
    });
    const { userId } = await runs.run(chosen);
    await runs.run(chosen, {}, { userId, message: 'And now?' });
    expect(server.requests[1]?.body).toMatchObject({
      threadId: 'thread_1',
      runId: expect.stringMatching(/^run_/),
      state: { n: 1 },
      tools: [{ name: 'count', parameters: { type: 'object' } }],
      context: [],
      forwardedProps: { tenant: 'a' },
      messages: [
        { role: 'system', content: 'Be brief.' },
        { role: 'user', content: 'Count.' },
        { role: 'assistant', content: 'One.' },
        { role: 'user', content: 'And now?' },
      ],
    });
  });

  it('becomes events of the run, none of which is dropped silently', async () => {
    answer([
      started,
      { type: 'STEP_STARTED', stepName: 'search' },
      { type: 'REASONING_MESSAGE_CONTENT', messageId: 'q', delta: 'I look.' },
      ...call('c1', 'lookup', '{"q":"x"}'),
      { type: 'TOOL_CALL_RESULT', messageId: 'm0', toolCallId: 'c1', content: 'two' },
      { type: 'STATE_SNAPSHOT', snapshot: { n: 1 } },
      { type: 'STATE_DELTA', delta: [{ op: 'replace', path: '/n', value: 2 }] },
      { type: 'ACTIVITY_SNAPSHOT', messageId: 'a', activityType: 'plan', content: { steps: 2 } },
      { type: 'CUSTOM', name: 'hint', value: 7 },
      { type: 'SOMETHING_NEW', of: 'a later version' },
      ...message('m1', 'First.'),
      ...message('m2', 'Sec', 'ond.'),
      finished({ usage: [{ model: 'm', inputTokens: 10, outputTokens: 5 }] }),
    ]);
    const { end, events, userId } = await runs.run(row());
    expect(end).toBe('completed');
    expect(events).toMatchObject([
      { type: 'agent_started' },
      { type: 'agent_activity', activity_id: 'search', activity_type: 'step' },
      { type: 'agent_reasoning', reasoning: 'I look.' },
      { type: 'tool_executing', tool_name: 'lookup', arguments: { q: 'x' }, remote: true },
      { type: 'tool_completed', tool_call_id: 'c1', result: 'two', remote: true },
      { type: 'agent_state', snapshot: { n: 1 } },
      { type: 'agent_state', delta: [{ op: 'replace', path: '/n', value: 2 }] },
      { type: 'agent_activity', activity_type: 'plan', content: { steps: 2 } },
      { type: 'agent_activity', activity_id: 'hint', activity_type: 'custom', content: 7 },
      { type: 'agent_thinking', thought: 'First.', step: 2 },
      { type: 'agent_thinking', thought: 'Second.', step: 3 },
      { type: 'agent_completed', final_response: 'Second.' },
    ]);
    expect(await runs.records({ userId })).toMatchObject([
      { tool: 'agent:remote', units_by_kind: { input_tokens: 10, output_tokens: 5 }, reported: true },
    ]);
    expect(await runs.core.metrics.registry.metrics()).toMatch(/agent_ignored_events_total\{agent="remote"\} 1/);
  });

  it('calls tools of Tollgate as client tools: in the run, with events, quota and bill', async () => {
    answer(
      [
        started,
        ...message('m1', 'I count.'),
        ...call('c1', 'count', '{}'),
        ...call('c2', 'count', 'no JSON'),
        finished(),
      ],
      [started, ...message('m2', 'Four.'), finished()],
    );
    const { end, events, userId } = await runs.run(row({ tools: ['count'] }), { count: async () => ({ counted: 4 }) });
    expect(end).toBe('completed');
    expect(events.map(({ type }) => type)).toEqual([
      'agent_started',
      'agent_thinking',
      'tool_executing',
      'tool_completed',
      'agent_thinking',
      'agent_completed',
    ]);
    expect(events[2]).not.toHaveProperty('remote');
    const second = server.requests[1]?.body.messages as readonly Record<string, unknown>[];
    expect(second.slice(-3)).toMatchObject([
      { role: 'assistant', toolCalls: [{ id: 'c1' }, { id: 'c2' }] },
      { role: 'tool', toolCallId: 'c1', content: '{"result":{"counted":4}}' },
      { role: 'tool', toolCallId: 'c2', content: expect.stringContaining('FORMAT_ERROR') },
    ]);
    expect((await runs.records({ userId })).map(({ tool }) => tool)).toEqual(['count', 'agent:remote']);
  });

  it('is read in the form of older and lenient servers: CRLF, chunks, events without a start', async () => {
    const events = [
      started,
      { type: 'THINKING_TEXT_MESSAGE_CONTENT', delta: 'Hm.' },
      { type: 'TEXT_MESSAGE_CHUNK', messageId: 'm', delta: 'No ' },
      { type: 'TEXT_MESSAGE_CHUNK', delta: 'start.' },
      { type: 'TOOL_CALL_CHUNK', toolCallId: 'c', toolCallName: 'own', delta: '{"a"' },
      { type: 'TOOL_CALL_CHUNK', delta: ':1}' },
      finished(),
    ];
    server.serve = (_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' });
      response.end(events.map((event) => `: ping\r\nid: 1\r\ndata:${JSON.stringify(event)}\r\n\r\n`).join(''));
    };
    const { end, events: written } = await runs.run(row());
    expect(end).toBe('completed');
    expect(written).toMatchObject([
      { type: 'agent_started' },
      { type: 'agent_reasoning', reasoning: 'Hm.' },
      { type: 'agent_thinking', thought: 'No start.' },
      { type: 'tool_executing', arguments: { a: 1 } },
      { type: 'tool_completed', success: false },
      { type: 'agent_completed', final_response: 'No start.' },
    ]);
  });

  it.each([
    [
      'an interrupt without an id',
      finished({ outcome: { type: 'interrupt', interrupts: [{ reason: 'approval' }] } }),
      'AGENT_FAILED',
      'invalid',
    ],
    ['a cancelled outcome', finished({ outcome: { type: 'cancelled' } }), 'AGENT_FAILED', 'cancelled'],
    ['an unknown outcome', finished({ outcome: { type: 'new' } }), 'AGENT_FAILED', 'invalid'],
    ['RUN_ERROR', { type: 'RUN_ERROR', message: 'at 10.0.0.1', code: 'E_DOWN' }, 'AGENT_FAILED', 'error'],
  ])('ends the run with a clear error after %s', async (_name, last, code, reason) => {
    answer([started, ...message('m', 'Half.'), last]);
    const { end, events } = await runs.run(row());
    expect(end).toBe('failed');
    expect(events.at(-1)).toMatchObject({ error: { code, reason } });
    expect(JSON.stringify(events)).not.toContain('10.0.0.1');
    expect(events.at(-2)).toMatchObject({ thought: 'Half.' });
  });

  it('is not called twice by a worker that takes the run over, unless it is repeatable', async () => {
    answer([started, ...message('m', 'A.'), finished()], [started, ...message('m', 'B.'), finished()]);
    for (const [repeatable, end] of [
      [false, 'failed'],
      [true, 'completed'],
    ] as const) {
      server.requests.length = 0;
      const chosen = row({ repeatable });
      const accepted = await runs.accept(chosen);
      const dying = runs.dyingLog(2);
      void runs.executor(chosen, { log: dying.log }).execute(await runs.claim(chosen, accepted));
      await until(dying.dead);
      expect(await runs.executor(chosen).execute(await runs.claim(chosen, accepted))).toBe(end);
      expect(server.requests).toHaveLength(repeatable ? 2 : 1);
      const thoughts = (await runs.events(accepted)).filter(({ type }) => type === 'agent_thinking');
      expect(thoughts.at(-1)).toMatchObject(repeatable ? { thought: 'B.', replaces_step: 1 } : { thought: 'A.' });
    }
  });
});
