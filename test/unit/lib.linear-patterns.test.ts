import { expect, it } from '@jest/globals';
import { array, assert, constantFrom, oneof, property, tuple } from 'fast-check';
import { linearPattern, NotLinear } from '../../src/lib/linear-patterns.ts';

const TEXT = [
  ...['a', 'Z', '5', '_', '-', '.', '[', ']', '^', '\\', '/', '\t', '\n', '\v', '\r', '\b', ' ', '\0'],
  ...[
    '\u00a0',
    '\u1680',
    '\u2003',
    '\u2028',
    '\u3000',
    '\ufeff',
    '\u200b',
    '\u0661',
    'é',
    'Σ',
    '中',
    '😀',
    '\u{10ffff}',
  ],
];
const ATOMS = [
  ...['a', 'Z', '.', '\\s', '\\S', '\\d', '\\D', '\\w', '\\W', '\\n', '\\t', '\\v', '\\0', '\\x41', '\\u0061', '\\cJ'],
  ...['\\u{1F600}', '\\ud83d\\ude00', '\\/', '\\.', '\\[', '\\]', '\\^', '\\\\', '\\b', '\\B', '😀', '-', '_'],
  ...['\\p{L}', '\\p{Letter}', '\\P{Letter}', '\\p{Script=Greek}', '\\p{sc=Han}', '\\p{gc=Nd}', '\\p{Emoji}', '(?:)'],
];
const MEMBERS = [
  ...['a', 'Z', '.', '\\s', '\\S', '\\d', '\\W', '\\b', '[', '\\]', '\\\\', '\\-', '^', 'a-z', '\\t-\\r', '0-9'],
  ...['\\p{Letter}', '\\P{L}', '\\p{Script=Greek}', '😀', '\\u{1F600}-\\u{1F64F}', '(?:', '$', '|'],
];

const classes = tuple(constantFrom('[', '[^'), array(constantFrom(...MEMBERS), { maxLength: 4 })).map(
  ([open, members]) => `${open}${open === '[' ? members.join('').replace(/^\^/, '\\^') : members.join('')}]`,
);
const atoms = oneof(constantFrom(...ATOMS), classes);
const repeated = tuple(atoms, constantFrom('', '', '*', '+?', '?', '{0,2}')).map(([atom, count]) =>
  /^\\[bB]$/.test(atom) ? atom : atom + count,
);
const patterns = tuple(
  constantFrom('', '^'),
  array(repeated, { minLength: 1, maxLength: 4 }),
  constantFrom('', '$'),
).map(([start, atoms, end]) => start + atoms.join('') + end);
const texts = array(constantFrom(...TEXT), { maxLength: 5 }).map((characters) => characters.join(''));

it('a pattern on RE2 matches what it matches in ECMAScript', () => {
  assert(
    property(patterns, array(texts, { minLength: 5, maxLength: 5 }), (source, samples) => {
      const expression = new RegExp(source, 'u');
      const pattern = linearPattern(source);
      for (const text of samples) {
        expect({ source, text, matches: pattern.test(text) }).toEqual({ source, text, matches: expression.test(text) });
      }
    }),
    { numRuns: 1_000 },
  );
});

it.each([
  '(?<quote>["\']).*\\k<quote>',
  '(a)\\1',
  '(?=a)b',
  '(?<!a)b',
  'a{1001}',
  '(?s:.)',
  '(?m:^a$)',
  '\\p{ID_Start}',
])('%j is refused, not matched differently', (source) => {
  expect(() => linearPattern(source)).toThrow(NotLinear);
});

it('a modifier for case keeps its meaning', () => {
  expect(['ab', 'Ab', 'AB'].map((text) => linearPattern('^(?i:a)b$').test(text))).toEqual([true, true, false]);
});
