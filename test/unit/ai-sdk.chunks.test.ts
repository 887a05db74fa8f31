import { describe, expect, it } from '@jest/globals';
import { readUIMessageStream, type UIMessage, uiMessageChunkSchema } from 'ai';
import fc from 'fast-check';
import { ChatResponse } from '../../src/frontends/ai-sdk/chat-response.ts';
import {
  type Chunk,
  errorChunks,
  INITIAL_STATE,
  MAPPING_VERSION,
  mapEvent,
} from '../../src/frontends/ai-sdk/chunks.ts';
import { addText, EMPTY_DIGEST, isDigestOf } from '../../src/frontends/ai-sdk/text-digest.ts';
import type { RunEvent } from '../../src/frontends/run-events.ts';
import { TollgateError } from '../../src/protocol/errors.ts';

type Row = readonly [type: string, fields?: object];

function events(rows: readonly Row[]): RunEvent[] {
  const ids = { run_id: 'run_1', thread_id: 'thread_1', agent_name: 'triage_agent' };
  return rows.map(([type, fields], at) => ({ type, epoch: 'epoch_1', seq: at + 1, fields: { ...ids, ...fields } }));
}

function chunksOf(rows: readonly Row[]): Chunk[] {
  let state = INITIAL_STATE;
  return events(rows).flatMap((event) => {
    const mapped = mapEvent(state, event);
    expect(mapped.state.chunks).toBe(state.chunks + mapped.chunks.length);
    ({ state } = mapped);
    return mapped.chunks;
  });
}

/** The message that the AI SDK builds from the chunks. */
async function messageOf(chunks: readonly Chunk[]): Promise<UIMessage | undefined> {
  let message: UIMessage | undefined;
  const stream = ReadableStream.from(chunks) as ReadableStream<Chunk>;
  for await (const next of readUIMessageStream({ stream, terminateOnError: true })) message = next;
  return message;
}

const say = (step: number, thought: string, extra: object = {}): Row => ['agent_thinking', { step, thought, ...extra }];
const execute = (id: string): Row => [
  'tool_executing',
  { tool_call_id: id, tool_name: 'count', arguments: { days: 7 } },
];
const succeed = (id: string): Row => ['tool_completed', { tool_call_id: id, success: true, result: { units: 12 } }];
const complete = (final_response: string): Row => ['agent_completed', { final_response, status: 'completed' }];

const RUN: readonly Row[] = [
  ['agent_started', { message: 'Hello' }],
  ['agent_reasoning', { step: 1, reasoning: 'Both.' }],
  say(1, 'I look '),
  say(1, 'at both.', { usage_record_id: 'usage_1' }),
  execute('a'),
  execute('b'),
  succeed('b'),
  ['tool_completed', { tool_call_id: 'a', success: false, error: { code: 'TOOL_FAILED', message: 'It failed.' } }],
  say(2, 'Aborted'),
  say(3, 'It is ', { replaces_step: 2 }),
  say(3, 'twelve.\n', { usage_record_id: 'usage_2' }),
  complete('It is twelve.'),
];

