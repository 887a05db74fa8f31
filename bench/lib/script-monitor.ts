import { Redis } from 'ioredis';
import { commandName } from './command-names.ts';

/** Calls per script and command: `appendEvents` → `xadd` → 6. Commands outside scripts have the key `''`. */
export type ScriptCommands = ReadonlyMap<string, ReadonlyMap<string, number>>;

/**
 * Counts the commands that scripts execute, by script. It reads MONITOR, which reports a script and then the commands
 * of the script; a script is atomic, so nothing comes in between. MONITOR costs Redis CPU time: use it for counts only.
 */
export class ScriptMonitor {
  readonly #redis: Redis;
  readonly #commands: Redis;
  #counts = new Map<string, Map<string, number>>();
  #script = '';

  private constructor(commands: Redis, monitor: Redis) {
    this.#commands = commands;
    this.#redis = monitor;
    monitor.on('monitor', (_time: string, args: string[], source: string) => {
      if (source !== 'lua') this.#script = /^eval/i.test(args[0] ?? '') ? commandName(args) : '';
      const name = source === 'lua' ? (args[0] ?? '').toLowerCase() : 'calls';
      const script = source === 'lua' || this.#script ? this.#script : '';
      const counts = this.#counts.get(script) ?? new Map<string, number>();
      this.#counts.set(script, counts);
      const counted = script === '' ? commandName(args) : name;
      counts.set(counted, (counts.get(counted) ?? 0) + 1);
    });
  }

  static async start(redisUrl: string): Promise<ScriptMonitor> {
    const commands = new Redis(redisUrl);
    return new ScriptMonitor(commands, await commands.monitor());
  }

  /** Returns the counts since the last call, up to this moment. */
  async take(): Promise<ScriptCommands> {
    const seen = new Promise<void>((resolve) => {
      const mark = `mark-${Math.random()}`;
      const listen = (_time: string, args: string[]) => {
        if (args[1] !== mark) return;
        this.#redis.off('monitor', listen);
        resolve();
      };
      this.#redis.on('monitor', listen);
      void this.#commands.echo(mark);
    });
    await seen;
    const taken = this.#counts;
    this.#counts = new Map();
    taken.get('')?.delete('echo');
    return taken;
  }

  close(): void {
    this.#redis.disconnect();
    this.#commands.disconnect();
  }
}
