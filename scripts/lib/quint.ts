import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { type Change, MODEL_CHECKS, type ModelChecks } from './model-checks.ts';
import { PROJECT_ROOT } from './processes.ts';
import { UserError } from './user-error.ts';

const run = promisify(execFile);
const QUINT = join(
  dirname(createRequire(import.meta.url).resolve('@informalsystems/quint/package.json')),
  'dist/src/cli.js',
);
/** The simulator stops at its number of samples, long before. */
const TIMEOUT_MS = 120_000;

/** One run of the simulator. */
export interface Check {
  readonly model: string;
  readonly invariants: readonly string[];
  readonly change: Change | undefined;
  /** Whether the simulator has to find a violation, or none. */
  readonly violates: boolean;
  readonly step: string;
  readonly steps: number;
}

export interface Sampling {
  /** Samples of a model that must hold. */
  readonly samples: number;
  /** Maximum number of samples until a violation must be found. */
  readonly attempts: number;
  /** The seed of the random choices: the same seed takes the same steps. */
  readonly seed: number;
}

export interface Result {
  readonly passed: boolean;
  /** Output of the simulator if the check did not pass. */
  readonly output: string;
  readonly seconds: number;
}

/** Returns one check of all invariants of each model, one of each change, and one of each limit. */
export function modelChecks(all: readonly ModelChecks[] = MODEL_CHECKS): Check[] {
  return all.flatMap(({ model, step = 'step', steps, invariants, limits }) => {
    const names = Object.keys(invariants);
    const holds = { model, step, steps, invariants: names, change: undefined, violates: false };
    const violated = [...Object.entries(invariants), ...Object.entries(limits)].map(([name, change]) => {
      return { model, step, steps, invariants: [name], change, violates: true };
    });
    return [holds, ...violated];
  });
}

/** Returns the text of a model with the change. @throws UserError if the text to replace does not occur exactly once */
export function changedModel(model: string, change: Change | undefined): string {
  const text = readFileSync(join(PROJECT_ROOT, 'models', `${model}.qnt`), 'utf8');
  if (!change) return text;
  const [before, after, ...more] = text.split(change.from);
  if (before === undefined || after === undefined || more.length > 0) {
    throw new UserError(`models/${model}.qnt does not have the text of the change once: ${change.from}`);
  }
  return `${before}${change.to}${after}`;
}

/** Simulates the model of a check. A model with an error passes no check. */
export async function runCheck(check: Check, { samples, attempts, seed }: Sampling): Promise<Result> {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-models-'));
  const startedAt = performance.now();
  const [file, out] = [join(folder, `${check.model}.qnt`), join(folder, 'result.json')];
  try {
    writeFileSync(file, changedModel(check.model, check.change));
    const args = [
      ...['run', file, '--backend', 'typescript', '--out', out, '--seed', String(seed), '--verbosity', '0'],
      ...['--step', check.step],
      ...['--max-steps', String(check.steps), '--max-samples', String(check.violates ? attempts : samples)],
      ...['--invariants', ...check.invariants],
    ];
    // Exits with 1 after a violation and after an error: the written status tells them apart.
    const output = await run(process.execPath, [QUINT, ...args], { timeout: TIMEOUT_MS, cwd: folder }).then(
      ({ stdout, stderr }) => stdout + stderr,
      (error: Error) => error.message,
    );
    const passed = statusIn(out) === (check.violates ? 'violation' : 'ok');
    return { passed, output, seconds: (performance.now() - startedAt) / 1000 };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function statusIn(file: string): unknown {
  try {
    return (JSON.parse(readFileSync(file, 'utf8')) as { status?: unknown }).status;
  } catch {
    return undefined;
  }
}
