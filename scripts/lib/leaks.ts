import { appendFileSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Folder in which the processes of a test run record the secrets that they issue and the output of the processes that
 * they start. Unset outside test runs.
 */
export const RECORDS_VARIABLE = 'TOLLGATE_TEST_RECORDS';

const SECRETS = 'secrets-';
const OUTPUT = 'output-';
/** Characters of a secret that are stored and searched for: enough to recognise it. */
const NEEDLE_LENGTH = 16;
/** Ends a word that can be the beginning of a secret, or of the signature of a token. */
const NO_WORD = /[^\w-]/;
const MAX_SHOWN = 20;

/** Records secrets of this test run, so that its end searches the logs for them. Of a token, the signature counts. */
export function recordSecrets(...secrets: readonly string[]): void {
  record(
    SECRETS,
    secrets.map(needleOf).filter((needle) => needle.length === NEEDLE_LENGTH),
  );
}

/** Records a line of output. Only log lines count: `npm start` prints the password of its demo accounts on purpose. */
export function recordOutput(line: string): void {
  if (line.startsWith('{')) record(OUTPUT, [line]);
}

function record(kind: string, lines: readonly string[]): void {
  const folder = process.env[RECORDS_VARIABLE];
  if (folder === undefined || lines.length === 0 || !existsSync(folder)) return;
  appendFileSync(join(folder, `${kind}${process.pid}`), `${lines.join('\n')}\n`, { mode: 0o600 });
}

function needleOf(secret: string): string {
  return (secret.split('.').at(-1) ?? '').slice(0, NEEDLE_LENGTH);
}

export interface Leaks {
  /** Numbers of recorded secrets and lines. */
  readonly secrets: number;
  readonly lines: number;
  /** Lines that contain a secret, each cut before it. */
  readonly found: readonly string[];
}

/** Searches the recorded output for the recorded secrets. Takes time in proportion to the output. */
export function findLeaks(folder: string): Leaks {
  const names = readdirSync(folder);
  const linesOf = (kind: string) => {
    return names
      .filter((name) => name.startsWith(kind))
      .flatMap((name) => readFileSync(join(folder, name), 'utf8').split('\n'))
      .filter((line) => line !== '');
  };
  const secrets = new Set(linesOf(SECRETS));
  const lines = linesOf(OUTPUT);
  const found = lines.flatMap((line) => {
    let index = 0;
    for (const word of line.split(NO_WORD)) {
      if (secrets.has(word.slice(0, NEEDLE_LENGTH))) return [`${line.slice(0, index)}…`];
      index += word.length + 1;
    }
    return [];
  });
  return { secrets: secrets.size, lines: lines.length, found };
}

/** Returns what a test run prints about its leaks; undefined without one. */
export function describeLeaks({ found }: Leaks): string | undefined {
  if (found.length === 0) return undefined;
  return `${found.length} log lines contain a secret of the test run:\n${found.slice(0, MAX_SHOWN).join('\n')}\n`;
}
