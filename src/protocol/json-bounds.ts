import { TollgateError } from './errors.ts';

/**
 * What JSON may hold before it is parsed. Building its values costs some 0.1 to 1 µs each and more where they are copied or
 * validated, and 64 KiB could hold 40,000; what walks nested values recursively uses stack for each level.
 */
export interface JsonBounds {
  readonly maxDepth: number;
  /** Values and members, counted by the brackets, braces and commas outside strings. */
  readonly maxElements: number;
}

/** @throws TollgateError JSON_ERROR */
export function checkJsonBounds(text: string, { maxDepth, maxElements }: JsonBounds): void {
  const { depth, elements } = extentOf(text);
  if (depth > maxDepth) throw new TollgateError('JSON_ERROR', { text: 'The JSON is nested too deeply.' });
  if (elements > maxElements) {
    throw new TollgateError('JSON_ERROR', { text: `The JSON has more than ${maxElements} elements.` });
  }
}

/** The deepest nesting of brackets and braces, and the number of elements, both outside strings. */
function extentOf(frame: string): { readonly depth: number; readonly elements: number } {
  let open = 0;
  let depth = 0;
  let elements = 0;
  let inString = false;
  for (let at = 0; at < frame.length; at++) {
    const unit = frame.charCodeAt(at);
    if (inString) {
      if (unit === 0x5c) at++;
      else if (unit === 0x22) inString = false;
    } else if (unit === 0x22) inString = true;
    else if (unit === 0x2c) elements++;
    else if (unit === 0x7b || unit === 0x5b) {
      elements++;
      depth = Math.max(depth, ++open);
    } else if (unit === 0x7d || unit === 0x5d) open--;
  }
  return { depth, elements };
}
