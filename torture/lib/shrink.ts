import type { PlannedFault } from './fault-plan.ts';

/** What a round plays: fewer faults, users and milliseconds make a smaller case. */
export interface Case {
  readonly faults: readonly PlannedFault[];
  readonly users: number;
  readonly durationMs: number;
}

export interface Shrunk {
  readonly smallest: Case;
  /** Rounds that were played. */
  readonly rounds: number;
}

/** Shorter rounds end before the clients have begun. */
const MIN_DURATION_MS = 3_000;

/**
 * Looks for a small case that still violates: delta debugging (ddmin, Zeller and Hildebrandt 2002) of the faults, then
 * half the users, then the end of the round. Each try plays a round, at most `maxRounds` in all. A violation that needs
 * luck may be missed, so the result violates, but a smaller one can exist.
 */
export async function shrink(
  first: Case,
  violates: (smaller: Case) => Promise<boolean>,
  maxRounds: number,
): Promise<Shrunk> {
  let smallest = first;
  let rounds = 0;
  /** Keeps a smaller case if it violates; never plays more than the given number of rounds. */
  const adopt = async (smaller: Case): Promise<boolean> => {
    if (rounds >= maxRounds) return false;
    rounds += 1;
    if (!(await violates(smaller))) return false;
    smallest = smaller;
    return true;
  };
  await withFewerFaults((faults) => adopt({ ...smallest, faults }), first.faults);
  while (smallest.users > 1 && (await adopt({ ...smallest, users: Math.floor(smallest.users / 2) })));
  await adopt({ ...smallest, durationMs: shortestFor(smallest) });
  return { smallest, rounds };
}

/** Plays without the faults, then subsets and their complements, and halves their size when none violates. */
async function withFewerFaults(
  adopt: (faults: readonly PlannedFault[]) => Promise<boolean>,
  all: readonly PlannedFault[],
): Promise<void> {
  if (all.length > 0 && (await adopt([]))) return;
  let faults = all;
  for (let pieces = 2; faults.length > 1; ) {
    const subsets = split(faults, pieces);
    const complements = subsets.map((subset) => faults.filter((fault) => !subset.includes(fault)));
    const candidates = pieces === 2 ? subsets : [...subsets, ...complements];
    const smaller = await firstThat(candidates, adopt);
    if (smaller !== undefined) {
      pieces = smaller.length > faults.length / pieces ? Math.max(2, pieces - 1) : 2;
      faults = smaller;
    } else if (pieces >= faults.length) {
      return;
    } else {
      pieces = Math.min(faults.length, 2 * pieces);
    }
  }
}

async function firstThat<T>(candidates: readonly T[], accepts: (one: T) => Promise<boolean>): Promise<T | undefined> {
  for (const candidate of candidates) if (await accepts(candidate)) return candidate;
  return undefined;
}

function split<T>(items: readonly T[], pieces: number): T[][] {
  const bound = (part: number) => Math.round((part * items.length) / pieces);
  return Array.from({ length: pieces }, (_, part) => items.slice(bound(part), bound(part + 1)));
}

/** Faults keep their times, so the round lasts until the last one is healed. */
function shortestFor({ faults, durationMs }: Case): number {
  const lastHealed = Math.max(MIN_DURATION_MS, ...faults.map(({ at, forMs }) => at + forMs));
  return Math.min(durationMs, lastHealed);
}
