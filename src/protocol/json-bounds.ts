import { TollgateError } from './errors.ts';

/**
 * What JSON may hold before it is parsed. Building its values costs some 0.1 to 1 µs each and more where they are copied or
 * validated, and 64 KiB could hold 40,000; what walks nested values recursively uses stack for each level.
 */
export interface JsonBounds {
  readonly maxDepth: number;
  /** One per comma and one per bracket or brace outside strings. */
  readonly maxValues: number;
}

/** @throws TollgateError JSON_ERROR */
export function checkJsonBounds(text: string, { maxDepth, maxValues }: JsonBounds): void {
  const { depth, values } = extentOf(text);
  if (depth > maxDepth) throw new TollgateError('JSON_ERROR', { text: 'The JSON is nested too deeply.' });
  if (values > maxValues) {
    throw new TollgateError('JSON_ERROR', { text: `The JSON has more than ${maxValues} values.` });
  }
}

export function isWithinJsonBounds(text: string, { maxDepth, maxValues }: JsonBounds): boolean {
  const { depth, values } = extentOf(text);
  return depth <= maxDepth && values <= maxValues;
}

/**
 * The strings and numbers that the outermost object has under these names, read without building the rest of it.
 * @throws SyntaxError where a value is none
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

/** What follows the name of a member whose value is a string or a number, up to 128 characters. */
const SCALAR_MEMBER = /[ \t\r\n]{0,16}:[ \t\r\n]{0,16}("[^"\\]{0,128}"|-?\d[\d.eE+-]{0,32})/y;

/** The index of the quote that ends a string, or of the end of the text. */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    if (unit === 0x5c) at++;
    else if (unit === 0x22) return at;
  }
  return text.length;
}

/** The deepest nesting of brackets and braces, and the number of values, both outside strings. */
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
