import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import type { Redis as RedisServer } from 'ioredis';
import { TollgateError } from '../protocol/errors.ts';
import type { Redis } from './connection.ts';
import { mapRedisErrors } from './errors.ts';
import { describeReply, type Shape } from './replies.ts';

export type ScriptArgument = string | number;

const SCRIPTS = new URL('./lua/', import.meta.url);

/**
 * Loads every script into a Redis server after each connection or restart. Otherwise the first call of each script
 * would be sent twice (EVALSHA, then EVAL) and would execute after commands that were sent behind it.
 */
export async function loadScripts(redis: RedisServer): Promise<void> {
  await Promise.all(scriptFiles().map((file) => redis.script('LOAD', readScript(file))));
}

/** Returns the file names of the scripts, e.g. `claimRun-1.lua`. */
export function scriptFiles(): string[] {
  return readdirSync(SCRIPTS).filter((file) => file.endsWith('.lua'));
}

/** Returns the name of a script by its file name: `claimRun` of `claimRun-1.lua`. */
export function scriptName(file: string): string {
  return file.replace(/-(?:\d+|n)\.lua$/, '');
}

/** Reads a script and replaces each line `--@include <name>` by the functions of `lua/include/<name>.lua`. */
export function readScript(file: string): string {
  const text = readFileSync(new URL(file, SCRIPTS), 'utf8');
  return text.replaceAll(/^--@include (\w+)$/gm, (_line, name: string) => {
    return readFileSync(new URL(`include/${name}.lua`, SCRIPTS), 'utf8').trimEnd();
  });
}

/** INTERNAL_ERROR for a reply of another shape than the head of the script describes. */
export function unexpectedReply(script: string, reply: unknown): TollgateError {
  const cause = new Error(`the script ${script} returned ${describeReply(reply)}, which is not its reply`);
  return new TollgateError('INTERNAL_ERROR', { cause });
}

type ScriptCommand = (...args: ScriptArgument[]) => Promise<unknown>;

/**
 * One Lua file, `lua/<name>-<number of keys>.lua`, or `lua/<name>-n.lua` if the number varies. ioredis registers it
 * under its name and a digest of its text, so that two versions can coexist during a rolling deployment. It is called
 * with EVALSHA, and once with EVAL if Redis does not have it.
 */
export class LuaScript<Reply = unknown> {
  readonly command: string;
  readonly #source: string;
  readonly #numberOfKeys: number | undefined;
  readonly #isReply: Shape<Reply>;
  readonly #registeredWith = new WeakSet<Redis>();

  private constructor(
    script: { readonly name: string; readonly numberOfKeys: number | undefined; readonly source: string },
    isReply: Shape<Reply>,
  ) {
    this.command = `${script.name}:${createHash('sha1').update(script.source).digest('hex').slice(0, 8)}`;
    this.#source = script.source;
    this.#numberOfKeys = script.numberOfKeys;
    this.#isReply = isReply;
  }

  /**
   * @param file the file name without its extension, e.g. `claimRun-1`
   * @param reply the shape of its reply, as the head of the file describes it
   */
  static load<Reply>(file: string, reply: Shape<Reply>): LuaScript<Reply> {
    const [, name, keys] = /^([A-Za-z]+)-(\d+|n)$/.exec(file) ?? [];
    if (!name || !keys) throw new Error(`the name of a script must be <name>-<number of keys>, got ${file}`);
    const numberOfKeys = keys === 'n' ? undefined : Number(keys);
    return new LuaScript({ name, numberOfKeys, source: readScript(`${file}.lua`) }, reply);
  }

  /**
   * @throws RedisUnavailable, also while Redis rejects writes; TollgateError INTERNAL_ERROR for a reply of another
   *   shape; Error when the script itself fails
   */
  async run(redis: Redis, keys: readonly string[], args: readonly ScriptArgument[]): Promise<Reply> {
    this.#define(redis, keys);
    const command: ScriptCommand = Reflect.get(redis, this.command);
    const number = this.#numberOfKeys === undefined ? [keys.length] : [];
    const reply = await mapRedisErrors(command.call(redis, ...number, ...keys, ...args));
    if (this.#isReply(reply)) return reply;
    throw unexpectedReply(this.command, reply);
  }

  #define(redis: Redis, keys: readonly string[]): void {
    const numberOfKeys = this.#numberOfKeys;
    if (numberOfKeys !== undefined && keys.length !== numberOfKeys) {
      throw new Error(`${this.command} takes ${numberOfKeys} keys, got ${keys.length}`);
    }
    if (this.#registeredWith.has(redis)) return;
    redis.defineCommand(this.command, { lua: this.#source, ...(numberOfKeys === undefined ? {} : { numberOfKeys }) });
    this.#registeredWith.add(redis);
  }
}
