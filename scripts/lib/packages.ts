import { spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PROJECT_ROOT } from './processes.ts';

/** The npm packages in packages/, each after those that it imports. */
export const NPM_PACKAGES = ['client', 'react'] as const;
const PYTHON = '/usr/bin/python3';

/**
 * Compiles the npm packages into `<folder>/<name>`, as npm publishes them. packages/ stays as it is, so several builds
 * may run at once.
 * @throws Error with the compiler's output
 */
export function stagePackages(folder: string): void {
  for (const name of NPM_PACKAGES) {
    const [source, staged] = [join(PROJECT_ROOT, 'packages', name), join(folder, name)];
    mkdirSync(staged, { recursive: true });
    const config = join(staged, 'tsconfig.json');
    const paths = { '@tollgate/client': [join(folder, 'client/dist/main.d.ts')] };
    const compilerOptions = { outDir: join(staged, 'dist'), rootDir: join(source, 'src'), paths };
    const include = [join(source, 'src')];
    // Types come from the project's node_modules; the folder has none.
    const typeRoots = [join(PROJECT_ROOT, 'node_modules/@types')];
    const options = {
      extends: join(source, 'tsconfig.build.json'),
      compilerOptions: { ...compilerOptions, typeRoots },
    };
    writeFileSync(config, JSON.stringify({ ...options, include }));
    run(join(PROJECT_ROOT, 'node_modules/.bin/tsc'), ['-p', config], PROJECT_ROOT);
    rmSync(config);
    for (const file of ['package.json', 'README.md']) copyFileSync(join(source, file), join(staged, file));
    copyFileSync(join(PROJECT_ROOT, 'LICENSE'), join(staged, 'LICENSE'));
  }
}

/** Packs the npm packages as `npm publish` would upload them. @returns the paths of the tarballs, in `folder` */
export function packPackages(folder: string): string[] {
  return inTemporaryFolder((staged) => {
    stagePackages(staged);
    return NPM_PACKAGES.map((name) => {
      const out = run('npm', ['pack', '--json', '--pack-destination', folder], join(staged, name));
      const [packed] = JSON.parse(out) as [{ readonly filename: string }];
      return join(folder, packed.filename);
    });
  });
}

/** Builds the wheel of packages/python with Debian's setuptools, without network. @returns its path, in `folder` */
export function buildWheel(folder: string): string {
  return inTemporaryFolder((staged) => {
    // setuptools writes beside the sources.
    cpSync(join(PROJECT_ROOT, 'packages/python'), staged, { recursive: true });
    const pip = [
      '-m',
      'pip',
      'wheel',
      '--no-deps',
      '--no-build-isolation',
      '--no-index',
      '--wheel-dir',
      folder,
      staged,
    ];
    run(PYTHON, pip, staged);
    const name = readdirSync(folder).find((file) => file.endsWith('.whl'));
    if (name === undefined) throw new Error('pip has built no wheel');
    return join(folder, name);
  });
}

/** @throws Error with the output of a command that fails */
export function run(command: string, args: readonly string[], cwd: string, env: Record<string, string> = {}): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd,
    encoding: 'utf8',
    env: { ...process.env, NODE_OPTIONS: '', ...env },
  });
  if (status !== 0) {
    throw new Error(`${command} ${args.join(' ')} ended with ${status}:\n${error?.message ?? stdout + stderr}`);
  }
  return stdout;
}

export function inTemporaryFolder<Result>(task: (folder: string) => Result): Result {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-packages-'));
  try {
    return task(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
