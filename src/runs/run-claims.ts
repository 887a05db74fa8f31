import { randomInt } from 'node:crypto';
import type { AgentCatalogue } from '../catalogue/agent-catalogue.ts';
import { activeRunMember } from '../events/user-log-writer.ts';
import type { AgentRunJob } from '../jobs.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import { overdueMembers } from '../redis/overdue.ts';
import { integer, list, literal, oneOf, text, tuple } from '../redis/replies.ts';
import { LuaScript } from '../redis/scripts.ts';
import { type OpenCall, openCallsInLog } from './open-calls.ts';
import { RUN_KEPT_MS, RunLifetimes, SWEEP_MARGIN_MS } from './run-lifetimes.ts';
import { type AcceptedRun, acceptedAs, type ClaimedRun, journalFields, parseRun, storedFields } from './stored-run.ts';

const claimRun = LuaScript.load(
  'claimRun-1',
  oneOf(tuple([literal('claimed'), integer, integer, list(text)]), tuple([literal('missing', 'finished')])),
);
const restoreRun = LuaScript.load(
  'restoreRun-6',
  oneOf(tuple([literal('claimed'), integer]), tuple([literal('stored', 'fenced', 'finished')])),
);
const journalRun = LuaScript.load('journalRun-1', literal('stored', 'fenced', 'finished', 'behind'));
const suspendRun = LuaScript.load('suspendRun-4', literal('waiting', 'answered', 'fenced', 'finished', 'behind'));

/** Fencing tokens increase by up to this amount, so that thousands of claims remain exact numbers in Lua (2^53). */
const TOKEN_STEP = 2 ** 40;

export type Claim =
  | { readonly outcome: 'claimed'; readonly run: ClaimedRun }
  | { readonly outcome: 'missing' | 'finished' };

/** A run that Redis has again, with the fencing token of its claim and the number of its events that are in the log. */
export type Restored =
  | { readonly outcome: 'claimed'; readonly events: number }
  | { readonly outcome: 'fenced' | 'finished' };

/** The wait of a run for input. */
export interface InputWait {
  readonly fencingToken: number;
  /** Milliseconds until the first input request expires. */
  readonly expiresMs: number;
  /** Milliseconds that the run may take after the wait. */
  readonly remainingMs: number;
  /** Ids of the input requests. */
  readonly inputs: readonly string[];
}

export interface RunClaimsDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly agents: AgentCatalogue;
}

export interface RunClaimsOptions {
  /** Milliseconds from acceptance to the terminal event, for agents without a timeout of their own. */
  readonly timeoutMs: number;
}

/**
 * The ownership of accepted runs: a worker claims a run, writes with the fencing token of its claim, and suspends or
 * restores the run. Redis rejects older fencing tokens, so one worker at a time owns a run. The sweep finds the runs
 * that no worker has ended in time. `Runs` starts them.
 */
export class RunClaims {
  readonly #deps: RunClaimsDeps;
  readonly #lifetimes: RunLifetimes;

  constructor(deps: RunClaimsDeps, { timeoutMs }: RunClaimsOptions) {
    this.#deps = deps;
    this.#lifetimes = new RunLifetimes(deps.agents, timeoutMs);
  }

  /**
   * Claims a run for this worker with a new fencing token. Redis rejects later appends of earlier owners.
   * @param firstOf the id of a job that is delivered for the first time: then only if no other job has claimed the run
   */
  async claim(userId: string, runId: string, firstOf = ''): Promise<Claim> {
    const { redis, keys } = this.#deps;
    const step = tokenStep();
    const reply = await claimRun.run(redis, [keys.user(userId).run(runId)], [step, firstOf]);
    if (reply[0] !== 'claimed') return { outcome: reply[0] };
    const [outcome, now, pausedMs, fields] = reply;
    return { outcome, run: parseRun({ userId, runId, fields, step, now, pausedMs }) };
  }

