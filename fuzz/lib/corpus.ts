import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import type { Target } from './target.ts';

/** Longer inputs are not committed: each has a shorter one with nearly the same coverage. */
const MAX_KEPT_BYTES = 512;
const MAX_KEPT = 60;

/** The inputs of a target: its seeds, and those that reached new code before. */
export function readCorpus({ name, seeds }: Target): Buffer[] {
  const kept: string[] = existsSync(fileOf(name)) ? JSON.parse(readFileSync(fileOf(name), 'utf8')) : [];
  return [...seeds.map(bytesOf), ...kept.map((text) => Buffer.from(text, 'latin1'))];
}

/** Stores short inputs, one per line, each byte as the character with its number. */
export function writeCorpus({ name, seeds }: Target, inputs: readonly Buffer[]): void {
  const known = new Set(seeds.map((seed) => bytesOf(seed).toString('latin1')));
  const short = inputs.filter(({ length }) => length <= MAX_KEPT_BYTES).map((input) => input.toString('latin1'));
  const kept = [...new Set(short)].filter((text) => !known.has(text)).slice(0, MAX_KEPT);
  if (kept.length > 0) writeFileSync(fileOf(name), `[\n${kept.map((text) => `  ${quoted(text)}`).join(',\n')}\n]\n`);
}

/** JSON in ASCII. */
function quoted(text: string): string {
  return JSON.stringify(text).replace(/[\x7f-\xff]/g, (character) => {
    return `\\u00${character.charCodeAt(0).toString(16)}`;
  });
}

function fileOf(name: string): string {
  return join(PROJECT_ROOT, 'fuzz/corpus', `${name}.json`);
}

function bytesOf(seed: string | Buffer): Buffer {
  return typeof seed === 'string' ? Buffer.from(seed) : seed;
}