describe('the chunks of a run', () => {
  it('are those of version 3 for a run with parallel tools, two steps and a replaced step', () => {
    // Clients count chunks: if this list changes, raise MAPPING_VERSION.
    expect(MAPPING_VERSION).toBe(3);
    expect(chunksOf(RUN).map(({ type }) => type)).toEqual([
      'start',
      ...[
        'start-step',
        'reasoning-start',
        'reasoning-delta',
        'reasoning-end',
        'text-start',
        'text-delta',
        'text-delta',
      ],
      ...['text-end', 'tool-input-available', 'tool-input-available', 'tool-output-available', 'tool-output-error'],
      ...['finish-step', 'start-step', 'text-start', 'text-delta'],
      ...['reset-step', 'text-start', 'text-delta', 'text-delta', 'text-end', 'finish-step'],
      ...['data-tollgate', 'finish'],
    ]);
  });

  it('build the message of the run, without the parts of a replaced step', async () => {
    const message = await messageOf(chunksOf(RUN));
    expect(message).toMatchObject({
      id: 'run_1',
      role: 'assistant',
      metadata: {
        tollgate: { epoch: 'epoch_1', seq: 12, run_id: 'run_1', thread_id: 'thread_1', agent: 'triage_agent' },
      },
    });
    expect(message?.parts).toMatchObject([
      { type: 'step-start' },
      { type: 'reasoning', text: 'Both.', state: 'done' },
      { type: 'text', text: 'I look at both.', state: 'done' },
      { type: 'tool-count', toolCallId: 'a', state: 'output-error', errorText: 'It failed.', input: { days: 7 } },
      { type: 'tool-count', toolCallId: 'b', state: 'output-available', output: { units: 12 }, providerExecuted: true },
      { type: 'step-start' },
      { type: 'text', text: 'It is twelve.\n', state: 'done' },
    ]);
  });

  it('have the answer as a step of its own unless the last step said it', async () => {
    const texts = async (rows: readonly Row[]) => {
      const { parts = [] } = (await messageOf(chunksOf(rows))) ?? {};
      return parts.flatMap((part) => (part.type === 'text' ? [part.text] : []));
    };
    const started: Row = ['agent_started', {}];
    expect(await texts([started, say(1, 'Looking.'), complete('Twelve.')])).toEqual(['Looking.', 'Twelve.']);
    expect(await texts([started, complete('Twelve.')])).toEqual(['Twelve.']);
    expect(await texts([started, say(1, ' Twelve.'), complete('Twelve.')])).toEqual([' Twelve.']);
    expect(await texts([started, say(1, 'Twelve.'), complete('')])).toEqual(['Twelve.']);
  });

  it.each([
    [
      ['agent_failed', { error: { code: 'RATE_LIMITED', message: 'Later.', retry_after_ms: 5 }, status: 'failed' }],
      {
        type: 'error',
        code: 'RATE_LIMITED',
        retry_after_ms: 5,
        errorText: expect.stringContaining('"message":"Later."'),
      },
      'error',
    ],
    [['agent_cancelled', { status: 'cancelled' }], { type: 'abort', reason: 'cancelled' }, 'other'],
  ] as const)('always end with finish: %j', (end, expected, finishReason) => {
    const chunks = chunksOf([['agent_started'], say(1, 'Half'), end]);
    expect(chunks).toContainEqual(expected);
    expect(chunks.at(-1)).toMatchObject({ type: 'finish', finishReason });
    const data = chunks.find(({ type }) => type === 'data-tollgate');
    expect(data).toMatchObject({ transient: true, data: { run_id: 'run_1', status: end[1].status } });
  });

  it('ignore events of later versions', () => {
    expect(chunksOf([['agent_of_tomorrow', { request_id: 'r' }]])).toEqual([]);
  });

  it('of an error of the gateway have its code, the time to wait, and an end', () => {
    const error = new TollgateError('SERVER_DRAINING', { retryAfterMs: 300 });
    expect(errorChunks(error)).toMatchObject([
      { type: 'error', code: 'SERVER_DRAINING', retry_after_ms: 300 },
      { type: 'finish', finishReason: 'error' },
    ]);
  });

  it('are valid for the AI SDK and build a message for every run', async () => {
    const row = fc.oneof(
      fc.tuple(fc.integer({ min: 1, max: 4 }), fc.string(), fc.boolean()).map(([step, thought, replaces]) => {
        return say(step, thought, replaces ? { replaces_step: step - 1 } : {});
      }),
      fc.tuple(fc.integer({ min: 1, max: 4 }), fc.string()).map(([step, reasoning]): Row => {
        return ['agent_reasoning', { step, reasoning }];
      }),
    );
    const end = fc.constantFrom<Row>(complete('Done.'), ['agent_cancelled', {}]);
    const { validate } = uiMessageChunkSchema();
    await fc.assert(
      fc.asyncProperty(fc.array(row, { maxLength: 12 }), fc.nat(3), end, async (rows, calls, last) => {
        const ids = Array.from({ length: calls }, (_, at) => `call_${at}`);
        const all = [['agent_started'] as const, ...rows, ...ids.map(execute), ...ids.reverse().map(succeed), last];
        const chunks = chunksOf(all);
        for (const chunk of chunks) expect(await validate?.(chunk)).toMatchObject({ success: true });
        const message = await messageOf(chunks);
        expect(message?.parts.filter(({ type }) => type === 'tool-count')).toHaveLength(calls);
        expect(chunks.at(-1)?.type).toBe('finish');
      }),
      { numRuns: 25 },
    );
  });
});

