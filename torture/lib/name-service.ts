import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Environment } from '../../scripts/lib/processes.ts';

/** Host name of Redis in the environment of each process; the name service of the round resolves it. */
export const REDIS_NAME = 'redis.torture.test';

/**
 * The name service of each process: a module that Node loads before the program replaces `dns.lookup`, because a
 * resolver of the whole machine cannot fail for one process. `TORTURE_NAMES` is a file that exists during a failure.
 */
export class NameService {
  readonly nodeOptions: string = `--import=${new URL('../servers/failing-names.mjs', import.meta.url).href}`;
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  environmentOf(name: string): Environment {
    return { TORTURE_NAMES: this.#fileOf(name) };
  }

  /** @returns ends the failure */
  fail(name: string): () => void {
    const file = this.#fileOf(name);
    writeFileSync(file, '');
    return () => rmSync(file, { force: true });
  }

  #fileOf(name: string): string {
    return join(this.#folder, `${name}.names-fail`);
  }
}
