import { chmodSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { closeAfter } from './open-resources.ts';

/** One instruction of a Dockerfile: its name and the rest of it, continued lines joined. */
export interface Instruction {
  readonly name: string;
  readonly text: string;
}

/** The stages of the Dockerfile, from `FROM` to `FROM`. */
export function dockerfileStages(): Instruction[][] {
  const text = readFileSync(join(PROJECT_ROOT, 'Dockerfile'), 'utf8');
  const lines = text.split('\n').filter((line) => !/^\s*#/.test(line));
  const instructions = lines.join('\n').replaceAll(/\\\n/g, ' ').split('\n');
  const stages: Instruction[][] = [];
  for (const line of instructions) {
    const [, name, rest = ''] = /^([A-Z]+)\s+(.*)$/.exec(line) ?? [];
    if (name === 'FROM') stages.push([]);
    if (name) stages.at(-1)?.push({ name, text: rest.trim() });
  }
  return stages;
}

export interface ImageLayout {
  /** Where the files are; `/` of the image. */
  readonly root: string;
  /** The working directory of the image, in it. */
  readonly app: string;
  /** Of everything that is copied onto the base image, the Node binary included. */
  readonly bytes: number;
}

/**
 * Lays out what the last stage of the Dockerfile copies, without a container engine: the Node that runs the tests, the
 * production packages of package-lock.json as they are installed here, and the files of the project. Removed when the
 * test file ends.
 */
export function layOutImage(): ImageLayout {
  const root = mkdtempSync(join(tmpdir(), 'tollgate-image-'));
  closeAfter('file', () => rmSync(root, { recursive: true, force: true }));
  // Readable by the image's user, as the layers of an image are.
  chmodSync(root, 0o755);
  let workdir = '/';
  for (const { name, text } of dockerfileStages().at(-1) ?? []) {
    if (name === 'WORKDIR') workdir = text;
    if (name === 'COPY') copy(text, join(root, workdir), root);
  }
  return { root, app: join(root, workdir), bytes: sizeOf(root) };
}

function copy(text: string, workdir: string, root: string): void {
  const [, from, source = '', target = ''] = /^(?:--from=(\S+) )?(\S+) (\S+)$/.exec(text) ?? [];
  const to = target.startsWith('/') ? join(root, target) : join(workdir, target);
  if (from === undefined) return cpSync(join(PROJECT_ROOT, source), target === './' ? join(to, source) : to, RECURSIVE);
  if (source === '/usr/local/bin/node') return cpSync(process.execPath, to, RECURSIVE);
  if (source === '/app/node_modules') return copyPackages(to);
  throw new Error(`test/support/image.ts does not know where ${from} has ${source} from`);
}

const RECURSIVE = { recursive: true, dereference: true } as const;

/** What the first stage leaves of node_modules. */
function copyPackages(to: string): void {
  const lock = JSON.parse(readFileSync(join(PROJECT_ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean }>;
  };
  const deleted = [...deletedPatterns(), ...removedPaths()];
  for (const [path, { dev = false }] of Object.entries(lock.packages)) {
    // Optional packages of other platforms are in the lock and not on the disk.
    const folder = join(PROJECT_ROOT, path);
    if (dev || path === '' || !isFolder(folder)) continue;
    cpSync(folder, join(dirname(to), path), {
      ...RECURSIVE,
      // A package inside a package has an entry of its own.
      filter: (file) => relative(folder, file) !== 'node_modules' && !deleted.some((pattern) => pattern.test(file)),
    });
  }
  mkdirSync(to, { recursive: true });
}

/** The `-name` patterns of the `find … -delete`; licences are few and small enough to be counted out. */
function deletedPatterns(): RegExp[] {
  const run = dockerfileStages()[0]?.find(({ name }) => name === 'RUN')?.text ?? '';
  return [...run.matchAll(/(?<!! )-i?name '\*(\.[\w.]+)'/g)].map(([, end = '']) => new RegExp(`\\${end}$`, 'i'));
}

/** What the `rm -rf` names, with its wildcards, and all that is in it. */
function removedPaths(): RegExp[] {
  const run = dockerfileStages()[0]?.find(({ name }) => name === 'RUN')?.text ?? '';
  const [, words = ''] = /rm -rf ([^&]+)/.exec(run) ?? [];
  return words
    .trim()
    .split(/\s+/)
    .filter(Boolean)
    .map((path) => new RegExp(`/${path.replaceAll('.', '\\.').replaceAll('*', '[^/]*')}(/|$)`));
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function sizeOf(folder: string): number {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
}
