import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import type { Redis as RedisServer } from 'ioredis';
import type { Redis } from './connection.ts';
import { mapRedisErrors } from './errors.ts';

export type ScriptArgument = string | number;

/** What a script can answer: Lua tables arrive as arrays. */
export type ScriptReply = string | number | null | ScriptReply[];

const SCRIPTS = new URL('./lua/', import.meta.url);

/**
 * Makes every script known to a Redis that has just been connected to, or has restarted. Without it the first call of
 * each would be sent twice, and arrive after commands that were sent behind it.
 */
export async function loadScripts(redis: RedisServer): Promise<void> {
  await Promise.all(scriptFiles().map((file) => redis.script('LOAD', readScript(file))));
}

/** The files of the scripts, e.g. `appendEvents-10.lua`. */
export function scriptFiles(): string[] {
  return readdirSync(SCRIPTS).filter((file) => file.endsWith('.lua'));
}

/** What a script is made of: a line `--@include <name>` stands for the functions of `lua/include/<name>.lua`. */
export function readScript(file: string): string {
  const text = readFileSync(new URL(file, SCRIPTS), 'utf8');
  return text.replaceAll(/^--@include (\w+)$/gm, (_line, name: string) => {
    return readFileSync(new URL(`include/${name}.lua`, SCRIPTS), 'utf8').trimEnd();
  });
}

type ScriptCommand = (...args: ScriptArgument[]) => Promise<ScriptReply>;

/**
 * One Lua file, `lua/<name>-<number of keys>.lua`. It is registered under its name and a digest of its text, so that
 * two versions can run side by side while a deployment rolls; EVALSHA, with EVAL once where Redis does not know it.
 */
export class LuaScript {
  readonly command: string;
  readonly #source: string;
  readonly #numberOfKeys: number;
  readonly #registeredWith = new WeakSet<Redis>();

  private constructor(name: string, numberOfKeys: number, source: string) {
    this.command = `${name}:${createHash('sha1').update(source).digest('hex').slice(0, 8)}`;
    this.#source = source;
    this.#numberOfKeys = numberOfKeys;
  }

  /** @param file the name of the file without its ending, e.g. `appendEvents-10` */
  static load(file: string): LuaScript {
    const match = /^([A-Za-z]+)-(\d+)$/.exec(file);
    if (!match?.[1] || !match[2]) throw new Error(`a script is named <name>-<number of keys>, not ${file}`);
    return new LuaScript(match[1], Number(match[2]), readScript(`${file}.lua`));
  }

  /** @throws TollgateError OVERLOADED while Redis is away or refuses to write; Error when the script itself fails */
  run(redis: Redis, keys: readonly string[], args: readonly ScriptArgument[]): Promise<ScriptReply> {
    this.#define(redis, keys);
    const command = (redis as unknown as Record<string, ScriptCommand>)[this.command] as ScriptCommand;
    return mapRedisErrors(command.call(redis, ...keys, ...args));
  }

  #define(redis: Redis, keys: readonly string[]): void {
    if (keys.length !== this.#numberOfKeys) {
      throw new Error(`${this.command} takes ${this.#numberOfKeys} keys, got ${keys.length}`);
    }
    if (this.#registeredWith.has(redis)) return;
    redis.defineCommand(this.command, { lua: this.#source, numberOfKeys: this.#numberOfKeys });
    this.#registeredWith.add(redis);
  }
}
