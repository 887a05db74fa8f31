/** An input of about the given size in characters; ASCII unless the name says otherwise. */
export interface Shape {
  readonly name: string;
  readonly make: (size: number) => string;
}

/**
 * A repeated text between two other characters: an expression that is anchored at the end (`/=+$/`) or trims (`/\s+$/`)
 * is slow only if its last character does not match.
 */
function repeated(unit: string, name = JSON.stringify(unit)): Shape {
  return { name: `repeated ${name}`, make: (size) => `x${unit.repeat(Math.floor((size - 2) / unit.length))}x` };
}

const UNITS = ['a', '=', ' ', ',', ';', '.', '"', '\\', '%25', '/', '-', ':', '[', '{', '0'];
/** Many small elements, separated as in headers, cookies, query strings and forms. */
const ELEMENTS = ['a,', 'a;', 'a ', 'a.', 'a=a;', 'a=a&', 'a, ', '" ', '\\"', '=,', 'Bearer ', 'jwt.'];
const TOKEN: Shape = {
  name: 'one long token',
  make: (size) => {
    const part = 'Ab1-_'.repeat(Math.max(1, Math.floor(size / 15)));
    return `${part}.${part}.${part}`;
  },
};
const NUMBER: Shape = { name: 'one long number', make: (size) => '9'.repeat(size) };
const ESCAPES: Shape = { name: 'unicode escapes', make: (size) => `x${'\\u0041'.repeat((size - 2) / 6)}x` };

/** Contents of a header, a query parameter or a JSON string. */
export const TEXTS: readonly Shape[] = [
  ...UNITS.map((unit) => repeated(unit)),
  ...ELEMENTS.map((unit) => repeated(unit)),
  TOKEN,
  NUMBER,
  ESCAPES,
];

/** Shapes that have found something, and one of each other kind. */
export const FEW_TEXTS: readonly Shape[] = TEXTS.filter(({ name }) =>
  ['repeated "a"', 'repeated "="', 'repeated " "', 'repeated "a,"', 'one long token'].includes(name),
);

function many(name: string, element: (at: number) => string, [open, close]: readonly [string, string]): Shape {
  return {
    name,
    make: (size) => {
      const elements: string[] = [];
      for (let length = 2; ; ) {
        const text = element(elements.length);
        length += text.length + 1;
        if (length > size) return `${open}${elements.join(',')}${close}`;
        elements.push(text);
      }
    },
  };
}

const ARRAY = ['[', ']'] as const;
const OBJECT = ['{', '}'] as const;
const nested = (name: string, open: string, middle: string, close: string): Shape => ({
  name,
  make: (size) => {
    const depth = Math.floor((size - middle.length) / (open.length + close.length));
    return `${open.repeat(depth)}${middle}${close.repeat(depth)}`;
  },
});
/** The allowed nesting depth, repeated. */
const COMB = `${'['.repeat(24)}${']'.repeat(24)}`;

/** JSON values. */
export const VALUES: readonly Shape[] = [
  ...['a', ' ', '=', ',', '.', '[', '{'].map((unit) => {
    const { name, make } = repeated(unit);
    return { name: `string: ${name}`, make: (size: number) => JSON.stringify(make(size - 2)) };
  }),
  { name: 'string: one long token', make: (size) => JSON.stringify(TOKEN.make(size - 2)) },
  { name: 'string: unicode escapes', make: (size) => `"${ESCAPES.make(size - 2)}"` },
  { name: 'string: escaped quotes', make: (size) => `"${'\\"'.repeat(size / 2 - 1)}"` },
  { name: 'string: halves of surrogate pairs', make: (size) => `"${'\\ud800'.repeat(size / 6 - 1)}"` },
  { name: 'string: three-byte characters', make: (size) => `"${'€'.repeat(size / 3 - 1)}"` },
  NUMBER,
  nested('nested arrays', '[', '', ']'),
  nested('nested objects', '{"a":', '1', '}'),
  { name: 'open brackets', make: (size) => '['.repeat(size) },
  many('numbers', () => '1', ARRAY),
  many('empty arrays', () => '[]', ARRAY),
  many('empty objects', () => '{}', ARRAY),
  many('deep arrays', () => COMB, ARRAY),
  many('strings', () => '""', ARRAY),
  many('keys', (at) => `"k${at}":1`, OBJECT),
  many('equal keys', () => '"k":1', OBJECT),
  many('numeric keys', (at) => `"${at * 7}":1`, OBJECT),
  { name: 'one long key', make: (size) => `{${JSON.stringify('k'.repeat(size - 6))}:1}` },
  { name: 'spaces between tokens', make: (size) => `[1${' '.repeat(size - 3)}]` },
];

/** One of each kind: the most expensive for a parser, a validator and a copy. */
export const FEW_VALUES: readonly Shape[] = VALUES.filter(({ name }) =>
  [
    'string: repeated "a"',
    'string: repeated " "',
    'string: unicode escapes',
    'one long number',
    'deep arrays',
    'numbers',
    'keys',
  ].includes(name),
);
