import { isObject } from '../../lib/json.ts';
import type { Fields } from '../../protocol/messages.ts';

/** Accessors for JSON of foreign servers: a field of another type counts as missing. */

export function asObject(value: unknown): Fields | undefined {
  return isObject(value) ? value : undefined;
}

/** Returns a list; a single object is a list of one. */
export function asList(value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value;
  return asObject(value) ? [value] : [];
}

export function asText(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

/** Returns a number, also from its decimal text; undefined for all others. */
export function asNumber(value: unknown): number | undefined {
  const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value;
  return typeof number === 'number' && Number.isFinite(number) ? number : undefined;
}
