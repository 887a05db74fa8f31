import { describe, expect, it } from '@jest/globals';
import { initialMessages, parseArguments, stepMessages, toolResult } from '../../src/agents/model/prompt.ts';
import { ModelFault, ReplyReader } from '../../src/agents/model/reply.ts';
import { threadInfo } from '../../src/threads/threads.ts';

const LIMITS = { textLength: 20, calls: 3, argumentsLength: 30 };

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
      ['call_1', 'one'],
      ['call_2', 'two'],
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

  it('drops all of a call that is one too many', () => {
    const pieces = ['a', 'b', 'c', 'd'].map((id) => call({ index: 0, id, function: { name: id, arguments: '{' } }));
    const { calls } = read(...pieces, call({ index: 0, function: { arguments: '}' } }), END).reply(0);
    expect(calls.map(({ name, arguments: json }) => name + json)).toEqual(['a{', 'b{', 'c{']);
  });

  it.each([
    [
      ['call_2', ''],
      ['call_2', 'call_1'],
    ],
    [
      ['call_1', 'call_1', 'call_2'],
      ['call_1', 'call_3', 'call_2'],
    ],
  ])('has no two calls of one id, where the model says %j', (said, ids) => {
    const { calls } = read(...said.map((id, index) => call({ index, id, function: { name: 'n' } })), END).reply(0);
    expect(calls.map(({ id }) => id)).toEqual(ids);
  });

  it('is cut to its bounds', () => {
    const reader = read(
      ...[0, 1, 2, 3].map((index) => call({ index, function: { name: 'n'.repeat(100), arguments: 'x'.repeat(100) } })),
      delta({ content: 'x'.repeat(15) }),
    );
    expect(reader.append(delta({ content: 'y'.repeat(15) }))).toBe('yyyyy');
    expect(reader.full).toBe(true);
    const { text, calls, tokens } = reader.reply(4_000);
    expect([text.length, calls.length]).toEqual([20, 3]);
    expect(calls[0]).toMatchObject({ name: 'n'.repeat(64), arguments: 'x'.repeat(30) });
    expect(tokens).toEqual({ input: 1_000, output: 28, estimated: true });
  });

  it.each([
    ['has ended before its end', [delta({ content: 'A' })]],
    ['says nothing', [END]],
    ['says nothing but blanks', [delta({ content: ' \n' }), END]],
    ['calls a tool without a name', [call({ index: 0, function: { arguments: '{}' } }), END]],
  ])('is none when it %s', (_label, chunks) => {
    expect(() => read(...chunks).reply(0)).toThrow(ModelFault);
  });

  it.each([
    5,
    null,
    'text',
    { choices: 'none' },
    delta({ content: 5 }),
    call({ index: -1 }),
    { usage: { prompt_tokens: -1 } },
    { usage: { prompt_tokens: 2 ** 53 - 1, completion_tokens: 1 } },
  ])('is none when a chunk is %j', (chunk) => {
    expect(() => read(chunk)).toThrow(ModelFault);
  });
});

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
    expect(initialMessages(task, history)).toEqual([
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
    const [assistant, first, second] = stepMessages({ text: '', calls }, ['1', '2']);
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
      ...initialMessages({ ...task, message: smile.slice(1) }, history),
      ...stepMessages({ text: smile.slice(0, 1), calls: [] }, []),
      // A two-unit character after an odd and an even number of others.
      ...['', 'x'].map((odd) => ({ content: toolResult({ success: true, result: odd + smile.repeat(30_000) }) })),
      { content: threadInfo(`${'x'.repeat(78)}${smile.repeat(9)}`, 0).title },
    ];
    expect(messages.map(({ content }) => String(content).isWellFormed())).toEqual(Array(messages.length).fill(true));
  });

  it('tells large results in part, and says so', () => {
    const content = toolResult({ success: true, result: 'x'.repeat(60_000) });
    expect(content.length).toBeLessThan(17_000);
    expect(content).toMatch(/… \(cut off\)$/);
  });
});
