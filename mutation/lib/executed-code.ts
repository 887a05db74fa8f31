import { type Profiler, Session } from 'node:inspector';
import { fileURLToPath } from 'node:url';

/** A part of a source with the number of its executions. Ranges are nested; the innermost one counts. */
export type Range = readonly [start: number, end: number, count: number];

/** Ranges by path. Node removes types without a change of positions, so they are those of the source. */
export type ExecutedCode = Readonly<Record<string, readonly Range[]>>;

/** Returns the code that `work` executes, by V8's precise block coverage: of modules whose URL `isIncluded` accepts. */
export async function executedCode(work: () => Promise<void>, isIncluded: (url: string) => boolean) {
  const session = new Session();
  session.connect();
  try {
    post(session, 'Profiler.enable');
    post(session, 'Profiler.startPreciseCoverage', { callCount: true, detailed: true });
    await work();
    const { result } = post(session, 'Profiler.takePreciseCoverage') as Profiler.TakePreciseCoverageReturnType;
    return Object.fromEntries(
      result
        .filter(({ url }) => isIncluded(url))
        .map(({ url, functions }) => [fileURLToPath(url), functions.flatMap(({ ranges }) => ranges.map(rangeOf))]),
    );
  } finally {
    session.disconnect();
  }
}

/** Whether the code at a position of a file was executed. */
export function isExecuted(executed: ExecutedCode, path: string, at: number): boolean {
  const around = (executed[path] ?? []).filter(([start, end]) => start <= at && at < end);
  const innermost = around.toSorted(([a, b], [c, d]) => b - a - (d - c))[0];
  return innermost !== undefined && innermost[2] > 0;
}

function rangeOf({ startOffset, endOffset, count }: Profiler.CoverageRange): Range {
  return [startOffset, endOffset, count];
}

/** Commands of a session within the process settle before `post` returns. */
function post(session: Session, method: string, params?: object): unknown {
  let outcome: unknown;
  session.post(method, params, (error: Error | null, result?: object) => {
    if (error) throw error;
    outcome = result;
  });
  return outcome;
}