describe('the chunks of a response', () => {
  const approval = (id: string): Row => [
    'input_requested',
    { input_id: `input_${id}`, kind: 'approval', tool_call_id: id, tool_name: 'count', message: 'May it?' },
  ];
  const choice: Row = ['input_requested', { input_id: 'input_c', kind: 'choice', message: '?', choices: ['a', 'b'] }];
  const received = (kind: string, id: string, action: string): Row => [
    'input_received',
    { input_id: `input_${id}`, kind, action, ...(kind === 'choice' ? {} : { tool_call_id: id }) },
  ];
  const started: Row = ['agent_started', {}];
  const types = (chunks: readonly Chunk[]) => chunks.map(({ type }) => type);

  /** The chunks of a response that has caught up after some of the events. */
  function respond(rows: readonly Row[], caughtUpAfter: number, after = 0) {
    const response = new ChatResponse('run_1', after);
    const chunks = events(rows).flatMap((event, at) => {
      const added = response.add(event);
      return at + 1 === caughtUpAfter ? [...added, ...response.caughtUp()] : added;
    });
    expect(response.sent).toBe(chunks.length);
    return { chunks, hasEnded: response.hasEnded };
  }

  it('end with the request for the last approval, when no other call continues', () => {
    const rows = [started, execute('a'), execute('b'), execute('c'), approval('a'), succeed('c'), approval('b')];
    for (const caughtUpAfter of [1, 5, 7]) {
      const { chunks, hasEnded } = respond(rows, caughtUpAfter);
      expect(hasEnded).toBe(true);
      expect(types(chunks).slice(-2)).toEqual(['tool-approval-request', 'finish']);
      expect(types(chunks).filter((type) => type === 'finish')).toHaveLength(1);
      expect(chunks.at(-1)).toMatchObject({ finishReason: 'tool-calls', messageMetadata: { tollgate: { seq: 7 } } });
    }
  });

  it('pass over a wait that has ended before the response caught up', () => {
    const rows = [started, execute('a'), approval('a'), received('approval', 'a', 'accept'), succeed('a')];
    const { chunks, hasEnded } = respond([...rows, complete('Done.')], 5);
    expect(types(chunks).filter((type) => type === 'finish')).toHaveLength(1);
    expect([hasEnded, types(chunks).slice(5, 7)]).toEqual([true, ['tool-approval-response', 'tool-output-available']]);
  });

  it('continue after the position of an approval, with the id of the message', () => {
    const rows = [started, execute('a'), approval('a'), received('approval', 'a', 'decline')];
    const denied: Row = ['tool_completed', { tool_call_id: 'a', success: false, error: { code: 'APPROVAL_DECLINED' } }];
    const { chunks, hasEnded } = respond([...rows, denied, complete('No.')], 4, 3);
    expect(chunks.slice(0, 3)).toMatchObject([
      { type: 'start', messageId: 'run_1' },
      { type: 'tool-approval-response', approvalId: 'input_a', approved: false },
      { type: 'tool-output-denied', toolCallId: 'a' },
    ]);
    expect([hasEnded, types(chunks).at(-1)]).toEqual([true, 'finish']);
    // A position that no event follows still has an end.
    expect(respond([...rows, denied, complete('No.')], 4, 99).hasEnded).toBe(true);
  });

  describe('with a call of a tool of the page', () => {
    const call = { tool_call_id: 'a', tool_name: 'locate', arguments: { near: 1 } };
    const rows: readonly Row[] = [
      ...[started, say(1, 'I look.'), ['tool_executing', { ...call, client: true }] as const],
      ['input_requested', { ...call, input_id: 'input_a', kind: 'tool', message: 'The agent calls locate.' }],
    ];
    const ended: readonly Row[] = [
      received('tool', 'a', 'accept'),
      ['tool_completed', { tool_call_id: 'a', tool_name: 'locate', client: true, success: true, result: 'Oslo' }],
      complete('Done.'),
    ];
    const callOf = (chunks: readonly Chunk[]) => chunks.find(({ type }) => type === 'tool-input-available');

    it('let the page execute it while it is open, and end', async () => {
      for (const caughtUpAfter of [1, 3, 4]) {
        const { chunks, hasEnded } = respond(rows, caughtUpAfter);
        expect([hasEnded, types(chunks).slice(-3)]).toEqual([
          true,
          ['message-metadata', 'tool-input-available', 'finish'],
        ]);
        expect(callOf(chunks)).toEqual({
          ...{ type: 'tool-input-available', toolCallId: 'a', toolName: 'locate', input: { near: 1 } },
        });
      }
    });

    it('do not let the page execute it again when the replay contains its answer', async () => {
      const { chunks } = respond([...rows, ...ended], 7);
      expect(callOf(chunks)).toMatchObject({ providerExecuted: true });
      expect(chunks.map(({ type }) => type)).toEqual(chunksOf([...rows, ...ended]).map(({ type }) => type));
      expect((await messageOf(chunks))?.parts).toMatchObject([
        ...[{}, { text: 'I look.' }, { type: 'tool-locate', state: 'output-available', output: 'Oslo' }],
        ...[{}, { text: 'Done.' }],
      ]);
      const expired = respond([...rows, ['input_expired', { ...call, input_id: 'input_a', kind: 'tool' }]], 5);
      expect([callOf(expired.chunks), expired.hasEnded]).toMatchObject([{ providerExecuted: true }, false]);
    });

    it('have an outcome for it when the run ends without one', () => {
      const { chunks, hasEnded } = respond([...rows, ['agent_cancelled', {}]], 5);
      expect(hasEnded).toBe(true);
      const outcome = { type: 'tool-output-error', toolCallId: 'a', errorText: 'The run has ended.' };
      expect(chunks).toContainEqual({ ...outcome, providerExecuted: true });
    });
  });

  it('stay open while a choice is open, and have it as data with its state', () => {
    const rows = [started, choice, received('choice', 'c', 'accept')];
    const { chunks, hasEnded } = respond(rows, 1);
    expect(hasEnded).toBe(false);
    expect(chunks.slice(1)).toMatchObject([
      { type: 'data-tollgate-input', id: 'input_c', data: { kind: 'choice', choices: ['a', 'b'], status: 'open' } },
      { id: 'input_c', data: { kind: 'choice', choices: ['a', 'b'], status: 'answered', action: 'accept' } },
    ]);
    const expired = respond([started, choice, ['input_expired', { input_id: 'input_c', kind: 'choice' }]], 1);
    expect(expired.chunks.at(-1)).toMatchObject({ data: { status: 'expired' } });
  });
});

describe('the digest of a text', () => {
  it('does not depend on the pieces or on white space, and tells texts apart', () => {
    fc.assert(
      fc.property(fc.array(fc.string()), fc.string({ minLength: 1 }), (pieces, other) => {
        const digest = pieces.reduce(addText, EMPTY_DIGEST);
        expect(isDigestOf(digest, ` ${pieces.join('')}\n`)).toBe(true);
        expect(isDigestOf(digest, `${pieces.join('')}${other}`)).toBe(other.trim() === '');
      }),
    );
  });
});
