import { Cluster } from 'ioredis';
import type { Redis } from '../redis/client.ts';
import { type Keys, partitionOf } from '../redis/keys.ts';
import { integer, list, literal, oneOf, text, tuple } from '../redis/replies.ts';
import { LuaScript, type ScriptArgument } from '../redis/scripts.ts';
import type { Append, AppendResult } from './append.ts';

const appendBatch = LuaScript.load(
  'appendBatch-n',
  list(
    oneOf(
      integer,
      tuple([literal('appended', 'repeated'), integer, integer]),
      tuple([literal('fenced', 'finished', 'behind')]),
      tuple([literal('failed'), text]),
    ),
  ),
);

/** Maximum number of appends per script, and of their events, which bounds the time of the script. */
const MAX_APPENDS = 32;
const MAX_EVENTS = 64;
/** Maximum number of appends that wait for the one in flight. Further ones are sent by themselves. */
const MAX_WAITING = 1_000;

/** Returns whether an append has no effect but its events and their journal entries, so that it can join a batch. */
export function isPlain({ events, ends, threadMessage, quotaCommit, reserve }: Append): boolean {
  const hasEffect = ends ?? threadMessage ?? quotaCommit ?? reserve;
  return hasEffect === undefined && events.every(({ usageRecord, refusal }) => !(usageRecord ?? refusal));
}

interface Waiting {
  readonly append: Append;
  readonly resolve: (result: AppendResult) => void;
  readonly reject: (error: unknown) => void;
}

export interface AppendBatchesDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  /** Sends an append by itself. */
  readonly send: (append: Append) => Promise<AppendResult>;
  /** The first arguments of the script: see include/events.lua. */
  readonly logArguments: () => readonly ScriptArgument[];
}

/**
 * Joins the plain appends of several users to one script. An append is sent at once while no other is in flight; those
 * that arrive meanwhile are sent together, in their order, when it has been answered. An append that fails does not
 * affect the others of its batch. On a Redis Cluster only users of one partition share a script.
 */
export class AppendBatches {
  readonly #deps: AppendBatchesDeps;
  /** What waits for the append in flight, by partition on a Redis Cluster. Without an entry nothing is in flight. */
  readonly #waiting = new Map<number, Waiting[]>();

  constructor(deps: AppendBatchesDeps) {
    this.#deps = deps;
  }

  /** @throws RedisUnavailable; Error when the append itself fails */
  async append(append: Append): Promise<AppendResult> {
    const group = this.#deps.redis instanceof Cluster ? partitionOf(append.userId) : 0;
    const waiting = this.#waiting.get(group);
    if (waiting && waiting.length < MAX_WAITING) {
      return new Promise((resolve, reject) => waiting.push({ append, resolve, reject }));
    }
    if (waiting) return this.#deps.send(append);
    const behind: Waiting[] = [];
    this.#waiting.set(group, behind);
    try {
      return await this.#deps.send(append);
    } finally {
      void this.#sendBehind(group, behind);
    }
  }

  /** Never rejects. */
  async #sendBehind(group: number, waiting: Waiting[]): Promise<void> {
    while (waiting.length > 0) await this.#sendTogether(waiting.splice(0, batchLength(waiting)));
    this.#waiting.delete(group);
  }

  async #sendTogether(batch: readonly Waiting[]): Promise<void> {
    const [first, ...others] = batch;
    if (first && others.length === 0) return this.#deps.send(first.append).then(first.resolve, first.reject);
    try {
      const replies = await this.#run(batch.map(({ append }) => append));
      for (const [at, { resolve, reject }] of batch.entries()) {
        const reply = replies[at];
        if (typeof reply === 'number') resolve({ outcome: 'appended', seq: reply, cancelRequested: false });
        else if (reply?.length === 3) resolve({ outcome: reply[0], seq: reply[1], cancelRequested: reply[2] === 1 });
        else if (reply?.length === 1) resolve({ outcome: reply[0] });
        else reject(new Error(reply?.[1] ?? 'appendBatch did not answer'));
      }
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }

  #run(appends: readonly Append[]) {
    const { redis, keys, logArguments } = this.#deps;
    const [used, args]: [string[], ScriptArgument[]] = [[], [...logArguments(), appends.length]];
    for (const { userId, run, events } of appends) {
      const user = keys.user(userId);
      used.push(user.log, user.logState);
      if (run) used.push(user.run(run.runId));
      args.push(user.channel, run?.fencingToken ?? '', run?.eventsInLog ?? 0, events.length);
      for (const { type, fields, json, journal } of events) {
        args.push(type, fields.timestamp, (json ?? JSON.stringify(fields)).slice(1));
        if (run && journal) args.push('j', journal.field, journal.value);
        else args.push('');
      }
    }
    return appendBatch.run(redis, used, args);
  }
}

/** Returns the number of appends, from the first, that the next script takes: at least one. */
function batchLength(waiting: readonly Waiting[]): number {
  let events = 0;
  for (const [at, { append }] of waiting.entries()) {
    events += append.events.length;
    if (at === MAX_APPENDS || (at > 0 && events > MAX_EVENTS)) return at;
  }
  return waiting.length;
}
