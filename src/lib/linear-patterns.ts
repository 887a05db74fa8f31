import { RE2JS } from 're2js';

/** Regular expression of a JSON Schema. */
export interface Pattern {
  /** Whether any part of the text matches. */
  test(text: string): boolean;
  /** Key under which Ajv caches the compiled pattern. */
  toString(): string;
}

/** The pattern is valid, but it uses a construct that RE2 lacks and that cannot be matched in linear time. */
export class NotLinear extends Error {}

/**
 * Compiles a pattern of a JSON Schema to an RE2 automaton, which matches in linear time and accepts the same texts as
 * ECMAScript. V8 backtracks, so a text from a caller could take exponential time with an untrusted pattern.
 * @throws SyntaxError if the pattern is not an ECMAScript expression with the flag `u`, which JSON Schema requires
 * @throws NotLinear for lookarounds, back references, repetitions above 1,000, and properties that re2js lacks
 */
export function linearPattern(source: string): Pattern {
  // Compiled but never matched: RE2 accepts additional syntax that clients with the same schema would reject.
  new RegExp(source, 'u');
  const automaton = compileLinear(source);
  return { test: (text) => automaton.test(text), toString: () => `re2:${source}` };
}

function compileLinear(source: string): RE2JS {
  try {
    return RE2JS.compile(RE2JS.translateRegExp(withRe2Meaning(source)));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new NotLinear(`the pattern ${JSON.stringify(source)} cannot be matched in linear time: ${reason}`, { cause });
  }
}

/** WhiteSpace and LineTerminator of ECMA-262, sections 12.2 and 12.3. In RE2, `\s` matches ASCII only. */
const SPACES = '\\t-\\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff';
const ALL_BUT_SPACES =
  '\\x{0}-\\x{8}\\x{e}-\\x{1f}!-\u009f\u00a1-\u167f\u1681-\u1fff\u200b-\u2027\u202a-\u202e' +
  '\u2030-\u205e\u2060-\u2fff\u3001-\ufefe\\x{ff00}-\\x{10ffff}';

const PAIR_LENGTH = '\\ud83d\\ude00'.length;
/** Surrogate pair, other escape, modifiers of a group, and the characters that depend on a class. */
const TOKENS = /\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\.|\(\?[ims-]{1,6}:|[.[\]]/gsu;
/** Property, or another escape. */
const PROPERTIES = /\\[pP]\{([\w=]{1,48})\}|\\./gsu;

/**
 * Replaces what ECMAScript and RE2 read differently, or what `translateRegExp` of re2js 2.10.0 changes: it turns the
 * back reference `\k<name>` into literal text.
 */
function withRe2Meaning(source: string): string {
  let inClass = false;
  return withShortProperties(source).replace(TOKENS, (token) => {
    if (token.length === PAIR_LENGTH && token.startsWith('\\u')) return `\\x{${codePoint(token).toString(16)}}`;
    if (token.startsWith('(')) return inClass || /^\(\?-?i:$/.test(token) ? token : notLinear('the modifiers m and s');
    if (token === '.') return inClass ? '.' : '[^\\n\\r\u2028\u2029]';
    if (token === '[') {
      const escaped = inClass ? '\\[' : '[';
      inClass = true;
      return escaped;
    }
    if (token === ']') inClass = false;
    if (token === '\\s') return inClass ? SPACES : `[${SPACES}]`;
    if (token === '\\S') return inClass ? ALL_BUT_SPACES : `[${ALL_BUT_SPACES}]`;
    if (token === '\\b' && inClass) return '\\x08';
    if (token === '\\k') return notLinear('a named back reference');
    return token;
  });
}

/** Code point of an escaped surrogate pair, such as `\ud83d\ude00`. */
function codePoint(pair: string): number {
  const high = Number.parseInt(pair.slice(2, 6), 16);
  const low = Number.parseInt(pair.slice(8), 16);
  return (high - 0xd800) * 0x400 + (low - 0xdc00) + 0x10000;
}

function notLinear(reason: string): never {
  throw new Error(reason);
}

/** General categories by their long names (Unicode, PropertyValueAliases.txt, gc). RE2 supports the short ones. */
const CATEGORIES: Readonly<Record<string, string>> = {
  Letter: 'L',
  Cased_Letter: 'LC',
  Uppercase_Letter: 'Lu',
  Lowercase_Letter: 'Ll',
  Titlecase_Letter: 'Lt',
  Modifier_Letter: 'Lm',
  Other_Letter: 'Lo',
  Mark: 'M',
  Combining_Mark: 'M',
  Nonspacing_Mark: 'Mn',
  Spacing_Mark: 'Mc',
  Enclosing_Mark: 'Me',
  Number: 'N',
  Decimal_Number: 'Nd',
  digit: 'Nd',
  Letter_Number: 'Nl',
  Other_Number: 'No',
  Punctuation: 'P',
  punct: 'P',
  Connector_Punctuation: 'Pc',
  Dash_Punctuation: 'Pd',
  Open_Punctuation: 'Ps',
  Close_Punctuation: 'Pe',
  Initial_Punctuation: 'Pi',
  Final_Punctuation: 'Pf',
  Other_Punctuation: 'Po',
  Symbol: 'S',
  Math_Symbol: 'Sm',
  Currency_Symbol: 'Sc',
  Modifier_Symbol: 'Sk',
  Other_Symbol: 'So',
  Separator: 'Z',
  Space_Separator: 'Zs',
  Line_Separator: 'Zl',
  Paragraph_Separator: 'Zp',
  Other: 'C',
  Control: 'Cc',
  cntrl: 'Cc',
  Format: 'Cf',
  Surrogate: 'Cs',
  Private_Use: 'Co',
  Unassigned: 'Cn',
};

/** `\p{Script=Greek}` becomes `\p{Greek}`, `\p{Letter}` and `\p{General_Category=Letter}` become `\p{L}`. */
function withShortProperties(source: string): string {
  return source.replace(PROPERTIES, (token, property: string | undefined) => {
    if (property === undefined) return token;
    const name = property.replace(/^(Script|sc|General_Category|gc)=/, '');
    return `${token.slice(0, 2)}{${CATEGORIES[name] ?? name}}`;
  });
}
