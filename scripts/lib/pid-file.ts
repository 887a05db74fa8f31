import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Makes this process the only holder of `file`. A file left behind by a process that is gone, or whose number another
 * process has by now, is taken over.
 * @returns the function that gives it back, or the number of the process that holds it
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
    // Given back meanwhile.
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

/** When a process started, which with its number says which process it is; undefined when there is none. */
function startTime(pid: number): string | undefined {
  try {
    if (process.platform !== 'linux')
      return execFileSync('ps', ['-o', 'lstart=', '-p', String(pid)])
        .toString()
        .trim();
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is the program's name in brackets, which may hold anything; the start is the 22nd.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}
