import { check, type Finding } from './check.ts';
import { Coverage } from './coverage.ts';
import { mutated } from './mutate.ts';
import { Random } from './random.ts';
import { MAX_INPUT_BYTES, type Target } from './target.ts';

/** Inputs between two reads of the coverage. A read takes 2 to 3 ms, most inputs take 0.1 ms. */
const BATCH = 64;
/** Findings after which a target stops: they usually have one cause. */
const MAX_FINDINGS = 5;

export interface FuzzOptions {
  readonly seed: number;
  /** Inputs with which the campaign starts. */
  readonly corpus: readonly Buffer[];
  readonly isOver: (runs: number) => boolean;
}

export interface FuzzResult {
  readonly runs: number;
  /** Covered blocks, counted once per magnitude of their counts. */
  readonly blocks: number;
  /** Inputs that reached something new, shortest first within the time of their discovery. */
  readonly corpus: readonly Buffer[];
  readonly findings: readonly Finding[];
}

/** Mutates inputs that reached new code, until `isOver`. The same seed and corpus give the same inputs. */
export async function fuzz(target: Target, { seed, corpus, isOver }: FuzzOptions): Promise<FuzzResult> {
  const random = new Random(seed);
  const coverage = new Coverage(target.packages ?? []);
  const covered = new Set<string>();
  const ofBatches = new Set<string>();
  const kept: Buffer[] = [];
  const findings: Finding[] = [];
  let runs = 0;
  const run = async (input: Buffer) => {
    runs += 1;
    const finding = await check(target, input);
    if (finding) findings.push(finding);
  };
  /** Keeps the inputs that reach something new. A batch that reaches nothing new is read once. */
  const explore = async (inputs: readonly Buffer[]): Promise<void> => {
    coverage.take();
    for (const input of inputs) if (findings.length < MAX_FINDINGS) await run(input);
    const fresh = coverage.take().filter((block) => !covered.has(block) && !ofBatches.has(block));
    const [input] = inputs;
    if (fresh.length === 0 || input === undefined) return;
    if (inputs.length > 1) {
      const half = inputs.length >> 1;
      await explore(inputs.slice(0, half));
      await explore(inputs.slice(half));
      // Several inputs reach magnitudes that none of them reaches alone.
      for (const block of fresh) ofBatches.add(block);
    } else {
      kept.push(input);
      for (const block of fresh) covered.add(block);
    }
  };
  const options = { words: target.words ?? [], maxBytes: target.maxBytes ?? MAX_INPUT_BYTES };
  for (const input of corpus) await explore([input]);
  while (!isOver(runs) && findings.length < MAX_FINDINGS) {
    const inputs = Array.from({ length: BATCH }, () => {
      return mutated(random, chosen(random, kept), { ...options, other: chosen(random, kept) });
    });
    await explore(inputs);
  }
  coverage.close();
  return { runs, blocks: covered.size, corpus: kept, findings };
}

/** Prefers recent inputs: they reached the rarest code. */
function chosen(random: Random, kept: readonly Buffer[]): Buffer {
  if (kept.length === 0) return Buffer.alloc(0);
  const recent = random.below(2) === 0 ? kept.slice(-16) : kept;
  return random.pick(recent);
}
