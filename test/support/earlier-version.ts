import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { closeAfter } from './open-resources.ts';

/**
 * Returns the version that a rolling upgrade starts from: `UPGRADE_FROM`, or the latest tag before this commit;
 * undefined in a checkout without tags.
 */
export function earlierVersion(): string | undefined {
  const named = process.env.UPGRADE_FROM;
  if (named !== undefined) return named;
  try {
    return git('describe', '--tags', '--abbrev=0').toString().trim();
  } catch {
    return undefined;
  }
}

/** Writes the files of a version to a folder, which shares the packages of this checkout, until the end of the file. */
export function checkoutOf(version: string): string {
  const root = mkdtempSync(join(tmpdir(), 'tollgate-earlier-'));
  closeAfter('file', async () => rmSync(root, { recursive: true, force: true }));
  const files = ['src', 'workers', 'auth-service', 'config', 'scripts', 'console', 'package.json'];
  execFileSync('tar', ['-x', '-C', root], { input: git('archive', '--format=tar', version, ...files) });
  symlinkSync(join(PROJECT_ROOT, 'node_modules'), join(root, 'node_modules'));
  return root;
}

function git(...args: string[]): Buffer {
  return execFileSync('git', args, { cwd: PROJECT_ROOT, stdio: 'pipe', maxBuffer: 256 * 1024 * 1024 });
}
