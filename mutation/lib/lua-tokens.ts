export type TokenKind = 'name' | 'keyword' | 'number' | 'string' | 'symbol';

export interface Token {
  readonly kind: TokenKind;
  readonly text: string;
  /** Offset of its first character in the source. */
  readonly start: number;
  readonly end: number;
}

const KEYWORDS = new Set(
  `and break do else elseif end false for function if in local nil not or repeat return then true until while`.split(
    ' ',
  ),
);
const SPACE_OR_COMMENT = /(?:\s+|--\[\[[\s\S]*?\]\]|--[^\n]*)+/y;
const PATTERNS: readonly (readonly [TokenKind, RegExp])[] = [
  ['name', /[A-Za-z_]\w*/y],
  ['number', /0[xX][\da-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?/y],
  ['string', /'(?:[^'\\\n]|\\[\s\S])*'|"(?:[^"\\\n]|\\[\s\S])*"/y],
  ['symbol', /\.\.\.|\.\.|==|~=|<=|>=|[-+*/%^#<>=(){}[\];:,.]/y],
];

/**
 * Returns the tokens of a Lua 5.1 source, without comments. Long strings (`[[...]]`) are not supported: no script has
 * one.
 * @throws Error with the offset of a character that begins no token
 */
export function luaTokens(source: string): Token[] {
  const tokens: Token[] = [];
  let at = afterComments(source, 0);
  while (at < source.length) {
    const token = tokenAt(source, at);
    tokens.push(token);
    at = afterComments(source, token.end);
  }
  return tokens;
}

function afterComments(source: string, at: number): number {
  SPACE_OR_COMMENT.lastIndex = at;
  return SPACE_OR_COMMENT.test(source) ? SPACE_OR_COMMENT.lastIndex : at;
}

function tokenAt(source: string, start: number): Token {
  for (const [kind, pattern] of PATTERNS) {
    pattern.lastIndex = start;
    const text = pattern.exec(source)?.[0];
    if (text === undefined) continue;
    return { kind: kind === 'name' && KEYWORDS.has(text) ? 'keyword' : kind, text, start, end: start + text.length };
  }
  throw new Error(`no Lua token begins at offset ${start}: ${source.slice(start, start + 20)}`);
}