  /**
   * Restores a run whose state Redis lost after a worker had claimed it, and claims it again. The caller appends the
   * events from `events` on.
   * @param run the claim of this worker
   * @param elapsedMs milliseconds since the acceptance
   */
  async restore(run: ClaimedRun, elapsedMs: number): Promise<Restored> {
    const fields = [...storedFields(acceptedAs(run)), ...journalFields(run)];
    const reply = await this.#restore(run, elapsedMs, [run.fencingToken, run.previousToken, run.events], fields);
    if (reply[0] === 'claimed') return { outcome: 'claimed', events: reply[1] };
    if (reply[0] === 'stored')
      throw new TollgateError('INTERNAL_ERROR', { cause: new Error('the run is not claimed') });
    return { outcome: reply[0] };
  }

  /**
   * Stores an accepted run again if Redis lost it. It gets no job, because it may have been executed before the loss:
   * the worker that executes it restores it, or the sweep ends it at its deadline.
   */
  async keep(run: AcceptedRun, elapsedMs: number): Promise<void> {
    await this.#restore(run, elapsedMs, ['', 0, 0], storedFields(run));
  }

  #restore(
    run: Pick<AcceptedRun, 'userId' | 'requestId' | 'runId' | 'threadId' | 'agent'>,
    elapsedMs: number,
    claim: readonly (string | number)[],
    fields: readonly string[],
  ) {
    const { userId, requestId, runId, threadId, agent } = run;
    const keys = this.#deps.keys.user(userId);
    const used = [
      keys.run(runId),
      keys.request(requestId),
      keys.activeRuns,
      keys.runs,
      keys.runsInFlight,
      keys.account,
    ];
    return restoreRun.run(this.#deps.redis, used, [
      runId,
      threadId,
      activeRunMember(userId, runId),
      Math.round(elapsedMs),
      this.#lifetimes.sweepMs(agent),
      this.#lifetimes.keptMs,
      ...claim,
      ...fields,
    ]);
  }

  /** Suspends a run that waits for input. @returns `waiting`, or why it was not suspended: see `suspendRun-4.lua` */
  suspend({ userId, runId }: Pick<ClaimedRun, 'userId' | 'runId'>, wait: InputWait) {
    const keys = this.#deps.keys.user(userId);
    const { fencingToken, expiresMs, remainingMs, inputs } = wait;
    const used = [keys.run(runId), keys.activeRuns, keys.runsInFlight, keys.runs];
    const times = [expiresMs, remainingMs + SWEEP_MARGIN_MS, RUN_KEPT_MS].map(Math.round);
    const args = [activeRunMember(userId, runId), fencingToken, ...times, ...inputs];
    return suspendRun.run(this.#deps.redis, used, args);
  }

  /** Returns the calls of a run that have not ended, by the log. @throws RedisUnavailable */
  openCalls(run: Pick<ClaimedRun, 'userId' | 'runId' | 'firstSeq'>): Promise<OpenCall[]> {
    const { redis, keys } = this.#deps;
    return openCallsInLog(redis, keys.user(run.userId).log, run);
  }

  /** Stores a journal entry without an event, if the claim still owns the run. */
  journal(
    { userId, runId }: Pick<ClaimedRun, 'userId' | 'runId'>,
    fencingToken: number,
    { field, value }: { readonly field: string; readonly value: string },
  ): Promise<'stored' | 'fenced' | 'finished' | 'behind'> {
    const { redis, keys } = this.#deps;
    return journalRun.run(redis, [keys.user(userId).run(runId)], [fencingToken, field, value]);
  }

  /** Returns the runs past their deadline (Redis clock) that have not ended; at most `limit` per partition. */
  async overdue(limit = 100): Promise<AgentRunJob[]> {
    const { redis, keys } = this.#deps;
    const members = await overdueMembers(redis, (partition) => keys.activeRuns(partition), limit);
    return members.map(({ userId, id }) => ({ user_id: userId, run_id: id }));
  }

  /** Removes a run that has ended or expired from the active runs of its partition and its user. */
  async forget(userId: string, runId: string): Promise<void> {
    const { redis, keys } = this.#deps;
    const { activeRuns, runsInFlight } = keys.user(userId);
    await Promise.all([redis.zrem(activeRuns, activeRunMember(userId, runId)), redis.zrem(runsInFlight, runId)]);
  }
}

function tokenStep(): number {
  return randomInt(1, TOKEN_STEP);
}
