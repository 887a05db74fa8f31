import { randomInt } from 'node:crypto';
import type { AgentCatalogue } from '../catalogue/agent-catalogue.ts';
import type { ToolCaller } from '../catalogue/permissions.ts';
import { type Plans, THREADS_KEPT } from '../catalogue/plans.ts';
import { LOG_STATE_SECONDS } from '../events/event-log.ts';
import { activeRunMember, THREAD_BYTES, THREAD_MESSAGES } from '../events/user-log-writer.ts';
import {
  type AgentRunJob,
  type LocatedRun,
  QUEUES,
  RUN_STATES,
  type RunRequest,
  type RunStatus,
  type StartedRun,
} from '../jobs.ts';
import type { Clock } from '../lib/clock.ts';
import type { TraceParent, Tracing } from '../lib/tracing.ts';
import type { MessageLimit } from '../limits/message-limit.ts';
import { runLimits, runRefusal } from '../limits/run-limits.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import { overdueMembers } from '../redis/overdue.ts';
import { integer, list, literal, oneOf, text, tuple } from '../redis/replies.ts';
import { LuaScript } from '../redis/scripts.ts';
import { THREAD_KEPT_MS, threadInfo } from '../threads/threads.ts';
import { type OpenCall, openCallsInLog } from './open-calls.ts';
import type { RunAdmission } from './run-admission.ts';
import type { RunQueue } from './run-queue.ts';
import { openRequests, readRunState } from './run-state.ts';
import {
  type AcceptedRun,
  acceptedAs,
  acceptedRun,
  type ClaimedRun,
  journalFields,
  parseRun,
  storedFields,
} from './stored-run.ts';

const startRun = LuaScript.load(
  'startRun-10',
  oneOf(
    tuple([literal('started', 'repeated'), text, text]),
    tuple([literal('limited')]),
    tuple([
      literal('refused'),
      literal('threads', 'runs_per_hour', 'runs_in_flight'),
      integer,
      integer,
      integer,
      integer,
    ]),
  ),
);
const claimRun = LuaScript.load(
  'claimRun-1',
  oneOf(tuple([literal('claimed'), integer, integer, list(text)]), tuple([literal('missing', 'finished')])),
);
const restoreRun = LuaScript.load(
  'restoreRun-6',
  oneOf(tuple([literal('claimed'), integer]), tuple([literal('stored', 'fenced', 'finished')])),
);
const journalRun = LuaScript.load('journalRun-1', literal('stored', 'fenced', 'finished', 'behind'));
const cancelRun = LuaScript.load('cancelRun-4', literal('asked', 'queued', 'missing', 'finished', 'limited'));
const suspendRun = LuaScript.load('suspendRun-3', literal('waiting', 'answered', 'fenced', 'finished', 'behind'));
const locateRun = LuaScript.load(
  'locateRun-5',
  oneOf(
    tuple([text, literal(...RUN_STATES), text, text, text, text, integer, integer, integer, integer, integer]),
    tuple([literal('unknown')]),
  ),
);

/** How long a request id and its run are kept: one day, and longer if agents have timeouts of their own. */
const RUN_KEPT_MS = 24 * 3_600_000;
/**
 * Maximum number of listed runs per user. An erasure finds runs by this list, so the message limit must be reached
 * first.
 */
const RUNS_LISTED = 1_000_000;
/** Number of a user's latest runs that are searched for the latest one of a thread. */
const RUNS_SEARCHED = 100;
/** Time after the deadline of a run in which its worker can end it, before a sweep does. */
export const SWEEP_MARGIN_MS = 5_000;
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

/** A run that a worker executes. */
export interface ExecutingRun extends Pick<ClaimedRun, 'caller' | 'degraded' | 'threadId' | 'requestId' | 'agent'> {}

export interface RunsOptions {
  /** Milliseconds from acceptance to the terminal event, for agents without a timeout of their own. */
  readonly timeoutMs: number;
}

export interface RunsDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly agents: AgentCatalogue;
  readonly plans: Plans;
  readonly queue: RunQueue;
  readonly clock: Clock;
  readonly tracing: Tracing;
  /** Observes the runs that this process accepted. */
  readonly onAccepted?: (run: AcceptedRun) => void;
  /** Refuses new runs that would wait too long. Absent: accepts all. */
  readonly admission?: Pick<RunAdmission, 'refusal' | 'added'>;
}

