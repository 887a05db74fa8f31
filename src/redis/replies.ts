/**
 * Shapes of script replies. Lua tables arrive as arrays, numbers as integers, and false and nil as null. A shape costs
 * one type test per element and copies nothing, because every message passes through one.
 */
export type Shape<T> = (value: unknown) => value is T;

/** One shape per element of `T`. */
type Shapes<T extends readonly unknown[]> = { readonly [K in keyof T]: Shape<T[K]> };

export const text: Shape<string> = (value) => typeof value === 'string';

export const integer: Shape<number> = (value) => typeof value === 'number';

/** Any reply, of a script whose reply its caller does not use. */
export const anything: Shape<unknown> = (_value): _value is unknown => true;

export function literal<const T extends string | number>(...values: readonly T[]): Shape<T> {
  const allowed: ReadonlySet<unknown> = new Set(values);
  return (value): value is T => allowed.has(value);
}

export function list<T>(item: Shape<T>): Shape<T[]> {
  return (value): value is T[] => Array.isArray(value) && value.every(item);
}

/** The reply of a script that did something (1) or found nothing to do (0). */
export const done = literal(1, 0);

/** An array that starts with `items`; any number of elements of the shape `rest` may follow. */
export function tuple<T extends readonly unknown[]>(items: Shapes<T>): Shape<T>;
export function tuple<T extends readonly unknown[], R>(
  items: Shapes<T>,
  rest: Shape<R>,
): Shape<readonly [...T, ...R[]]>;
export function tuple(items: readonly Shape<unknown>[], rest?: Shape<unknown>): Shape<readonly unknown[]> {
  return (value): value is readonly unknown[] => {
    if (!Array.isArray(value) || value.length < items.length) return false;
    if (!rest && value.length > items.length) return false;
    for (let at = 0; at < value.length; at++) if (!(items[at] ?? rest)?.(value[at])) return false;
    return true;
  };
}

/** One of several shapes, for a reply whose first element identifies the shape. */
export function oneOf<T extends readonly unknown[]>(...shapes: Shapes<T>): Shape<T[number]> {
  const all: readonly Shape<unknown>[] = shapes;
  return (value): value is T[number] => all.some((shape) => shape(value));
}

/** Most elements of a reply that an error message describes. */
const DESCRIBED = 8;

/** Describes the shape of a reply without its contents, which may be data of a user. */
export function describeReply(reply: unknown): string {
  if (!Array.isArray(reply)) return reply === null ? 'null' : typeof reply;
  const described = reply
    .slice(0, DESCRIBED)
    .map((element) => (Array.isArray(element) ? 'array' : describeReply(element)));
  return `[${described.join(', ')}${reply.length > DESCRIBED ? ', …' : ''}]`;
}
