import { newId } from '../lib/ids.ts';
import { userHash } from '../lib/logger.ts';
import { TollgateError } from '../protocol/errors.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import { done, integer, text } from '../redis/replies.ts';
import { LuaScript } from '../redis/scripts.ts';
import { advancePositions, type InvalidationDeps, invalidateAccount } from './invalidations.ts';

const beginErasure = LuaScript.load('beginErasure-1', text);
const endErasure = LuaScript.load('endErasure-1', integer);
const moveErasure = LuaScript.load('moveErasure-1', done);

/** Redis keeps the result of an erasure, which does not name the user, as long as tallies: a year and a month. */
const RESULT_SECONDS = 396 * 24 * 3_600;
/** Retention of the hashes of erased users: longer than a process holds a refusal before it writes it. */
const ERASED_USERS_MS = 180_000;

/** In order of execution. Each phase can be repeated and continues where it was interrupted. */
export const ERASURE_PHASES = [
  'closing',
  'quiescing',
  'ingesting',
  'listing',
  'recording',
  'replacing',
  'tallies',
  'deleting',
  'finishing',
  'done',
] as const;
export type ErasurePhase = (typeof ERASURE_PHASES)[number];

/** State of an erasure for administrators: requester, times, pseudonym and counts. It never names the user. */
export interface Erasure {
  readonly erasure_id: string;
  readonly status: 'in_progress' | 'done';
  readonly phase: ErasurePhase;
  /** What the phase waits for; null while it makes progress. */
  readonly waiting_for: string | null;
  /** Replaces the `user_id` in the ledger's records. */
  readonly pseudonym: string;
  readonly requested_by: string;
  readonly requested_at: string;
  readonly finished_at: string | null;
  readonly counts: {
    readonly records: number;
    readonly tally_rows: number;
    readonly keys: number;
  };
}

/** State of an erasure that a worker continues. */
export interface ErasureInProgress {
  readonly id: string;
  readonly userId: string;
  readonly phase: ErasurePhase;
  /** Progress that the phases stored, by field name. */
  readonly notes: Readonly<Record<string, string>>;
}

/** Stores the erasures of the deployment in Redis. The id of an erasure is also the user's pseudonym. */
export class Erasures {
  readonly #deps: InvalidationDeps;

  constructor(deps: InvalidationDeps) {
    this.#deps = deps;
  }

