import { TollgateError } from './errors.ts';

/**
 * Bounds of JSON text that are checked before it is parsed. Parsing costs about 0.1 to 1 µs per value, and more where
 * values are copied or validated; 64 KiB can contain 40,000 values. Recursive functions use stack for each nesting
 * level.
 */
export interface JsonBounds {
  readonly maxDepth: number;
  /** Number of commas, opening brackets and opening braces outside strings, plus one. */
  readonly maxValues: number;
}

/** @throws TollgateError JSON_ERROR */
export function checkJsonBounds(text: string, { maxDepth, maxValues }: JsonBounds): void {
  const { depth, values } = extentOf(text);
  if (depth > maxDepth)
    throw new TollgateError('JSON_ERROR', { text: `The JSON is nested too deeply. Use at most ${maxDepth} levels.` });
  if (values > maxValues) {
    throw new TollgateError('JSON_ERROR', { text: `The JSON has too many values. Use at most ${maxValues}.` });
  }
}

export function isWithinJsonBounds(text: string, { maxDepth, maxValues }: JsonBounds): boolean {
  const { depth, values } = extentOf(text);
  return depth <= maxDepth && values <= maxValues;
}

/**
 * Reads the named string and number members of the outermost object without parsing the rest of the text.
 * @throws SyntaxError for an invalid value
 */
export function topLevelScalars(text: string, names: readonly string[]): Record<string, unknown> {
  const found: Record<string, unknown> = {};
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    if (unit === 0x7b || unit === 0x5b) depth++;
    else if (unit === 0x7d || unit === 0x5d) depth--;
    else if (unit === 0x22) {
      const end = endOfString(text, at);
      const name = depth === 1 ? text.slice(at + 1, end) : '';
      at = end;
      if (!names.includes(name)) continue;
      SCALAR_MEMBER.lastIndex = end + 1;
      const [whole = '', value] = SCALAR_MEMBER.exec(text) ?? [];
      if (value !== undefined) found[name] = JSON.parse(value);
      at += whole.length;
    }
  }
  return found;
}

/** Matches the colon and the value of a member that is a number or a string of at most 128 characters. */
const SCALAR_MEMBER = /[ \t\r\n]{0,16}:[ \t\r\n]{0,16}("[^"\\]{0,128}"|-?\d[\d.eE+-]{0,32})/y;

/** Returns the index of the closing quote, or the length of the text. */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    if (unit === 0x5c) at++;
    else if (unit === 0x22) return at;
  }
  return text.length;
}

/** Returns the maximum nesting depth and the number of values; brackets and commas in strings are ignored. */
function extentOf(frame: string): { readonly depth: number; readonly values: number } {
  let open = 0;
  let depth = 0;
  let values = 1;
  let inString = false;
  for (let at = 0; at < frame.length; at++) {
    const unit = frame.charCodeAt(at);
    if (inString) {
      if (unit === 0x5c) at++;
      else if (unit === 0x22) inString = false;
    } else if (unit === 0x22) inString = true;
    else if (unit === 0x2c) values++;
    else if (unit === 0x7b || unit === 0x5b) {
      values++;
      depth = Math.max(depth, ++open);
    } else if (unit === 0x7d || unit === 0x5d) open--;
  }
  return { depth, values };
}
