import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { describe } from '@jest/globals';

/** A program that some tests need and the product does not. */
export interface Program {
  readonly command: string;
  /** Arguments that print the version. */
  readonly versionArgs: readonly string[];
  readonly install: string;
}

export const HAPROXY: Program = { command: 'haproxy', versionArgs: ['-v'], install: 'apt-get install haproxy' };
export const NGINX: Program = { command: 'nginx', versionArgs: ['-v'], install: 'apt-get install nginx' };
export const OPENSSL: Program = { command: 'openssl', versionArgs: ['version'], install: 'apt-get install openssl' };
export const STRIP: Program = { command: 'strip', versionArgs: ['--version'], install: 'apt-get install binutils' };
export const KUBECTL: Program = {
  command: 'kubectl',
  versionArgs: ['version', '--client'],
  install: 'https://kubernetes.io/docs/tasks/tools/ (1.27 or newer; it brings kustomize)',
};

export const CHROMIUM: Program = {
  command: '/usr/bin/chromium',
  versionArgs: ['--version'],
  install: 'apt-get install chromium',
};

/** Debian's Python with the client packages; another Python has packages of its own. */
export const PYTHON_CLIENTS: Program = {
  command: '/usr/bin/python3',
  versionArgs: ['-c', 'import websockets, socketio, aiohttp'],
  install: 'apt-get install python3-websockets python3-socketio python3-aiohttp',
};

export const POSTGRES: Program = {
  command: postgresCommand(),
  versionArgs: ['--version'],
  install: 'apt-get install postgresql (12 or newer)',
};

/** Returns the newest server in Debian's folder, which is not on the PATH. */
function postgresCommand(): string {
  const root = '/usr/lib/postgresql';
  try {
    const [newest] = readdirSync(root).toSorted((one, other) => Number(other) - Number(one));
    return newest ? `${root}/${newest}/bin/postgres` : 'postgres';
  } catch {
    return 'postgres';
  }
}

export function isInstalled({ command, versionArgs }: Program): boolean {
  return spawnSync(command, versionArgs, { stdio: 'ignore', timeout: 20_000 }).status === 0;
}

/** A `describe` that is skipped if the program is missing; output and name show the reason. */
export function describeWith(program: Program, name: string, tests: () => void): void {
  if (isInstalled(program)) return describe(name, tests);
  process.stderr.write(`SKIPPED ${name}: ${program.command} is missing; ${program.install}\n`);
  describe.skip(`${name} (${program.command} is missing: ${program.install})`, tests);
}
