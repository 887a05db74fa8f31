import { TollgateError } from '../../src/protocol/errors.ts';

/** A parser of client bytes with its oracle. */
export interface Target {
  /** Name of the target and of its corpus file. */
  readonly name: string;
  /** Valid inputs, from which the first mutations start. */
  readonly seeds: readonly (string | Buffer)[];
  /** Words that mutations insert. */
  readonly words?: readonly (string | Buffer)[];
  /** Maximum bytes of an input; by default `MAX_INPUT_BYTES`. */
  readonly maxBytes?: number;
  /** Packages whose coverage counts beside that of `src`. */
  readonly packages?: readonly string[];
  /** Parses the input and compares the result with an independent statement about it. Throws for a violation. */
  readonly run: (input: Buffer) => void | Promise<void>;
  /** Whether the parser may throw this error; by default any `TollgateError` but INTERNAL_ERROR. */
  readonly isRefusal?: (error: unknown) => boolean;
}

/** A frame, a body and a request head are smaller. */
export const MAX_INPUT_BYTES = 65_536;

export function isTableError(error: unknown): boolean {
  return error instanceof TollgateError && error.code !== 'INTERNAL_ERROR';
}

/** A statement about a parser does not hold. */
export class Violation extends Error {}

export function require(holds: boolean, statement: string): void {
  if (!holds) throw new Violation(statement);
}

/** Requires that two values have the same JSON. */
export function requireSame(actual: unknown, expected: unknown, statement: string): void {
  const [left, right] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (left !== right) throw new Violation(`${statement}: ${shortened(left)} is not ${shortened(right)}`);
}

function shortened(text: string | undefined): string {
  return String(text).slice(0, 300);
}
