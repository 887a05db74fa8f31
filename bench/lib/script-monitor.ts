import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { commandName } from './command-names.ts';

/** Calls per script and command: `appendEvents` → `xadd` → 6. Commands outside scripts have the key `''`. */
export type ScriptCommands = ReadonlyMap<string, ReadonlyMap<string, number>>;

/** `+1796055554.201203 [0 127.0.0.1:47200] "hgetall" "key"`, with `lua` as the address of a command in a script. */
const LINE = /^\+[\d.]+ \[\d+ ([^\]]+)\] (.*)$/;
const ARGUMENT = /"((?:[^"\\]|\\.)*)"/g;
/** No name depends on more than the digest of a script and its first key. */
const ARGUMENTS_READ = 4;

/**
 * Counts the commands that scripts execute, by script. It reads MONITOR, which reports a script and then the commands
 * of the script; a script is atomic, so no other command separates them. MONITOR costs Redis CPU time, so this class is
 * for counts only.
 *
 * It has its own connection: `monitor()` of ioredis 6.0.0 fails when Redis reports the first command together with the
 * `OK` of MONITOR.
 */
export class ScriptMonitor {
  readonly #monitor: Socket;
  readonly #commands: Socket;
  readonly #marks = new Map<string, () => void>();
  #counts = new Map<string, Map<string, number>>();
  #script = '';

  private constructor(monitor: Socket, commands: Socket) {
    this.#monitor = monitor;
    this.#commands = commands;
    commands.resume();
    createInterface({ input: monitor }).on('line', (line) => {
      const [, source, command = ''] = LINE.exec(line) ?? [];
      if (source === undefined) return;
      const args = [...command.matchAll(ARGUMENT)].slice(0, ARGUMENTS_READ).map(([, text = '']) => text);
      this.#observe(source === 'lua', args);
    });
    monitor.write('MONITOR\r\n');
  }

  static async start(redisPort: number): Promise<ScriptMonitor> {
    const sockets = [connect(redisPort, '127.0.0.1'), connect(redisPort, '127.0.0.1')] as const;
    await Promise.all(sockets.map((socket) => once(socket, 'connect')));
    return new ScriptMonitor(...sockets);
  }

  /** Returns the counts since the last call, up to this moment. */
  async take(): Promise<ScriptCommands> {
    const mark = `mark-${Math.random()}`;
    const seen = new Promise<void>((resolve) => this.#marks.set(mark, resolve));
    this.#commands.write(`ECHO ${mark}\r\n`);
    await seen;
    const taken = this.#counts;
    this.#counts = new Map();
    return taken;
  }

  close(): void {
    this.#monitor.destroy();
    this.#commands.destroy();
  }

  #observe(isInScript: boolean, args: readonly string[]): void {
    const [command = '', first = ''] = args;
    const seen = this.#marks.get(first);
    if (seen) {
      this.#marks.delete(first);
      seen();
      return;
    }
    if (isInScript) return this.#add(this.#script, command.toLowerCase());
    const isScript = /^eval/i.test(command);
    this.#script = isScript ? commandName(args) : '';
    this.#add(this.#script, isScript ? 'calls' : commandName(args));
  }

  #add(script: string, command: string): void {
    const counts = this.#counts.get(script) ?? new Map<string, number>();
    this.#counts.set(script, counts.set(command, (counts.get(command) ?? 0) + 1));
  }
}
