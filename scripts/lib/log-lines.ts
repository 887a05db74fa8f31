import type { OnLine } from './processes.ts';

const WARN = 40;
const LEVEL_NAMES: Readonly<Record<number, string>> = { 20: 'debug', 30: 'info', 40: 'WARN', 50: 'ERROR', 60: 'FATAL' };
/** Fields of every line that a person at a terminal does not need. */
const ROUTINE_FIELDS = new Set(['level', 'time', 'pid', 'name', 'msg', 'hostname']);

/**
 * Prints the pino log lines of a process as text with its name in front: warnings, errors, and output that is not JSON,
 * such as a crash. With `verbose` it prints everything.
 */
export function logPrinter(
  name: string,
  { verbose, print }: { verbose: boolean; print: (text: string) => void },
): OnLine {
  return (line, stream) => {
    const entry = parse(line);
    if (!entry) {
      if (verbose || stream === 'stderr') print(`${name} | ${line}`);
      return;
    }
    const level = typeof entry.level === 'number' ? entry.level : WARN;
    if (level < WARN && !verbose) return;
    const details = Object.entries(entry)
      .filter(([key]) => !ROUTINE_FIELDS.has(key))
      .map(([key, value]) => ` ${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
    print(`${name} | ${LEVEL_NAMES[level] ?? level} ${entry.msg ?? ''}${details.join('')}`);
  };
}

function parse(line: string): Record<string, unknown> | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
