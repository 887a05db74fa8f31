import type { Fields } from '../../protocol/messages.ts';
import type { ToolOutcome } from '../../tools/outcome.ts';
import { asObject, asText } from './json.ts';

/** A result as the model reads it. */
export interface ReadableResult {
  readonly text: string;
  /** Data URLs of its images, for a model that reads images. */
  readonly images: readonly string[];
}

/** Shorter texts are never taken for encoded bytes. */
const SHORTEST_BASE64 = 1_024;
const MAX_DEPTH = 32;
/** Per result. */
const MAX_IMAGES = 4;
const MAX_IMAGE_LENGTH = 2 * 2 ** 20;

/**
 * Formats an outcome for the model. Includes the reason of a refusal, so that the model can choose another way. Bytes
 * (images, audio, files) become a short word such as `[image image/png, 40 KB]`, so that they displace no text.
 * @param limit maximum characters; the event contains the whole result
 */
export function readableResult(
  outcome: Pick<ToolOutcome, 'success' | 'result' | 'error'>,
  limit: number,
): ReadableResult {
  const images: string[] = [];
  const content = outcome.success ? { result: readable(outcome.result, images, 0) } : { error: outcome.error };
  const json = JSON.stringify(content);
  const text = json.length > limit ? `${json.slice(0, limit).toWellFormed()}… (cut off)` : json;
  return { text, images };
}

function readable(value: unknown, images: string[], depth: number): unknown {
  if (typeof value === 'string') return bytesWord(value) ?? value;
  if (typeof value !== 'object' || value === null || depth > MAX_DEPTH) return value;
  if (Array.isArray(value)) return value.map((item) => readable(item, images, depth + 1));
  const part = value as Fields;
  const word = partWord(part, images);
  if (word !== undefined) return { type: 'text', text: word };
  return Object.fromEntries(Object.entries(part).map(([key, item]) => [key, readable(item, images, depth + 1)]));
}

/** Returns the word for a content block of MCP with bytes; undefined for all other values. */
function partWord(part: Fields, images: string[]): string | undefined {
  const { type, data, mimeType } = part;
  if ((type === 'image' || type === 'audio') && typeof data === 'string') {
    const url = `data:${asText(mimeType) ?? 'application/octet-stream'};base64,${data}`;
    if (type === 'image' && images.length < MAX_IMAGES && url.length <= MAX_IMAGE_LENGTH) images.push(url);
    return `[${type} ${asText(mimeType) ?? 'of unknown type'}, ${kilobytes(data)}]`;
  }
  const resource = type === 'resource' ? asObject(part.resource) : undefined;
  if (typeof resource?.blob !== 'string') return undefined;
  const name = `${asText(resource.uri) ?? ''} ${asText(resource.mimeType) ?? 'of unknown type'}`.trim();
  return `[resource ${name}, ${kilobytes(resource.blob)}]`;
}

/** Returns the word for a text that consists of encoded bytes: a data URL or base64. */
function bytesWord(text: string): string | undefined {
  const url = /^data:([\w.+/-]{1,100})?(?:;[\w=.-]{1,100}){0,4};base64,/.exec(text.slice(0, 600));
  const data = url ? text.slice(url[0].length) : text;
  if (data.length < SHORTEST_BASE64 || !isBase64(data)) return undefined;
  return `[bytes ${url?.[1] ?? 'of unknown type'}, ${kilobytes(data)}]`;
}

/** Bytes have letters of both cases and digits; a long word or number has not. */
function isBase64(text: string): boolean {
  const sample = text.slice(0, SHORTEST_BASE64);
  return /^[\w+/=\r\n-]+$/.test(text) && /[a-z]/.test(sample) && /[A-Z]/.test(sample) && /\d/.test(sample);
}

function kilobytes(base64: string): string {
  const bytes = Math.floor((base64.length * 3) / 4);
  return bytes < 1_000 ? `${bytes} B` : `${Math.round(bytes / 1_000)} KB`;
}
