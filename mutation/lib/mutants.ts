import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import type { Change } from './change.ts';
import { luaMutants } from './lua-mutants.ts';
import { typeScriptMutants } from './typescript-mutants.ts';

export interface Mutant extends Change {
  /** Identifies the mutant as long as its file does not change. */
  readonly id: string;
  readonly file: string;
}

/** Returns the mutants of a file, relative to the project, in the order of their position. */
export async function mutantsOf(file: string): Promise<Mutant[]> {
  const source = readSource(file);
  const changes = file.endsWith('.lua') ? luaMutants(source) : await typeScriptMutants(file, source);
  const digest = createHash('sha256').update(source).digest('hex').slice(0, 8);
  return changes.map((change) => ({ ...change, file, id: `${file} ${digest} ${change.start} ${change.replacement}` }));
}

export function readSource(file: string): string {
  return readFileSync(join(PROJECT_ROOT, file), 'utf8');
}

/**
 * Returns at most `size` mutants: those with the smallest digests of seed and id. A larger sample of the same seed
 * contains the smaller one.
 */
export function sampleOf(mutants: readonly Mutant[], size: number, seed: string): Mutant[] {
  const order = (mutant: Mutant) => createHash('sha256').update(`${seed} ${mutant.id}`).digest('hex');
  const keyed = mutants.map((mutant) => ({ mutant, key: order(mutant) }));
  return keyed
    .sort((a, b) => (a.key < b.key ? -1 : 1))
    .slice(0, size)
    .map(({ mutant }) => mutant);
}
