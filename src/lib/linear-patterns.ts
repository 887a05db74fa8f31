import { RE2JS } from 're2js';

/** A regular expression as JSON Schema uses one. */
export interface Pattern {
  /** Whether any part of the text matches. */
  test(text: string): boolean;
  /** Ajv keeps its compiled patterns by this text. */
  toString(): string;
}

/** The pattern is a regular expression, but one that cannot be matched in linear time: RE2 has no such construct. */
export class NotLinear extends Error {}

/**
 * Compiles a pattern of a JSON Schema to an automaton of RE2, which takes time in proportion to the text whatever the
 * pattern is. V8 backtracks: with a pattern of somebody else, the text of a caller could cost exponential time.
 *
 * RE2 differs from ECMAScript in `\s`, which is ASCII space only, and in `.`, which excludes `\n` only.
 * @throws SyntaxError for what is no ECMAScript expression with the flag `u`, which JSON Schema asks for
 * @throws NotLinear for lookarounds, back references, and repetitions above 1,000
 */
export function linearPattern(source: string): Pattern {
  // RE2 takes other syntax too, which a client that reads the same schema would refuse. Compiled only, never matched.
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
