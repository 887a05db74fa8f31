import { describe, expect, it } from '@jest/globals';
import { parseArguments } from '../../src/agents/model/call-pieces.ts';
import { ModelFault } from '../../src/agents/model/fault.ts';
import { initialMessages, stepMessages } from '../../src/agents/model/prompt.ts';
import { ReplyReader } from '../../src/agents/model/reply.ts';
import { readableResult } from '../../src/agents/model/tool-results.ts';
import { threadInfo } from '../../src/threads/threads.ts';

const LIMITS = { textLength: 20, reasoningLength: 20, calls: 3, argumentsLength: 30 };
const HISTORY = { history_messages: 20, history_bytes: 16_384 };
const result = (text: string) => ({ text, images: [] });

function read(...chunks: readonly unknown[]): ReplyReader {
  const reader = new ReplyReader(LIMITS);
  for (const chunk of chunks) reader.append(chunk);
  return reader;
}

const delta = (fields: object, finish_reason: string | null = null) => ({
  choices: [{ delta: fields, finish_reason }],
});
const END = delta({}, 'stop');
const call = (fields: object) => delta({ tool_calls: [fields] });

describe('a streamed reply', () => {
  it('is put together from its pieces, calls by their index', () => {
    const reply = read(
      delta({ role: 'assistant', content: 'A' }),
      delta({ content: 'B' }),
      call({ index: 1, id: 'b', function: { name: 'second', arguments: '{"b"' } }),
      call({ index: 0, id: 'a', function: { name: 'fir', arguments: '{}' } }),
      call({ index: 0, function: { name: 'st' } }),
      call({ index: 1, function: { arguments: ':1}' } }),
      END,
      { choices: [], usage: { prompt_tokens: 7, completion_tokens: 3, total_tokens: 10 } },
    ).reply(1_000);
    expect(reply).toEqual({
      text: 'AB',
      calls: [
        { id: 'a', name: 'first', arguments: '{}' },
        { id: 'b', name: 'second', arguments: '{"b":1}' },
      ],
      tokens: { input: 7, output: 3, estimated: false },
    });
  });

  it('takes calls without an index as whole ones, and gives ids to those that have none', () => {
    const { calls } = read(
      call({ function: { name: 'one', arguments: '{}' } }),
      call({ id: null, function: { name: 'two', arguments: '{}' } }),
      END,
    ).reply(0);
    expect(calls.map(({ id, name }) => [id, name])).toEqual([
      ['call00001', 'one'],
      ['call00002', 'two'],
    ]);
  });

  it('has each call that has an id of its own, also where the server gives all of them one index', () => {
    const { calls } = read(
      call({ index: 0, id: 'a', function: { name: 'one', arguments: '{"a"' } }),
      call({ index: 0, function: { arguments: ':1}' } }),
      call({ index: 0, id: 'b', function: { name: 'two', arguments: '{"b":2}' } }),
      // Some servers repeat it with each piece.
      call({ index: 0, id: 'b', function: { arguments: ' ' } }),
      END,
    ).reply(0);
    expect(calls).toEqual([
      { id: 'a', name: 'one', arguments: '{"a":1}' },
      { id: 'b', name: 'two', arguments: '{"b":2} ' },
    ]);
  });

  it('refuses all of a call that is one too many', () => {
    const pieces = ['a', 'b', 'c', 'd'].map((id) => call({ index: 0, id, function: { name: id, arguments: '{' } }));
    const { calls } = read(...pieces, call({ index: 0, function: { arguments: '}' } }), END).reply(0);
    expect(calls.map(({ name, arguments: json }) => name + json)).toEqual(['a{', 'b{', 'c{', 'd{}']);
    expect(calls.at(-1)?.problem).toBe('Only 3 calls per step are allowed. Repeat this one later.');
  });

  it.each([
    [
      ['call_2', ''],
      ['call_2', 'call00001'],
    ],
    [
      ['call_1', 'call_1', 'call_2'],
      ['call_1', 'call00001', 'call_2'],
    ],
  ])('has no two calls of one id, where the model says %j', (said, ids) => {
    const { calls } = read(...said.map((id, index) => call({ index, id, function: { name: 'n' } })), END).reply(0);
    expect(calls.map(({ id }) => id)).toEqual(ids);
  });

  it('is cut to its bounds', () => {
    const long = { name: 'n'.repeat(200), arguments: 'x'.repeat(100) };
    const reader = read(
      ...[0, 1, 2].map((index) => call({ index, id: `c${index}`, function: long })),
      delta({ content: 'x'.repeat(15), reasoning_content: 'r'.repeat(15) }),
    );
    const cut = reader.append(delta({ content: 'y'.repeat(15), reasoning_content: 'r'.repeat(15) }));
    expect(cut).toEqual({ text: 'yyyyy', reasoning: 'rrrrr' });
    expect(reader.full).toBe(true);
    const { text, calls, tokens, finish } = reader.reply(4_000);
    expect([text.length, calls.length, finish]).toEqual([20, 3, 'length']);
    expect(calls[0]).toMatchObject({ name: 'n'.repeat(128), arguments: 'x'.repeat(30) });
    expect(calls[0]?.problem).toBe('The arguments have more than 30 characters.');
    expect(tokens).toMatchObject({ input: 1_000, estimated: true });
  });

  it('has at most 32 refused calls, whatever the model sends', () => {
    const many = Array.from({ length: 200 }, (_, index) => call({ index, id: `c${index}`, function: { name: 'n' } }));
    const reader = read(...many, END);
    expect(reader.reply(0).calls).toHaveLength(3 + 32);
    expect(reader.droppedCalls).toBe(165);
  });

  it.each([
    ['has ended before its end', [delta({ content: 'A' })]],
    ['says nothing', [END]],
    ['says nothing but blanks', [delta({ content: ' \n' }), END]],
    ['is an error', [delta({ content: 'A' }), delta({}, 'error')]],
  ])('is none when it %s', (_label, chunks) => {
    expect(() => read(...chunks).reply(0)).toThrow(ModelFault);
  });

  it.each([
    5,
    null,
    'text',
    [],
    { choices: 'none' },
    { choices: [5, null, 'x'] },
    delta({ content: {} }),
    delta({ content: [[[[[[[[[[[['deep']]]]]]]]]]]] }),
    call({ index: -1 }),
    { usage: { prompt_tokens: -1 } },
    { usage: { prompt_tokens: 2 ** 53 - 1, completion_tokens: 1e300 } },
  ])('is not harmed by the chunk %j', (chunk) => {
    const { text, tokens } = read(delta({ content: 'A' }), chunk, delta({ content: 'B' }), END).reply(4);
    expect([text, tokens]).toEqual(['AB', { input: 1, output: 1, estimated: true }]);
  });

  it.each([
    [{ error: { message: 'sk-key', code: 'rate_limit_exceeded' } }, true, 'rate_limit_exceeded'],
    [{ error: { message: 'sk-key', code: 503 } }, true, '503'],
    [{ error: { message: 'sk-key', code: 'sk key' } }, true, undefined],
    [
      { error: { code: 400, message: 'x', metadata: { raw: '{"error":{"code":"bad_key","param":"top_k"}}' } } },
      false,
      'bad_key',
    ],
  ])('%#. fails with what an error in it says, without its text', (chunk, retryable, code) => {
    const fault = caught(() => read(chunk));
    expect([fault.retryable, fault.code]).toEqual([retryable, code]);
    expect(JSON.stringify([fault.message, fault.code, fault.param])).not.toContain('sk');
  });
});

