import type { JsonObject } from '../../lib/jws.ts';

/** Source of one field of an identity. */
export interface ClaimRule {
  /** Claims in order of preference: names of top-level claims, or JSON Pointers (RFC 6901) that start with a slash. */
  readonly from: readonly string[];
  /** Literal values: claim value → field value. The order of the entries is their precedence. */
  readonly map?: ReadonlyMap<string, readonly string[]> | undefined;
  /** Values if no claim has one. */
  readonly fallback?: readonly string[] | undefined;
}

/** A condition on a claim. Without `values`, the claim only has to be present. */
export interface ClaimCondition {
  readonly claim: string;
  readonly values?: readonly (string | number | boolean)[] | undefined;
}

/** Maximum values of one claim that are read. */
const MAX_VALUES = 1_024;

/**
 * Returns the value of a claim; undefined if it is missing or null. Only own members count, so a path cannot reach the
 * prototype. A name that does not start with a slash is a top-level claim, because claim names often are URLs.
 */
export function claimAt(claims: JsonObject, path: string): unknown {
  const segments = path.startsWith('/') ? path.slice(1).split('/').map(unescaped) : [path];
  let value: unknown = claims;
  for (const segment of segments) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, segment)) return undefined;
    value = Reflect.get(value, segment);
  }
  return value ?? undefined;
}

/** Returns the value of the first claim of a rule that is present, and its name. */
export function firstClaim(claims: JsonObject, { from }: ClaimRule): { value: unknown; claim: string } | undefined {
  for (const claim of from) {
    const value = claimAt(claims, claim);
    if (value !== undefined) return { value, claim };
  }
  return undefined;
}

/**
 * Returns the texts of a claim: a list of texts, one text (several if `separator` is in it), or the names of an
 * object's members. Values of other types are counted in `ignored`.
 */
export function textsOf(value: unknown, separator?: string): { texts: string[]; ignored: number } {
  if (value === undefined || value === null) return { texts: [], ignored: 0 };
  if (typeof value === 'string') {
    return { texts: (separator === undefined ? [value] : value.split(separator)).filter(Boolean), ignored: 0 };
  }
  if (typeof value === 'object' && !Array.isArray(value)) return { texts: Object.keys(value), ignored: 0 };
  if (!Array.isArray(value)) return { texts: [], ignored: 1 };
  const read = value.slice(0, MAX_VALUES).filter((one): one is string => typeof one === 'string' && one !== '');
  return { texts: read, ignored: value.length - read.length };
}

/** Applies the literal map and the fallback of a rule. Without a map, the values stay as they are. */
export function mapped({ map, fallback = [] }: ClaimRule, texts: readonly string[]): readonly string[] {
  const present = new Set(texts);
  const values = map ? [...map].filter(([from]) => present.has(from)).flatMap(([, to]) => to) : texts;
  return values.length > 0 ? values : fallback;
}

/** Returns the first condition that the claims do not meet. */
export function unmet(claims: JsonObject, conditions: readonly ClaimCondition[]): ClaimCondition | undefined {
  return conditions.find(({ claim, values }) => {
    const value = claimAt(claims, claim);
    if (value === undefined) return true;
    if (values === undefined) return false;
    const present: readonly unknown[] = Array.isArray(value) ? value : [value];
    return !values.some((one) => present.includes(one));
  });
}

function unescaped(segment: string): string {
  return segment.replaceAll('~1', '/').replaceAll('~0', '~');
}
