import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from './processes.ts';

const PACKAGE = join(PROJECT_ROOT, 'packages/client');

/** Compiles packages/client into its `dist`. @throws Error with the compiler's output */
export function buildClientPackage(): void {
  rmSync(join(PACKAGE, 'dist'), { recursive: true, force: true });
  run(join(PROJECT_ROOT, 'node_modules/.bin/tsc'), ['-p', join(PACKAGE, 'tsconfig.build.json')], PROJECT_ROOT);
}

/** Builds the package and packs it as npm publishes it. @returns the path of the tarball in `folder` */
export function packClientPackage(folder: string): string {
  buildClientPackage();
  const out = run('npm', ['pack', '--json', '--pack-destination', folder], PACKAGE);
  const [packed] = JSON.parse(out) as [{ readonly filename: string }];
  return join(folder, packed.filename);
}

function run(command: string, args: readonly string[], cwd: string): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} failed: ${error?.message ?? stdout + stderr}`);
  return stdout;
}
