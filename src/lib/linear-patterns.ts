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
 * Compiles a pattern of a JSON Schema to an RE2 automaton, which matches in linear time. V8 backtracks, so a text
 * from a caller could take exponential time with an untrusted pattern.
 *
 * RE2 differs from ECMAScript in `\s`, which is ASCII space only, and in `.`, which excludes `\n` only.
 * @throws SyntaxError if the pattern is not an ECMAScript expression with the flag `u`, which JSON Schema requires
 * @throws NotLinear for lookarounds, back references, and repetitions above 1,000
 */
export function linearPattern(source: string): Pattern {
  // Compiled but never matched: RE2 accepts additional syntax that clients with the same schema would reject.
  new RegExp(source, 'u');
  const automaton = compileLinear(source);
  return { test: (text) => automaton.test(text), toString: () => `re2:${source}` };
}

function compileLinear(source: string): RE2JS {
  try {
    return RE2JS.compile(RE2JS.translateRegExp(source));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new NotLinear(`the pattern ${JSON.stringify(source)} cannot be matched in linear time: ${reason}`, { cause });
  }
}
