import { describe, expect, it } from '@jest/globals';
import * as fc from 'fast-check';
import { CallPieces, parseArguments } from '../../src/agents/model/call-pieces.ts';
import { ThinkingTags } from '../../src/agents/model/thinking-tags.ts';
import { readableResult } from '../../src/agents/model/tool-results.ts';
import { offeredTool } from '../../src/agents/model/tool-schemas.ts';
import type { Tool } from '../../src/catalogue/tool-catalogue.ts';

const LIMITS = { calls: 8, argumentsLength: 8_192 };

function joined(pieces: readonly unknown[], tools: readonly string[] = ['count', 'other']) {
  const calls = new CallPieces(LIMITS, new Set(tools));
  for (const piece of pieces) calls.append(piece);
  return calls.complete(false);
}

/** The calls that would run, with their arguments. */
const running = (pieces: readonly unknown[]) =>
  joined(pieces).flatMap(({ name, arguments: json, problem }) => (problem ? [] : [[name, parseArguments(json)]]));

describe('the pieces of a call', () => {
  const json = '{"limit":5,"text":"a {b} \\"c\\""}';
  const whole = [['count', JSON.parse(json)]];

  it('never run a tool with other arguments, wherever they are cut and whatever they repeat', () => {
    const cuts = fc.uniqueArray(fc.integer({ min: 1, max: json.length - 1 }), { maxLength: 6 });
    const style = fc.record({
      index: fc.constantFrom('none', 'same', 'rising'),
      id: fc.constantFrom('first', 'all', 'none', 'each'),
      name: fc.constantFrom('first', 'all'),
      head: fc.boolean(),
    });
    fc.assert(
      fc.property(cuts, style, (at, { index, id, name, head }) => {
        const bounds = [0, ...at.toSorted((a, b) => a - b), json.length];
        const texts = bounds.slice(1).map((end, i) => json.slice(bounds[i], end));
        const given = head ? ['', ...texts] : texts;
        const pieces = given.map((text, i) => ({
          ...(index === 'none' ? {} : { index: index === 'same' ? 0 : i }),
          ...(id === 'all' || (id === 'first' && i === 0) ? { id: 'c' } : id === 'each' ? { id: `c${i}` } : {}),
          function: { ...(name === 'all' || i === 0 ? { name: 'count' } : {}), arguments: text },
        }));
        const ran = running(pieces);
        // Joined, or refused to the model; never something else.
        expect([JSON.stringify(whole), '[]']).toContain(JSON.stringify(ran));
        const ambiguous = id === 'each' && name === 'all' && index !== 'same';
        if (!ambiguous) expect(ran).toEqual(whole);
      }),
      { numRuns: 500 },
    );
  });

  it('belong to calls that are interleaved under their indexes', () => {
    const pieces = [
      { index: 1, id: 'b', function: { name: 'other', arguments: '' } },
      { index: 0, id: 'a', function: { name: 'count', arguments: '' } },
      { index: 1, function: { arguments: '{"b"' } },
      { index: 0, function: { arguments: '{"a"' } },
      { index: 1, function: { arguments: ':1}' } },
      { index: 0, function: { arguments: ':2}' } },
    ];
    expect(running(pieces)).toEqual([
      ['count', { a: 2 }],
      ['other', { b: 1 }],
    ]);
  });

  it('are not run without arguments that another call may have received', () => {
    const head = { id: 'c', function: { name: 'count', arguments: '' } };
    const pieces = [
      { ...head, index: 0 },
      { ...head, index: 1 },
      { id: 'c', index: 2, function: { arguments: '{"a":1}' } },
    ];
    expect(running(pieces)).toEqual([['count', { a: 1 }]]);
    expect(joined(pieces)[0]?.problem).toBe('The call has no arguments of its own. Repeat it with {}.');
  });

  it.each([
    [
      'two calls without arguments',
      [{ function: { name: 'count' } }, { function: { name: 'other' } }],
      ['count', 'other'],
    ],
    ['a name in pieces', [{ function: { name: 'cou' } }, { function: { name: 'nt' } }], ['count']],
    [
      'a name that grows',
      [
        { id: 'a', function: { name: 'co' } },
        { id: 'a', function: { name: 'count' } },
      ],
      ['count'],
    ],
    ['a prefix', [{ function: { name: 'default_api:count' } }], ['count']],
    ['an unknown name', [{ function: { name: 'rm_rf' } }], ['rm_rf']],
    ['no name', [{ id: 'a', function: {} }], ['unnamed']],
    ['nothing', [{}, null, 5, { index: 0 }, { function: null }], []],
  ])('have the names of %s', (_label, pieces, names) => {
    expect(joined(pieces).map(({ name }) => name)).toEqual(names);
  });
});

