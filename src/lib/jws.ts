import { isUtf8 } from 'node:buffer';
import { isObject, parseJson } from './json.ts';

/**
 * Checks of the text of JSON Web Signatures in compact form (RFC 7515 section 7.1); none of them verifies a
 * signature.
 */

export type JsonObject = Readonly<Record<string, unknown>>;

const QUOTE = 0x22;
const COLON = 0x3a;
const BACKSLASH = 0x5c;

/**
 * Whether each dot-separated part is the canonical base64url encoding of its bytes: no padding, no other alphabet,
 * and zero in the unused bits of the last character (RFC 4648 section 3.5). Decoders ignore those bits, so a
 * signature would otherwise have up to 16 encodings with different hashes. Takes linear time.
 */
export function isCanonical(token: string): boolean {
  return token.split('.').every((part) => Buffer.from(part, 'base64url').toString('base64url') === part);
}

/** Whether the first part decodes to a JSON object under the most lenient rules. Such a token is not opaque. */
export function hasJoseHeader(token: string): boolean {
  const end = token.indexOf('.');
  if (end < 0) return false;
  return isObject(parseJson(Buffer.from(token.slice(0, end), 'base64url').toString('utf8')));
}

/**
 * Decodes a base64url part to a JSON object. Returns undefined for anything else: invalid UTF-8, a byte order mark,
 * another JSON value, or an object with a duplicate member name at any level. Parsers disagree about duplicate names
 * (RFC 7515 section 4, RFC 7519 section 4: reject them, or use the last).
 */
export function jsonObject(part: string): JsonObject | undefined {
  const bytes = Buffer.from(part, 'base64url');
  if (!isUtf8(bytes)) return undefined;
  const text = bytes.toString('utf8');
  const value = parseJson(text);
  return isObject(value) && writtenMembers(text) === memberCount(value) ? value : undefined;
}

/** Counts the members of all objects in valid JSON text, which are the colons outside strings. */
function writtenMembers(text: string): number {
  let members = 0;
  let inString = false;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (inString && code === BACKSLASH) at += 1;
    else if (code === QUOTE) inString = !inString;
    else if (code === COLON && !inString) members += 1;
  }
  return members;
}

/** Counts the members of all objects in a parsed value, in which each name occurs once. Not recursive. */
function memberCount(root: JsonObject): number {
  let members = 0;
  const rest: unknown[] = [root];
  while (rest.length > 0) {
    const value = rest.pop();
    if (typeof value !== 'object' || value === null) continue;
    const inner: unknown[] = Object.values(value);
    if (!Array.isArray(value)) members += inner.length;
    for (const one of inner) rest.push(one);
  }
  return members;
}

/** Returns the object without the members that are null. Serialisers write null for fields that are not set. */
export function withoutNulls(value: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(value).filter(([, member]) => member !== null));
}
