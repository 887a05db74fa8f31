export interface Line {
  readonly name: string;
  readonly values: readonly (number | null)[];
}

export interface ChartProps {
  readonly at: readonly string[];
  readonly lines: readonly Line[];
  readonly format: (value: number) => string;
  /** Columns instead of lines, for sums per UTC day or hour. */
  readonly bars?: boolean;
}
