import { linearPattern, NotLinear } from '../../src/lib/linear-patterns.ts';
import { CompiledTooLong, type JsonSchema, Schemas, Unchecked } from '../../src/upstreams/schemas.ts';
import { require, type Target } from '../lib/target.ts';

const MAX_PATTERN = 64;
const MAX_TEXT = 10;
const MAX_SCHEMA_BYTES = 16_384;

const pattern: Target = {
  name: 'linear-pattern',
  seeds: [
    '^[a-z]+$\nabc',
    '\\d{2,4}|\\p{L}+\n12é',
    '(?:a|b)*?c\\b\nabc',
    '[^\\s.-]\\S\n x',
    '(?<n>a)\\u{1f600}\na😀',
    '(?i:ß)x\nSS',
  ],
  words: [
    '\\p{Lu}',
    '\\p{Script=Greek}',
    '\\w',
    '\\W',
    '\\b',
    '\\B',
    '\\s',
    '[^',
    ']',
    '(?:',
    ')',
    '*',
    '+?',
    '{1,3}',
    '|',
    '^',
    '$',
  ],
  maxBytes: MAX_PATTERN + MAX_TEXT,
  isRefusal: (error) => error instanceof SyntaxError || error instanceof NotLinear,
  run(input) {
    const [source = '', text = ''] = input.toString('utf8').split('\n');
    const linear = linearPattern(source.slice(0, MAX_PATTERN));
    // V8 may take exponential time, so the text is short and a source with nested repetitions is not compared.
    if (/[*+}][^[]*\)[*+{]/.test(source)) return;
    const short = text.slice(0, MAX_TEXT);
    const expected = new RegExp(source.slice(0, MAX_PATTERN), 'u').test(short);
    require(linear.test(short) === expected, `"${short}" matches as in ECMAScript: ${expected}`);
  },
};

const schemas = new Schemas();
const VALUES: readonly unknown[] = [{}, { a: 1, b: ['x'] }, { constructor: 1 }, 'abc', 1.5, null, [1, 1]];

const schema: Target = {
  name: 'tool-schema',
  seeds: [
    '{"type":"object","properties":{"a":{"type":"integer","minimum":1},"b":{"type":"array","items":{"pattern":"^x"}}}}',
    '{"$schema":"http://json-schema.org/draft-07/schema#","anyOf":[{"required":["a"]},{"not":{"const":1}}]}',
    '{"$defs":{"x":{"enum":[1,null]}},"$ref":"#/$defs/x","patternProperties":{"^a":{"multipleOf":0.01}}}',
    '{"type":["string","null"],"format":"email","uniqueItems":true,"additionalProperties":false,"dependentRequired":{"a":["b"]}}',
  ],
  words: [
    'type',
    'object',
    'properties',
    'required',
    '$ref',
    '#',
    '#/$defs/x',
    'pattern',
    'items',
    'anyOf',
    'if',
    'then',
  ],
  maxBytes: MAX_SCHEMA_BYTES,
  // Compilation reports every problem of a schema as an error, which the caller shows for the tool.
  isRefusal: (error) =>
    error instanceof Error && !(error instanceof CompiledTooLong) && error.constructor !== RangeError,
  run(input) {
    const parsed: unknown = JSON.parse(input.toString('utf8'));
    if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) return;
    const check = schemas.compile(parsed as JsonSchema, MAX_SCHEMA_BYTES);
    for (const value of check ? VALUES : []) {
      const first = problemOf(() => check?.(value));
      require(first === problemOf(() => check?.(value)), 'the same value has the same problem');
      require(first === undefined || first.length <= 600, 'a problem is one sentence');
    }
  },
};

function problemOf(check: () => string | undefined): string | undefined {
  try {
    return check();
  } catch (error) {
    if (error instanceof Unchecked) return undefined;
    throw error;
  }
}

export const SCHEMA_TARGETS: readonly Target[] = [pattern, schema];
