import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { UserError } from '../../scripts/lib/user-error.ts';
import type { Change } from './change.ts';

interface Position {
  /** From 0, as `column`. */
  readonly line: number;
  readonly column: number;
}

interface StrykerMutant {
  readonly mutatorName: string;
  readonly replacement: string;
  readonly location: { readonly start: Position; readonly end: Position };
}

interface Instrumenter {
  instrument(
    files: readonly { readonly name: string; readonly mutate: true; readonly content: string }[],
    options: object,
  ): Promise<{ readonly mutants: readonly StrykerMutant[] }>;
}

const INSTRUMENTER = 'mutation/node_modules/@stryker-mutator/instrumenter/dist/src/index.js';
/** Texts of log lines and errors: their exact words are no behaviour that tests should fix. */
const EXCLUDED = new Set(['StringLiteral']);

/**
 * Returns the mutants that Stryker's instrumenter finds. Its switches between mutants in one instrumented source are not
 * used, because each mutant gets freshly loaded modules.
 * @throws UserError if Stryker is not installed
 */
export async function typeScriptMutants(file: string, content: string): Promise<Change[]> {
  const instrumenter = await loadInstrumenter();
  const options = { excludedMutations: [], ignorers: [], plugins: null };
  const { mutants } = await instrumenter.instrument(
    [{ name: join(PROJECT_ROOT, file), mutate: true, content }],
    options,
  );
  const lines = lineOffsets(content);
  const offset = ({ line, column }: Position) => (lines[line] ?? content.length) + column;
  const included = mutants.filter(({ mutatorName }) => !EXCLUDED.has(mutatorName));
  return included.map(({ mutatorName, replacement, location }) => {
    const start = offset(location.start);
    const original = content.slice(start, offset(location.end));
    return { operator: mutatorName, start, line: location.start.line + 1, original, replacement };
  });
}

async function loadInstrumenter(): Promise<Instrumenter> {
  const path = join(PROJECT_ROOT, INSTRUMENTER);
  if (!existsSync(path)) throw new UserError('Stryker is not installed: npm ci --prefix mutation');
  const { Instrumenter: Loaded } = await import(path);
  const silent = () => {};
  return new Loaded({ debug: silent, info: silent, warn: silent, isDebugEnabled: () => false });
}

function lineOffsets(text: string): number[] {
  const offsets = [0];
  for (const { index } of text.matchAll(/\n/g)) offsets.push(index + 1);
  return offsets;
}
