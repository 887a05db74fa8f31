import { type Profiler, Session } from 'node:inspector';
import { pathToFileURL } from 'node:url';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';

/**
 * Blocks of code that ran since the last call of `take`, with the magnitude of their counts, by V8's precise block
 * coverage. A loop that runs twice as often as before is therefore new too.
 */
export class Coverage {
  readonly #session = new Session();
  readonly #folders: readonly string[];

  /** @param packages npm packages that count beside `src` */
  constructor(packages: readonly string[]) {
    const root = pathToFileURL(PROJECT_ROOT).href.replace(/\/$/, '');
    this.#folders = [`${root}/src/`, ...packages.map((name) => `${root}/node_modules/${name}/`)];
    this.#session.connect();
    this.#post('Profiler.enable');
    this.#post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }

  take(): string[] {
    const { result } = this.#post('Profiler.takePreciseCoverage') as Profiler.TakePreciseCoverageReturnType;
    return result
      .filter(({ url }) => this.#folders.some((folder) => url.startsWith(folder)))
      .flatMap(({ scriptId, functions }) =>
        functions.flatMap(({ ranges }) =>
          ranges
            .filter(({ count }) => count > 0)
            .map(({ startOffset, endOffset, count }) => {
              return `${scriptId}:${startOffset}-${endOffset}:${magnitude(count)}`;
            }),
        ),
      );
  }

  close(): void {
    this.#session.disconnect();
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

/** 1, 2, 4, 8, … up to 128: more iterations are not told apart. */
function magnitude(count: number): number {
  return Math.min(7, Math.floor(Math.log2(count)));
}
