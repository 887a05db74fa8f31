import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { closeAfter } from './open-resources.ts';
import { isInstalled, STRIP } from './programs.ts';

/** One instruction of a Dockerfile: its name and its arguments, with continued lines joined. */
export interface Instruction {
  readonly name: string;
  readonly text: string;
}

/** Returns the stages of the Dockerfile, split at `FROM`. */
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
  /** Folder of the files; `/` of the image. */
  readonly root: string;
  /** Working directory of the image, below `root`. */
  readonly app: string;
  /** Size of everything that is copied onto the base image, including the Node binary. */
  readonly bytes: number;
}

/**
 * Lays out what the last stage of the Dockerfile copies, without a container engine: the files of the project, the built
 * console, and the results of the first stage's commands for the Node of this test run and the installed production
 * packages. Removed when the test file ends.
 */
export function layOutImage(): ImageLayout {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-image-'));
  closeAfter('file', () => rmSync(folder, { recursive: true, force: true }));
  // Readable by the image's user, like the layers of an image.
  chmodSync(folder, 0o755);
  const [built, root] = [join(folder, 'dependencies'), join(folder, 'image')];
  runFirstStage(built);
  let workdir = '/';
  for (const { name, text } of dockerfileStages().at(-1) ?? []) {
    if (name === 'WORKDIR') workdir = text;
    if (name === 'COPY') copy(text, { built, root, workdir: join(root, workdir) });
  }
  return { root, app: join(root, workdir), bytes: sizeOf(root) };
}

/** Takes from this machine what the registries provide, and runs all other commands unchanged. */
function runFirstStage(built: string): void {
  const node = join(built, NODE);
  const app = join(built, 'app');
  mkdirSync(dirname(node), { recursive: true });
  copyFileSync(process.execPath, node);
  chmodSync(node, 0o755);
  installPackages(app);
  const commands = (dockerfileStages()[0] ?? []).filter(({ name }) => name === 'RUN').map(({ text }) => text);
  const here = (command: string) =>
    command.replaceAll(NODE, node).replace(/^strip /, isInstalled(STRIP) ? 'strip ' : ': ');
  for (const command of commands.filter((text) => !/\bnpm ci\b|^apt-get /.test(text))) {
    execFileSync('sh', ['-euc', here(command)], { cwd: app, stdio: ['ignore', 'ignore', 'inherit'] });
  }
}

/** Installs packages like `npm ci --omit=dev --ignore-scripts`. */
function installPackages(app: string): void {
  const lock = JSON.parse(readFileSync(join(PROJECT_ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean; devOptional?: boolean; link?: boolean }>;
  };
  for (const [path, { dev = false, devOptional = false, link = false }] of Object.entries(lock.packages)) {
    // The image has no workspaces (packages/*), and no optional peer of one.
    if (dev || devOptional || link || !path.startsWith('node_modules/')) continue;
    // Optional packages of other platforms are in the lock file but not on disk.
    if (isFolder(join(PROJECT_ROOT, path))) linkFolder(join(PROJECT_ROOT, path), join(app, path));
  }
}

/** A nested package has an entry of its own. */
function linkFolder(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isFile()) linkFile(source, target);
    if (entry.isDirectory() && entry.name !== 'node_modules') linkFolder(source, target);
  }
}

/**
 * Hard links take a tenth of the time of copies, which are the fallback across file systems. Linked files may be
 * removed but not changed.
 */
function linkFile(source: string, target: string): void {
  try {
    linkSync(source, target);
  } catch {
    copyFileSync(source, target);
  }
}

function copy(text: string, { built, root, workdir }: { built: string; root: string; workdir: string }): void {
  const [, from, source = '', target = ''] = /^(?:--from=(\S+) )?(\S+) (\S+)$/.exec(text) ?? [];
  const to = target.startsWith('/') ? join(root, target) : join(workdir, target);
  if (from === 'console') return cpSync(builtConsole(), to, RECURSIVE);
  // The first stage is no longer needed.
  if (from !== undefined) {
    mkdirSync(dirname(to), { recursive: true });
    return renameSync(join(built, source), to);
  }
  cpSync(join(PROJECT_ROOT, source), target === './' ? join(to, source) : to, RECURSIVE);
}

/** The result of the stage that builds the console. */
function builtConsole(): string {
  execFileSync(process.execPath, [join(PROJECT_ROOT, 'scripts/build-console.ts')], { stdio: 'ignore' });
  return join(PROJECT_ROOT, 'console/dist');
}

const NODE = '/usr/local/bin/node';
const RECURSIVE = { recursive: true, dereference: true } as const;

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function sizeOf(folder: string): number {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
}
