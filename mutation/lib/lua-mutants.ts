import type { Change } from './change.ts';
import { luaTokens, type Token } from './lua-tokens.ts';

export type Operator =
  | 'condition'
  | 'comparison'
  | 'logical'
  | 'arithmetic'
  | 'number'
  | 'boolean'
  | 'key or argument'
  | 'call removed'
  | 'return removed';

/** The boundary of a comparison, and its opposite. */
const COMPARISONS: Readonly<Record<string, readonly string[]>> = {
  '==': ['~='],
  '~=': ['=='],
  '<': ['<=', '>='],
  '<=': ['<', '>'],
  '>': ['>=', '<='],
  '>=': ['>', '<'],
};
const ARITHMETIC: Readonly<Record<string, string>> = { '+': '-', '-': '+', '*': '/', '/': '*', '%': '*' };
const BLOCK_STARTS = new Set(['if', 'do', 'function', 'repeat']);
const BLOCK_ENDS = new Set(['end', 'until']);
const OPENING = new Set(['(', '{', '[']);
const CLOSING = new Set([')', '}', ']']);

/** Returns all mutants of a Lua source, in the order of their position. */
export function luaMutants(source: string): Change[] {
  const tokens = luaTokens(source);
  const changes = tokens.flatMap((_token, at) => [
    ...conditionChanges(tokens, at, source),
    ...tokenChanges(tokens, at),
    ...removals(tokens, at, source),
  ]);
  return changes.map((change) => ({ ...change, line: lineOf(source, change.start) }));
}

type Unplaced = Omit<Change, 'line'> & { readonly operator: Operator };

/** Negates the condition of `if`, `elseif` and `while`, unless the negation of its one comparison is the same mutant. */
function conditionChanges(tokens: readonly Token[], at: number, source: string): Unplaced[] {
  const [token, first] = [tokens[at], tokens[at + 1]];
  if (!token || !first || !/^(?:if|elseif|while)$/.test(token.text)) return [];
  const end = endOfExpression(tokens, at + 1, new Set(['then', 'do']));
  const words = tokens.slice(at + 1, end).map(({ text }) => text);
  if (words.some((word) => word in COMPARISONS) && !words.includes('and') && !words.includes('or')) return [];
  const original = source.slice(first.start, tokens[end - 1]?.end);
  return [{ operator: 'condition', start: first.start, original, replacement: `not (${original})` }];
}

function tokenChanges(tokens: readonly Token[], at: number): Unplaced[] {
  const token = tokens[at];
  if (!token) return [];
  const { text, start, kind } = token;
  const change = (operator: Operator, replacement: string): Unplaced => ({
    operator,
    start,
    original: text,
    replacement,
  });
  if (kind === 'number') return [change(isIndex(tokens, at) ? 'key or argument' : 'number', String(Number(text) + 1))];
  if (kind === 'keyword') return keywordChanges(text).map(([operator, replacement]) => change(operator, replacement));
  if (kind !== 'symbol') return [];
  const arithmetic = isBinary(tokens, at) ? ARITHMETIC[text] : undefined;
  const comparisons = (COMPARISONS[text] ?? []).map((replacement) => change('comparison', replacement));
  return arithmetic === undefined ? comparisons : [change('arithmetic', arithmetic)];
}

function keywordChanges(text: string): (readonly [Operator, string])[] {
  if (text === 'and') return [['logical', 'or']];
  if (text === 'or') return [['logical', 'and']];
  if (text === 'not') return [['logical', '']];
  if (text === 'true') return [['boolean', 'false']];
  return text === 'false' ? [['boolean', 'true']] : [];
}

/** Whether the number is the index in `KEYS[n]` or `ARGV[n]`. */
function isIndex(tokens: readonly Token[], at: number): boolean {
  return tokens[at - 1]?.text === '[' && /^(?:KEYS|ARGV)$/.test(tokens[at - 2]?.text ?? '');
}

/** Whether an operand precedes the symbol, so that `-` is a subtraction and no sign. */
function isBinary(tokens: readonly Token[], at: number): boolean {
  const before = tokens[at - 1];
  return before !== undefined && (/^(?:name|number|string)$/.test(before.kind) || CLOSING.has(before.text));
}

/** Removes a call that is a statement, and a `return` with its values. */
function removals(tokens: readonly Token[], at: number, source: string): Unplaced[] {
  const token = tokens[at];
  if (!token) return [];
  const remove = (operator: Operator, end: number): Unplaced[] => {
    const original = source.slice(token.start, tokens[end - 1]?.end);
    return [{ operator, start: token.start, original, replacement: '' }];
  };
  if (token.text === 'return') return remove('return removed', endOfReturn(tokens, at + 1));
  if (token.kind !== 'name' || !beginsStatement(tokens, at)) return [];
  let open = at + 1;
  while (tokens[open]?.text === '.' || tokens[open - 1]?.text === '.') open += 1;
  return tokens[open]?.text === '(' ? remove('call removed', afterBrackets(tokens, open)) : [];
}

/** Whether a statement begins at the name: it follows the end of another statement, not an operator or a comma. */
function beginsStatement(tokens: readonly Token[], at: number): boolean {
  const before = tokens[at - 1];
  if (!before || /^(?:then|do|else|end|repeat|true|false|nil)$/.test(before.text)) return true;
  return /^(?:name|number|string)$/.test(before.kind) || CLOSING.has(before.text) || before.text === ';';
}

/** Returns the index after the bracket that closes the one at `open`. */
function afterBrackets(tokens: readonly Token[], open: number): number {
  let depth = 0;
  for (let at = open; at < tokens.length; at += 1) {
    const text = tokens[at]?.text ?? '';
    if (OPENING.has(text)) depth += 1;
    if (CLOSING.has(text)) depth -= 1;
    if (depth === 0) return at + 1;
  }
  return tokens.length;
}

/** Returns the index of the first token of `ends` outside brackets. */
function endOfExpression(tokens: readonly Token[], from: number, ends: ReadonlySet<string>): number {
  let at = from;
  while (at < tokens.length && !ends.has(tokens[at]?.text ?? '')) {
    at = OPENING.has(tokens[at]?.text ?? '') ? afterBrackets(tokens, at) : at + 1;
  }
  return at;
}

/** Returns the index of the token that ends the block of a `return`: Lua allows no statement after it. */
function endOfReturn(tokens: readonly Token[], from: number): number {
  let depth = 0;
  for (let at = from; at < tokens.length; at += 1) {
    const text = tokens[at]?.text ?? '';
    if (depth === 0 && (BLOCK_ENDS.has(text) || text === 'else' || text === 'elseif')) return at;
    if (BLOCK_STARTS.has(text)) depth += 1;
    if (BLOCK_ENDS.has(text)) depth -= 1;
  }
  return tokens.length;
}

function lineOf(source: string, offset: number): number {
  return source.slice(0, offset).split('\n').length;
}
