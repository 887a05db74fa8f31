import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Makes this process the only holder of `file`. It takes over a file whose process has ended, also if another process
 * has the same pid now.
 * @returns the function that releases the file, or the pid of the process that holds it
 */
export function lockPidFile(file: string): { release: () => void } | { heldBy: number } {
  mkdirSync(dirname(file), { recursive: true });
  for (;;) {
    try {
      writeFileSync(file, `${process.pid} ${startTime(process.pid)}`, { flag: 'wx', mode: 0o600 });
      return { release: () => rmSync(file, { force: true }) };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const text = readText(file);
    // Released meanwhile.
    if (text === undefined) continue;
    const holder = holderIn(text);
    if (holder !== undefined) return { heldBy: holder };
    rmSync(file, { force: true });
  }
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return undefined;
  }
}

function holderIn(text: string): number | undefined {
  const [, pid, started] = /^(\d+) (.+)$/.exec(text) ?? [];
  return pid !== undefined && startTime(Number(pid)) === started ? Number(pid) : undefined;
}

/** Returns the start time of a process, which together with the pid identifies it; undefined if it does not exist. */
function startTime(pid: number): string | undefined {
  try {
    if (process.platform !== 'linux')
      return execFileSync('ps', ['-o', 'lstart=', '-p', String(pid)])
        .toString()
        .trim();
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is the program name in parentheses, which may contain any character; the start time is the 22nd.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}
