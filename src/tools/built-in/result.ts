import type { Fields } from '../../protocol/messages.ts';

/** Maximum size of a result in an event. */
export const MAX_RESULT_BYTES = 64 * 1024;
/** Reserved for the JSON around the preview. */
const MARK_BYTES = 128;

/**
 * Returns the result unchanged if its JSON has at most 64 KiB. Otherwise returns `{ truncated: true, bytes, preview }`,
 * where `preview` is the beginning of the JSON as a string. The output is valid JSON in both cases.
 */
export function boundedResult(result: Fields): Fields {
  const json = JSON.stringify(result);
  const bytes = Buffer.byteLength(json);
  if (bytes <= MAX_RESULT_BYTES) return result;
  // Encoding the preview as a string escapes its quotes and backslashes again, which can double its size.
  let length = MAX_RESULT_BYTES - MARK_BYTES;
  let preview = json.slice(0, length);
  while (Buffer.byteLength(JSON.stringify(preview)) > MAX_RESULT_BYTES - MARK_BYTES) {
    length = Math.floor(length * 0.9);
    preview = json.slice(0, length);
  }
  return { truncated: true, bytes, preview: preview.toWellFormed() };
}
