import { execFile } from 'node:child_process';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { closeAfter } from '../open-resources.ts';

/** Installs a package that is too large for the lock file of this repository. @returns the folder with `node_modules` */
export async function installPackage(name: string, version: string): Promise<string> {
  const folder = await temporaryFolder();
  await writeFile(join(folder, 'package.json'), JSON.stringify({ private: true, dependencies: { [name]: version } }));
  await install(folder);
  return folder;
}

/** Copies an example, and installs what its package.json names. @returns the folder of the copy */
export async function installExample(path: string): Promise<string> {
  const folder = await temporaryFolder();
  await cp(path, folder, { recursive: true, filter: (file) => !file.includes('node_modules') });
  await install(folder);
  return folder;
}

async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-packages-'));
  closeAfter('file', () => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function install(cwd: string): Promise<void> {
  const options = ['--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline', '--omit=dev'];
  await promisify(execFile)('npm', ['install', ...options], { cwd });
}
