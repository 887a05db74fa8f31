import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { PROJECT_ROOT } from './processes.ts';

const CONSOLE = join(PROJECT_ROOT, 'console');
const BUILT = join(CONSOLE, 'dist');
/** Digest of the sources of the build beside it. */
const STAMP = '.built-from';
/** Everything that the build reads. */
const SOURCES = ['console', 'packages/client/src', 'docs/runbook.md', 'package-lock.json'];
const IGNORED: ReadonlySet<string> = new Set(['dist', 'node_modules']);

/**
 * Builds the console into console/dist if its sources have changed since the last build.
 * @returns whether it was built
 */
export async function buildConsole(): Promise<boolean> {
  const digest = sourcesDigest();
  if (builtFrom() === digest) return false;
  // Vite needs a second to load: not for a build that is up to date.
  const { build } = await import('vite');
  const folder = join(CONSOLE, `node_modules/.build-${process.pid}`);
  try {
    mkdirSync(folder, { recursive: true });
    await build({
      configFile: join(CONSOLE, 'vite.config.ts'),
      logLevel: 'warn',
      build: { outDir: folder, emptyOutDir: true },
    });
    writeFileSync(join(folder, STAMP), digest);
    replace(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return true;
}

/** A gateway that reads the folder meanwhile sees the old build, the new one or none, and reads again. */
function replace(folder: string): void {
  const old = `${folder}-old`;
  if (existsSync(BUILT)) renameSync(BUILT, old);
  try {
    renameSync(folder, BUILT);
  } catch {
    // Another process has put its build of the same sources there.
    cpSync(folder, BUILT, { recursive: true });
  }
  rmSync(old, { recursive: true, force: true });
}

function builtFrom(): string | undefined {
  try {
    return readFileSync(join(BUILT, STAMP), 'utf8');
  } catch {
    return undefined;
  }
}

function sourcesDigest(): string {
  const hash = createHash('sha256');
  for (const file of SOURCES.flatMap((source) => filesIn(join(PROJECT_ROOT, source)))) {
    hash
      .update(`${relative(PROJECT_ROOT, file)}\0`)
      .update(readFileSync(file))
      .update('\0');
  }
  return hash.digest('hex');
}

function filesIn(path: string): string[] {
  if (!existsSync(path)) return [];
  try {
    const entries = readdirSync(path, { withFileTypes: true }).toSorted((one, other) =>
      one.name < other.name ? -1 : 1,
    );
    return entries.filter(({ name }) => !IGNORED.has(name)).flatMap(({ name }) => filesIn(join(path, name)));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOTDIR') return [path];
    throw error;
  }
}
