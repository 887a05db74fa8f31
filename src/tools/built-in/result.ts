import type { Fields } from '../../protocol/messages.ts';

/** A larger result does not fit into an event. */
export const MAX_RESULT_BYTES = 64 * 1024;
/** Left for the mark around what is shown. */
const MARK_BYTES = 128;

/**
 * A result as events and answers carry it: itself, or, where it is larger than 64 KiB, the beginning of its JSON as text
 * with a mark that says so: `{ truncated: true, bytes, preview }`. Valid JSON either way.
 */
export function boundedResult(result: Fields): Fields {
  const json = JSON.stringify(result);
  const bytes = Buffer.byteLength(json);
  if (bytes <= MAX_RESULT_BYTES) return result;
  // Quotes and backslashes are escaped again in a text, so that half may have to do.
  let length = MAX_RESULT_BYTES - MARK_BYTES;
  let preview = json.slice(0, length);
  while (Buffer.byteLength(JSON.stringify(preview)) > MAX_RESULT_BYTES - MARK_BYTES) {
    length = Math.floor(length * 0.9);
    preview = json.slice(0, length);
  }
  return { truncated: true, bytes, preview: preview.toWellFormed() };
}
