import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Environment } from '../../scripts/lib/processes.ts';

const LIBRARY = 'libfaketimeMT.so.1';

/** Returns the path of libfaketime, or undefined without it (`apt-get install libfaketime`). */
export function faketimeLibrary(): string | undefined {
  const folders = existsSync('/usr/lib') ? readdirSync('/usr/lib').map((name) => `/usr/lib/${name}/faketime`) : [];
  return folders.map((folder) => join(folder, LIBRARY)).find((path) => existsSync(path));
}

/**
 * The wall clock of a process, which can be set while it runs. Its monotonic clock stays right, as after a step by NTP
 * or by hand.
 */
export class ProcessClock {
  readonly #file: string;
  readonly #library: string;

  constructor(folder: string, name: string, library: string) {
    this.#file = join(folder, `${name}.clock`);
    this.#library = library;
    this.set(0);
  }

  /** @param seconds difference to the clock of the machine; the process reads it within a second */
  set(seconds: number): void {
    writeFileSync(this.#file, `${seconds < 0 ? '' : '+'}${seconds}\n`);
  }

  get environment(): Environment {
    return {
      LD_PRELOAD: this.#library,
      FAKETIME_TIMESTAMP_FILE: this.#file,
      FAKETIME_CACHE_DURATION: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      NO_FAKE_STAT: '1',
    };
  }
}