/** Stores agent runs in Redis. A run starts once per request id and is owned by one worker at a time. */
export class Runs {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #agents: AgentCatalogue;
  readonly #plans: Plans;
  readonly #queue: RunQueue;
  readonly #clock: Clock;
  readonly #tracing: Tracing;
  readonly #onAccepted: RunsDeps['onAccepted'];
  readonly #admission: RunsDeps['admission'];
  readonly #timeoutMs: number;
  /**
   * The same for all runs: the list of a user's runs is trimmed by it. A run must outlive its deadline, after which the
   * sweep ends it.
   */
  readonly #keptMs: number;

  constructor(
    { redis, keys, agents, plans, queue, clock, tracing, onAccepted, admission }: RunsDeps,
    options: RunsOptions,
  ) {
    this.#redis = redis;
    this.#keys = keys;
    this.#agents = agents;
    this.#plans = plans;
    this.#queue = queue;
    this.#clock = clock;
    this.#tracing = tracing;
    this.#onAccepted = onAccepted;
    this.#admission = admission;
    this.#timeoutMs = options.timeoutMs;
    this.#keptMs = RUN_KEPT_MS + agents.longestTimeoutMs(options.timeoutMs) - options.timeoutMs;
  }

  /**
   * Accepts a run, or recognises a repetition by its request id.
   *
   * The script that stores the run also checks and counts the limits of the plan; a repetition is not counted again.
   * The message limit, the run and its job are sent together, in this order on one connection: one round trip. The
   * script reads the counter of the limiter and stores no run above the limit. A worker drops a job that has no run. If
   * the job could not be stored, a repetition with the same request id adds it again.
   *
   * A run that would not be executed in time by the estimate of the queue is refused with OVERLOADED and the time of a
   * useful retry. Repetitions of accepted runs are not.
   * @throws TollgateError AGENT_NOT_FOUND, RATE_LIMITED, QUOTA_EXCEEDED, OVERLOADED
   */
  async start(run: RunRequest, limit: MessageLimit): Promise<StartedRun> {
    const agent = this.#agents.get(run.agent);
    if (!agent) throw new TollgateError('AGENT_NOT_FOUND', { fields: { agents: this.#agents.all.map((a) => a.name) } });
    const overloaded = this.#admission?.refusal(this.#agents.timeoutMs(agent.name, this.#timeoutMs));
    if (overloaded) return this.#repeated(run, limit, overloaded);
    const [allowed, started, enqueued] = await Promise.allSettled([
      limit.allowed,
      this.#store(run, agent.name, limit.messages),
      this.#enqueue({ user_id: run.identity.userId, run_id: run.runId }),
    ]);
    if (allowed.status === 'rejected') throw allowed.reason;
    if (started.status === 'rejected') throw started.reason;
    const reply = started.value;
    if (reply[0] === 'limited') throw new TollgateError('RATE_LIMITED');
    if (reply[0] === 'refused') {
      const [, ...refusal] = reply;
      throw runRefusal(this.#plans, run.identity.plan, refusal);
    }
    if (enqueued.status === 'rejected') throw new TollgateError('OVERLOADED', { cause: enqueued.reason });
    const [outcome, run_id, thread_id] = reply;
    if (outcome === 'started') {
      this.#admission?.added();
      this.#onAccepted?.({ ...acceptedRun(run, agent.name), threadId: thread_id });
    }
    return { run_id, thread_id, isRepeated: outcome === 'repeated' };
  }

  /** Returns the run that an earlier request with the same id started. @throws the given error if there is none */
  async #repeated(run: RunRequest, limit: MessageLimit, overloaded: TollgateError): Promise<StartedRun> {
    const { userId } = run.identity;
    const first = mapRedisErrors(this.#redis.get(this.#keys.user(userId).request(run.requestId)));
    const [stored] = await Promise.all([first, limit.allowed]);
    const [run_id, thread_id] = stored?.split(' ') ?? [];
    if (run_id === undefined || thread_id === undefined) throw overloaded;
    await this.#enqueue({ user_id: userId, run_id });
    return { run_id, thread_id, isRepeated: true };
  }

  #enqueue(job: AgentRunJob): Promise<void> {
    const attributes = {
      'messaging.system': 'redis',
      'messaging.destination.name': QUEUES.agentRuns,
      'messaging.operation.type': 'send',
      'messaging.message.id': job.run_id,
    };
    return this.#tracing.span(`send ${QUEUES.agentRuns}`, { kind: 'producer', attributes }, () => {
      const { traceParent: traceparent } = this.#tracing;
      return this.#queue.add(traceparent === undefined ? job : { ...job, traceparent });
    });
  }

  /**
   * Claims a run for this worker with a new fencing token. Redis rejects later appends of earlier owners.
   * @param firstOf the id of a job that is delivered for the first time: then only if no other job has claimed the run
   */
  async claim(userId: string, runId: string, firstOf = ''): Promise<Claim> {
    const step = tokenStep();
    const reply = await claimRun.run(this.#redis, [this.#keys.user(userId).run(runId)], [step, firstOf]);
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
    const keys = this.#keys.user(userId);
    const used = [
      keys.run(runId),
      keys.request(requestId),
      keys.activeRuns,
      keys.runs,
      keys.runsInFlight,
      keys.account,
    ];
    return restoreRun.run(this.#redis, used, [
      runId,
      threadId,
      activeRunMember(userId, runId),
      Math.round(elapsedMs),
      this.#endMs(agent),
      this.#keptMs,
      ...claim,
      ...fields,
    ]);
  }

  /** Suspends a run that waits for input, or says why not: see `suspendRun-3.lua`. */
  suspend({ userId, runId }: Pick<ClaimedRun, 'userId' | 'runId'>, wait: InputWait) {
    const keys = this.#keys.user(userId);
    const { fencingToken, expiresMs, remainingMs, inputs } = wait;
    const used = [keys.run(runId), keys.activeRuns, keys.runsInFlight];
    const times = [expiresMs, remainingMs + SWEEP_MARGIN_MS, RUN_KEPT_MS].map(Math.round);
    return suspendRun.run(this.#redis, used, [activeRunMember(userId, runId), fencingToken, ...times, ...inputs]);
  }

  /** Returns the calls of a run that have not ended, by the log. @throws RedisUnavailable */
  openCalls(run: Pick<ClaimedRun, 'userId' | 'runId' | 'firstSeq'>): Promise<OpenCall[]> {
    return openCallsInLog(this.#redis, this.#keys.user(run.userId).log, run);
  }

  /** Stores a journal entry without an event, if the claim still owns the run. */
  journal(
    { userId, runId }: Pick<ClaimedRun, 'userId' | 'runId'>,
    fencingToken: number,
    { field, value }: { readonly field: string; readonly value: string },
  ): Promise<'stored' | 'fenced' | 'finished' | 'behind'> {
    return journalRun.run(this.#redis, [this.#keys.user(userId).run(runId)], [fencingToken, field, value]);
  }

  /** Returns the milliseconds from the acceptance after which the sweep ends a run. */
  #endMs(agent: string): number {
    return this.#agents.timeoutMs(agent, this.#timeoutMs) + SWEEP_MARGIN_MS;
  }

  /** Requests cancellation. One round trip, together with the message limit. @throws TollgateError RATE_LIMITED */
  async cancel(userId: string, runId: string, limit: MessageLimit): Promise<'asked' | 'missing' | 'finished'> {
    const keys = this.#keys.user(userId);
    const used = [keys.run(runId), keys.messageRate, keys.activeRuns, keys.runsInFlight];
    const args = [keys.runControl, runId, limit.messages, activeRunMember(userId, runId)];
    const [reply] = await Promise.all([cancelRun.run(this.#redis, used, args), limit.allowed]);
    if (reply === 'limited') throw new TollgateError('RATE_LIMITED');
    if (reply !== 'queued') return reply;
    // The run was waiting for input. If the job cannot be stored, the sweep ends the run at its deadline.
    await this.#enqueue({ user_id: userId, run_id: runId });
    return 'asked';
  }

  /** Returns the state of a run of the user; `unknown` for any other, and a day after its acceptance. */
  async status(userId: string, runId: string): Promise<RunStatus> {
    const state = await readRunState({ redis: this.#redis, keys: this.#keys }, userId, runId);
    if (!state) return { status: 'unknown', requestId: null, threadId: null };
    const { status, requestId, threadId, endedAt, answer } = state;
    const open = openRequests(state);
    return {
      status,
      requestId,
      threadId,
      ...(endedAt === undefined ? {} : { ended_at: new Date(endedAt).toISOString() }),
      ...(status === 'completed' ? { final_response: answer } : {}),
      ...(open.length > 0 ? { input_requests: open } : {}),
    };
  }

  /**
   * Finds a run of the user, by its id or as the latest of a thread, and the position of its events; undefined for runs
   * of others, and a day after its acceptance. One round trip.
   */
  async locate(
    userId: string,
    { runId = '', threadId = '' }: { readonly runId?: string; readonly threadId?: string },
  ): Promise<LocatedRun | undefined> {
    const keys = this.#keys.user(userId);
    const reply = await locateRun.run(
      this.#redis,
      [keys.run(runId), keys.runsInFlight, keys.runs, keys.logState, keys.log],
      [runId, threadId, keys.run(''), RUNS_SEARCHED, LOG_STATE_SECONDS],
    );
    if (reply.length === 1) return undefined;
    const [id, status, requestId, thread, agent, epoch, head, oldest, firstSeq, lastSeq, endedMsAgo] = reply;
    return {
      runId: id,
      status,
      requestId,
      threadId: thread,
      agent,
      epoch,
      oldest,
      // A run without events: its first one follows the head.
      after: firstSeq === 0 ? head : firstSeq - 1,
      endedAtSeq: lastSeq === 0 ? undefined : lastSeq,
      endedMsAgo: lastSeq === 0 ? undefined : endedMsAgo,
    };
  }

  /** Returns what calls of tools for a run need to know; undefined for a run that no worker executes. */
  async executing(userId: string, runId: string): Promise<ExecutingRun | undefined> {
    const fields = ['status', 'caller', 'thread_id', 'request_id', 'agent', 'cancel'] as const;
    const stored = await mapRedisErrors(this.#redis.hmget(this.#keys.user(userId).run(runId), ...fields));
    const [status, caller, threadId, requestId, agent, cancel] = stored;
    if (status !== 'running' || !caller || !threadId || !requestId || !agent || cancel) return undefined;
    const { degraded, ...rights } = JSON.parse(caller) as ToolCaller & { readonly degraded: boolean };
    return { caller: rights, degraded, threadId, requestId, agent };
  }

  /** Returns runs past their deadline (Redis clock) that have not ended; at most `limit` per partition. */
  async overdue(limit = 100): Promise<AgentRunJob[]> {
    const members = await overdueMembers(this.#redis, (partition) => this.#keys.activeRuns(partition), limit);
    return members.map(({ userId, id }) => ({ user_id: userId, run_id: id }));
  }

  /** Removes a run that has ended or expired from the active runs of its partition and its user. */
  async forget(userId: string, runId: string): Promise<void> {
    const { activeRuns, runsInFlight } = this.#keys.user(userId);
    await Promise.all([
      this.#redis.zrem(activeRuns, activeRunMember(userId, runId)),
      this.#redis.zrem(runsInFlight, runId),
    ]);
  }

  async #store(run: RunRequest, agent: string, messageLimit: number) {
    const { userId, plan } = run.identity;
    const keys = this.#keys.user(userId);
    const used = [
      keys.messageRate,
      keys.request(run.requestId),
      keys.run(run.runId),
      keys.activeRuns,
      keys.runs,
      keys.threads,
      keys.threadInfo,
      keys.thread(run.threadId),
      keys.quota,
      keys.runsInFlight,
    ];
    return startRun.run(this.#redis, used, [
      messageLimit,
      run.runId,
      run.threadId,
      activeRunMember(userId, run.runId),
      this.#endMs(agent),
      this.#keptMs,
      RUNS_LISTED,
      JSON.stringify(threadInfo(run.message, this.#clock.now())),
      JSON.stringify({ role: 'user', text: run.message, run_id: run.runId }),
      THREAD_MESSAGES,
      THREAD_BYTES,
      THREADS_KEPT,
      THREAD_KEPT_MS,
      keys.thread(''),
      runLimits(this.#plans, plan),
      run.isThreadImplied ? 1 : 0,
      ...storedFields(acceptedRun(run, agent)),
      ...traceFields(this.#tracing.traceParent),
    ]);
  }
}

/** The field of a run's hash with the trace in which it was accepted. A restored run has none. */
function traceFields(traceParent: TraceParent | undefined): string[] {
  return traceParent === undefined ? [] : ['trace', traceParent];
}

function tokenStep(): number {
  return randomInt(1, TOKEN_STEP);
}
