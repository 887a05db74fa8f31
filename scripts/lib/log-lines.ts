import type { OnLine } from './processes.ts';

const WARN = 40;
const LEVEL_NAMES: Readonly<Record<number, string>> = { 20: 'debug', 30: 'info', 40: 'WARN', 50: 'ERROR', 60: 'FATAL' };
/** What every line carries, and a person at a terminal does not need. */
const ROUTINE_FIELDS = new Set(['level', 'time', 'pid', 'name', 'msg', 'hostname']);

/**
 * Shows the log lines of a process (JSON, from pino) as text with its name in front: warnings and errors, and what is no
 * log line at all, such as a crash; everything when `verbose`.
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
