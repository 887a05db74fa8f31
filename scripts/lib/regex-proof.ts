import { checkSync } from 'recheck';

/**
 * `recheck` without its native and Java programs, which some platforms lack, so that the result is the same everywhere.
 */
const BACKEND = { RECHECK_SYNC_BACKEND: 'pure' };
/**
 * Wall time per expression, milliseconds. The slowest of the project takes one second on an idle machine and more than
 * 20 s under a load of ten processes per core. `recheck` bounds the size of the automaton by itself.
 */
const TIMEOUT_MS = 180_000;
/** A noncharacter of Unicode. An expression that ends with it fails at each position after reading all it can. */
const NEVER = '\\uFFFE';

/** Expressions without a proof, each with the reason why their cost is linear. */
const EXAMINED: Readonly<Record<string, string>> = {
  '/\\s+/g': 'Each attempt at a space succeeds and takes the whole run, so that no character is read twice.',
};

type Expression = Readonly<Record<'source' | 'flags', string>>;

/**
 * Proves that matching takes linear time, by the automaton of `recheck`: no pair of loops that can exchange characters,
 * none that a search enters anew at each position.
 *
 * A global expression is searched again after each match. One search may read far beyond its match (`/a(.*b)?/g`), so that
 * the proof has to hold for an expression that fails at each position after having read all it can.
 * @returns what is wrong, as one sentence; undefined when the proof succeeds
 */
export function linearityProblem({ source, flags }: Expression): string | undefined {
  if (EXAMINED[`/${source}/${flags}`] !== undefined) return undefined;
  const problem = problemOf({ source, flags });
  if (problem !== undefined || !/[gy]/.test(flags)) return problem;
  return problemOf({ source: `(?:${source})${NEVER}`, flags });
}

function problemOf({ source, flags }: Expression): string | undefined {
  Object.assign(process.env, BACKEND);
  // The other checker of recheck searches for an attack, and finding none is no proof.
  const found = checkSync(source, flags, { checker: 'automaton', timeout: TIMEOUT_MS });
  if (found.status === 'safe') return undefined;
  if (found.status === 'vulnerable') return `takes ${found.complexity.summary} time`;
  return `cannot be proven linear (${found.error.kind})`;
}
