/** One change of a source file: `original` at `start` becomes `replacement`. */
export interface Change {
  readonly operator: string;
  readonly start: number;
  /** From 1. */
  readonly line: number;
  readonly original: string;
  readonly replacement: string;
}

/** Returns the source with one change. */
export function withChange(source: string, { start, original, replacement }: Change): string {
  return source.slice(0, start) + replacement + source.slice(start + original.length);
}