describe('reasoning in tags', () => {
  const split = (text: string, at: readonly number[]) => {
    const tags = new ThinkingTags();
    const bounds = [0, ...at.filter((one) => one < text.length).toSorted((a, b) => a - b), text.length];
    const pieces = bounds.slice(1).map((end, i) => tags.append(text.slice(bounds[i], end)));
    const all = [...pieces, tags.flush()];
    return [all.map(({ text: one }) => one).join(''), all.map(({ reasoning }) => reasoning).join('')];
  };

  it.each([
    ['<think>a<b</think>c', 'c', 'a<b'],
    [' \n<think>a</think>\n<think>b</think>c <think>d', 'c <think>d', 'ab'],
    ['[THINK]a[/THINK]b', 'b', 'a'],
    ['<think>never ends', '', 'never ends'],
    ['<thin air', '<thin air', ''],
    ['<', '<', ''],
    ['text <think>x</think>', 'text <think>x</think>', ''],
    ['', '', ''],
  ])('%j gives the text %j and the reasoning %j, wherever it is cut', (text, kept, reasoning) => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 1, max: 60 }), { maxLength: 20 }), (at) => {
        expect(split(text, at).map((one) => one.replace(/^\n/, ''))).toEqual([kept, reasoning]);
      }),
      { numRuns: 50 },
    );
  });
});

const RULES = { tool_description_characters: 50, dropped_schema_keywords: ['pattern', 'const'] };
const offered = (schema: object, description = 'd') =>
  offeredTool({ name: 'count', description, arguments: schema } as unknown as Tool, RULES);
const parameters = (schema: object) => offered(schema).definition?.function.parameters;

describe('the schema of a tool for an endpoint', () => {
  it.each([
    [{}, { type: 'object', properties: {} }],
    [
      { type: 'object', properties: null },
      { type: 'object', properties: {} },
    ],
    [
      {
        oneOf: [
          { properties: { a: {} }, required: ['a', 'b'] },
          { properties: { b: {} }, required: ['b'] },
        ],
      },
      { type: 'object', properties: { a: {}, b: {} }, required: ['b'] },
    ],
    [
      {
        properties: { a: { type: 'string' } },
        allOf: [{ properties: { a: {}, b: {} }, required: ['b'] }, { required: ['a'] }],
      },
      { type: 'object', properties: { a: { type: 'string' }, b: {} }, required: ['b', 'a'] },
    ],
    [
      // Names of properties are no keywords, and values are no schemas.
      { properties: { pattern: { pattern: 'x', const: 1 }, a: { enum: [{ pattern: 1 }], $comment: 'x' } } },
      { type: 'object', properties: { pattern: { enum: [1] }, a: { enum: [{ pattern: 1 }] } } },
    ],
  ])('%j becomes %j', (schema, sent) => {
    expect(parameters(schema)).toEqual(sent);
  });

  it('is not offered when it is too deep for a model, and the tool is named', () => {
    const deep = Array.from({ length: 100 }).reduce<object>((inner) => ({ properties: { a: inner } }), {});
    expect(offered(deep)).toEqual({ definition: undefined, changes: [expect.objectContaining({ rule: 'too_deep' })] });
  });

  it('is unchanged when nothing is wrong with it', () => {
    const schema = {
      type: 'object',
      properties: { a: { type: 'string', format: 'date' } },
      additionalProperties: false,
    };
    expect(offered(schema)).toMatchObject({ changes: [], definition: { function: { parameters: schema } } });
  });
});

describe('a result of a tool', () => {
  const bytes = Buffer.from(Array.from({ length: 3_000 }, (_, i) => (i * 7919) % 256)).toString('base64');
  const text = (result: unknown) => JSON.parse(readableResult({ success: true, result }, 16_384).text).result;

  it.each([
    [
      { type: 'audio', data: bytes, mimeType: 'audio/wav' },
      { type: 'text', text: '[audio audio/wav, 3 KB]' },
    ],
    [
      { type: 'image', data: bytes },
      { type: 'text', text: '[image of unknown type, 3 KB]' },
    ],
    [
      { type: 'resource', resource: { uri: 'file:///a.pdf', mimeType: 'application/pdf', blob: bytes } },
      { type: 'text', text: '[resource file:///a.pdf application/pdf, 3 KB]' },
    ],
    [
      { type: 'resource', resource: { uri: 'file:///a', text: 'words' } },
      { type: 'resource', resource: { uri: 'file:///a', text: 'words' } },
    ],
    [{ shot: `data:image/png;base64,${bytes}` }, { shot: '[bytes image/png, 3 KB]' }],
    [[bytes], ['[bytes of unknown type, 3 KB]']],
    ['x'.repeat(2_000), 'x'.repeat(2_000)],
    ['ACGT'.repeat(600), 'ACGT'.repeat(600)],
    [
      `A long text with 7 words. ${'Once more. '.repeat(200)}`,
      `A long text with 7 words. ${'Once more. '.repeat(200)}`,
    ],
    [null, null],
  ])('%#. has a word in place of bytes', (result, readable) => {
    expect(text(result)).toEqual(readable);
  });
});