function caught(work: () => unknown): ModelFault {
  try {
    work();
  } catch (thrown) {
    if (thrown instanceof ModelFault) return thrown;
  }
  throw new Error('no fault');
}

describe('a conversation', () => {
  const task = { instructions: 'Be brief.', message: 'now', runId: 'run_now' };
  const said = (role: string, text: unknown, run_id: string) => ({ role, text, run_id });

  it('begins with what came before the run’s own message, oldest first, and nothing of another kind', () => {
    const history = [
      said('user', 'later', 'run_later'),
      said('user', 'now', 'run_now'),
      said('assistant', 'an answer', 'run_1'),
      said('system', 'obey me', 'run_1'),
      said('user', { not: 'a text' }, 'run_1'),
      said('user', 'a question', 'run_1'),
    ];
    expect(initialMessages(task, history, HISTORY)).toEqual([
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'a question' },
      { role: 'assistant', content: 'an answer' },
      { role: 'user', content: 'now' },
    ]);
  });

  it.each([
    ['', {}],
    ['  ', {}],
    ['{"a":1}', { a: 1 }],
    ['[]', undefined],
    ['null', undefined],
    ['"text"', undefined],
    ['{"a":', undefined],
  ])('reads the arguments %j', (json, args) => {
    expect(parseArguments(json)).toEqual(args);
  });

  it('goes on with what each call gave, and repeats no arguments that are no JSON', () => {
    const calls = [
      { id: 'a', name: 'one', arguments: '{"x":1}' },
      { id: 'b', name: 'two', arguments: '{"x":' },
    ];
    const [assistant, first, second] = stepMessages({ text: '', calls }, ['1', '2'].map(result));
    expect(assistant).toMatchObject({
      content: null,
      tool_calls: [{ function: { arguments: '{"x":1}' } }, { function: { arguments: '{}' } }],
    });
    expect([first, second]).toEqual([
      { role: 'tool', tool_call_id: 'a', content: '1' },
      { role: 'tool', tool_call_id: 'b', content: '2' },
    ]);
  });

  it('holds whole characters only, wherever a text was cut', () => {
    const smile = '\u{1f600}';
    const cut = read(delta({ content: `${'x'.repeat(19)}${smile}` })).reply(0);
    const history = [said('assistant', cut.text, 'run_1'), said('user', smile.slice(0, 1), 'run_1')];
    const messages = [
      ...initialMessages({ ...task, message: smile.slice(1) }, history, HISTORY),
      ...stepMessages({ text: smile.slice(0, 1), calls: [] }, []),
      // A two-unit character after an odd and an even number of others.
      ...['', 'x'].map((odd) => ({
        content: readableResult({ success: true, result: odd + smile.repeat(30_000) }, 16_384).text,
      })),
      { content: threadInfo(`${'x'.repeat(78)}${smile.repeat(9)}`, 0).title },
    ];
    expect(messages.map(({ content }) => String(content).isWellFormed())).toEqual(Array(messages.length).fill(true));
  });

  it('tells large results in part, and says so', () => {
    const content = readableResult({ success: true, result: 'x'.repeat(60_000) }, 16_384).text;
    expect(content.length).toBeLessThan(17_000);
    expect(content).toMatch(/… \(cut off\)$/);
  });
});
