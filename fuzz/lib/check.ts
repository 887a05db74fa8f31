import { isTableError, MAX_INPUT_BYTES, type Target } from './target.ts';

/** Bound of one run in CPU time, for inputs up to `MAX_INPUT_BYTES`. The load of the machine does not count. */
export const MAX_RUN_MS = 50;
/** Repetitions of a run that was late: a run that is late each time is late because of its input. */
const REPETITIONS = 5;

/** What is wrong with a target and an input. */
export interface Finding {
  readonly target: string;
  readonly input: Buffer;
  readonly problem: string;
}

/**
 * Runs a target on one input. A problem is an exception that is no refusal, a pollution of `Object.prototype`, or a run
 * that takes longer than `maxRunMs` six times in a row.
 */
export async function check(target: Target, input: Buffer, maxRunMs = MAX_RUN_MS): Promise<Finding | undefined> {
  const finding = (problem: string): Finding => ({ target: target.name, input, problem });
  const first = await timed(target, input);
  if (first.problem !== undefined) return finding(first.problem);
  const [polluted] = Object.keys(Object.prototype);
  if (polluted !== undefined) {
    Reflect.deleteProperty(Object.prototype, polluted);
    return finding(`Object.prototype has the property ${polluted}`);
  }
  const bound = maxRunMs * Math.max(1, input.length / MAX_INPUT_BYTES);
  let { ms } = first;
  for (let at = 0; at < REPETITIONS && ms > bound; at++) ms = Math.min(ms, (await timed(target, input)).ms);
  return ms > bound ? finding(`took ${ms.toFixed(0)} ms`) : undefined;
}

async function timed({ run, isRefusal = isTableError }: Target, input: Buffer) {
  const start = process.threadCpuUsage();
  let problem: string | undefined;
  try {
    const running = run(input);
    if (running) await running;
  } catch (error) {
    if (!isRefusal(error)) problem = error instanceof Error ? (error.stack ?? error.message) : String(error);
  }
  const { user, system } = process.threadCpuUsage(start);
  return { ms: (user + system) / 1_000, problem };
}
