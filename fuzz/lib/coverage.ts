import { type Profiler, Session } from 'node:inspector';
import { pathToFileURL } from 'node:url';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';

/**
 * Blocks of code that ran since the last call of `take`, by V8's precise block coverage. A process has one, which it
 * creates before it loads the targets: V8 counts blocks only in functions that it compiles afterwards, and a second
 * session in the same process counts none in the functions of the first.
 */
export class Coverage {
  readonly #session = new Session();
  readonly #root = pathToFileURL(PROJECT_ROOT).href.replace(/\/$/, '');

  constructor() {
    this.#session.connect();
    this.#post('Profiler.enable');
    this.#post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }

  /** @param packages npm packages that count beside the code of the repository */
  take(packages: readonly string[] = []): CoveredBlock[] {
    const { result } = this.#post('Profiler.takePreciseCoverage') as Profiler.TakePreciseCoverageReturnType;
    const folders = ['src/', 'auth-service/', ...packages.map((name) => `node_modules/${name}/`)];
    return result
      .filter(({ url }) => folders.some((folder) => url.startsWith(`${this.#root}/${folder}`)))
      .flatMap(({ scriptId, functions }) =>
        functions.flatMap(({ ranges }) =>
          ranges
            .filter(({ count }) => count > 0)
            .map(({ startOffset, endOffset, count }) => {
              const place = `${scriptId}:${startOffset}-${endOffset}`;
              return { place, block: `${place}:${magnitude(count)}` };
            }),
        ),
      );
  }

  /** Commands of a session within the process settle before `post` returns. */
  #post(method: string, params?: object): unknown {
    let outcome: unknown;
    let failure: Error | null = null;
    this.#session.post(method, params, (error: Error | null, result?: object) => {
      failure = error;
      outcome = result;
    });
    if (failure) throw failure;
    return outcome;
  }
}

export interface CoveredBlock {
  /** Script and range. */
  readonly place: string;
  /** The place with the magnitude of its count: a loop that runs twice as often as before is new too. */
  readonly block: string;
}

/** 1, 2, 4, 8, … up to 128: more iterations are not told apart. */
function magnitude(count: number): number {
  return Math.min(7, Math.floor(Math.log2(count)));
}
