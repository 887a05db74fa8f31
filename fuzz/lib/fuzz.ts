import { check, type Finding } from './check.ts';
import type { Coverage, CoveredBlock } from './coverage.ts';
import { mutated } from './mutate.ts';
import { Random } from './random.ts';
import { MAX_INPUT_BYTES, type Target } from './target.ts';

/** Inputs between two reads of the coverage. A read takes 2 to 3 ms, most inputs take 0.1 ms. */
const BATCH = 64;
/** Findings after which a target stops: they usually have one cause. */
const MAX_FINDINGS = 5;

export interface FuzzOptions {
  readonly coverage: Coverage;
  readonly seed: number;
  /** Inputs with which the campaign starts. */
  readonly corpus: readonly Buffer[];
  readonly isOver: (runs: number) => boolean;
}

export interface FuzzResult {
  readonly runs: number;
  /** Covered blocks, counted once per magnitude of their counts. */
  readonly blocks: number;
  /** Those of the corpus. */
  readonly blocksOfCorpus: number;
  /** Number of the input that reached the last new block. */
  readonly lastNew: number;
  /** Inputs that reached a place that no earlier input reached, in the order of their discovery. */
  readonly corpus: readonly Buffer[];
  readonly findings: readonly Finding[];
}

/** Mutates inputs that reached new code, until `isOver`. The same seed and corpus give the same inputs. */
export async function fuzz(target: Target, { coverage, seed, corpus, isOver }: FuzzOptions): Promise<FuzzResult> {
  const random = new Random(seed);
  const covered = new Set<string>();
  const places = new Set<string>();
  const ofBatches = new Set<string>();
  const kept: Buffer[] = [];
  const firstAtPlace: Buffer[] = [];
  const findings: Finding[] = [];
  let runs = 0;
  let lastNew = 0;
  const take = () => coverage.take(target.packages);
  const keep = (input: Buffer, fresh: readonly CoveredBlock[]) => {
    kept.push(input);
    if (fresh.some(({ place }) => !places.has(place))) firstAtPlace.push(input);
    for (const { place, block } of fresh) {
      covered.add(block);
      places.add(place);
    }
    lastNew = runs;
  };
  const run = async (input: Buffer) => {
    runs += 1;
    const finding = await check(target, input);
    if (finding) findings.push(finding);
  };
  /** Keeps the inputs that reach something new. A batch that reaches nothing new is read once. */
  const explore = async (inputs: readonly Buffer[]): Promise<void> => {
    take();
    for (const input of inputs) if (findings.length < MAX_FINDINGS) await run(input);
    const fresh = take().filter(({ block }) => !covered.has(block) && !ofBatches.has(block));
    const [input] = inputs;
    if (fresh.length === 0 || input === undefined) return;
    if (inputs.length > 1) {
      const half = inputs.length >> 1;
      await explore(inputs.slice(0, half));
      await explore(inputs.slice(half));
      // Several inputs reach magnitudes that none of them reaches alone.
      for (const { block } of fresh) ofBatches.add(block);
    } else {
      keep(input, fresh);
    }
  };
  const options = { words: target.words ?? [], maxBytes: target.maxBytes ?? MAX_INPUT_BYTES };
  for (const input of corpus) await explore([input]);
  const blocksOfCorpus = covered.size;
  while (!isOver(runs) && findings.length < MAX_FINDINGS) {
    const inputs = Array.from({ length: BATCH }, () => {
      return mutated(random, chosen(random, kept), { ...options, other: chosen(random, kept) });
    });
    await explore(inputs);
  }
  return { runs, blocks: covered.size, blocksOfCorpus, lastNew, corpus: firstAtPlace, findings };
}

/** Prefers recent inputs: they reached the rarest code. */
function chosen(random: Random, kept: readonly Buffer[]): Buffer {
  if (kept.length === 0) return Buffer.alloc(0);
  const recent = random.below(2) === 0 ? kept.slice(-16) : kept;
  return random.pick(recent);
}