  /**
   * Starts the erasure of a user, or returns the one in progress. Blocks the user and publishes an invalidation to all
   * nodes.
   * @param service the service that requested the erasure
   * @throws RedisUnavailable; the caller can repeat the same request
   */
  async begin(userId: string, service: string, nowMs: number): Promise<Erasure> {
    const account = this.#deps.keys.user(userId).account;
    const id = await beginErasure.run(this.#deps.redis, [account], [newId('erased')]);
    const key = this.#deps.keys.erasure(id);
    // Written once only: if the erasure ended meanwhile, its state must not name the user again.
    if ((await mapRedisErrors(this.#deps.redis.exists(key))) === 0) {
      const at = new Date(nowMs).toISOString();
      const fields = { user_id: userId, phase: 'closing', requested_by: service, requested_at: at };
      const known = this.#deps.redis.multi().hset(key, fields).zadd(this.#deps.keys.erasures, nowMs, `${id} ${userId}`);
      await mapRedisErrors(known.exec());
    }
    await invalidateAccount(this.#deps, userId);
    const erasure = await this.read(id);
    if (!erasure) throw new TollgateError('INTERNAL_ERROR', { cause: new Error(`the erasure ${id} is not stored`) });
    return erasure;
  }

  /** Publishes an entry that moves the position of every node past the invalidations that name the user. */
  advancePositions(): Promise<void> {
    return advancePositions(this.#deps);
  }

  /** Returns undefined for an id that is unknown or has expired. */
  async read(id: string): Promise<Erasure | undefined> {
    const state = await mapRedisErrors(this.#deps.redis.hgetall(this.#deps.keys.erasure(id)));
    const phase = phaseOf(state.phase);
    if (phase === undefined) return undefined;
    return {
      erasure_id: id,
      status: phase === 'done' ? 'done' : 'in_progress',
      phase,
      waiting_for: state.waiting_for || null,
      pseudonym: id,
      requested_by: state.requested_by ?? '',
      requested_at: state.requested_at ?? '',
      finished_at: state.finished_at ?? null,
      counts: {
        records: Number(state.records ?? 0),
        tally_rows: Number(state.tally_rows ?? 0),
        keys: Number(state.keys ?? 0),
      },
    };
  }

  /** Returns the erasures in progress, oldest first. */
  async inProgress(limit: number): Promise<ErasureInProgress[]> {
    const members = await mapRedisErrors(this.#deps.redis.zrange(this.#deps.keys.erasures, 0, String(limit - 1)));
    const found = await Promise.all(members.map((member) => this.#inProgress(member)));
    return found.flatMap((one) => one ?? []);
  }

  /** Reads the current state of an erasure; undefined when it is done. */
  async again({ id, userId }: ErasureInProgress): Promise<ErasureInProgress | undefined> {
    const now = await this.#inProgress(`${id} ${userId}`);
    return now?.phase === 'done' ? undefined : now;
  }

  async #inProgress(member: string): Promise<ErasureInProgress | undefined> {
    const space = member.indexOf(' ');
    const id = member.slice(0, space);
    const notes = await mapRedisErrors(this.#deps.redis.hgetall(this.#deps.keys.erasure(id)));
    const phase = phaseOf(notes.phase);
    return phase && { id, userId: member.slice(space + 1), phase, notes };
  }

  /** Enters the next phase and stores its first notes. Does nothing if another worker has already left this phase. */
  async enter(
    { id, phase }: ErasureInProgress,
    next: ErasurePhase,
    notes: Readonly<Record<string, string | number>> = {},
  ): Promise<void> {
    await this.#move(id, phase, { phase: next, waiting_for: '', ...notes });
  }

  async note({ id, phase }: ErasureInProgress, notes: Readonly<Record<string, string | number>>): Promise<void> {
    await this.#move(id, phase, notes);
  }

  async #move(id: string, phase: ErasurePhase, notes: Readonly<Record<string, string | number>>): Promise<void> {
    await moveErasure.run(this.#deps.redis, [this.#deps.keys.erasure(id)], [phase, ...Object.entries(notes).flat()]);
  }

  async count(id: string, field: 'keys', added: number): Promise<void> {
    if (added > 0) await mapRedisErrors(this.#deps.redis.hincrby(this.#deps.keys.erasure(id), field, added));
  }

  /**
   * Ends the block, then removes the user's id from the state. In this order an interrupted call is repeated, because
   * the erasure is still in progress.
   */
  async end({ id, userId }: ErasureInProgress, nowMs: number): Promise<void> {
    await endErasure.run(this.#deps.redis, [this.#deps.keys.user(userId).account], [id]);
    const key = this.#deps.keys.erasure(id);
    const finished = { phase: 'done', waiting_for: '', finished_at: new Date(nowMs).toISOString() };
    const forget = this.#deps.redis.multi().hset(key, finished).hdel(key, 'user_id').expire(key, RESULT_SECONDS);
    const { erasures, erasedUsers } = this.#deps.keys;
    forget
      .zrem(erasures, `${id} ${userId}`)
      .zadd(erasedUsers, nowMs, userHash(userId))
      .zremrangebyscore(erasedUsers, '-inf', nowMs - ERASED_USERS_MS)
      .pexpire(erasedUsers, ERASED_USERS_MS);
    await mapRedisErrors(forget.exec());
  }
}

function phaseOf(name: string | undefined): ErasurePhase | undefined {
  return ERASURE_PHASES.find((phase) => phase === name);
}
