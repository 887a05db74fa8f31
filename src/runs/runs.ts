import type { AgentCatalogue } from '../catalogue/agent-catalogue.ts';
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
import { integer, literal, oneOf, text, tuple } from '../redis/replies.ts';
import { LuaScript } from '../redis/scripts.ts';
import { THREAD_KEPT_MS, threadInfo } from '../threads/threads.ts';
import type { RunAdmission } from './run-admission.ts';
import { RunLifetimes } from './run-lifetimes.ts';
import type { RunQueue } from './run-queue.ts';
import { openRequests, readRunState } from './run-state.ts';
import { type AcceptedRun, acceptedRun, type ClaimedRun, parseCaller, storedFields } from './stored-run.ts';

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
const cancelRun = LuaScript.load('cancelRun-4', literal('asked', 'queued', 'missing', 'finished', 'limited'));
const locateRun = LuaScript.load(
  'locateRun-5',
  oneOf(
    tuple([text, literal(...RUN_STATES), text, text, text, text, integer, integer, integer, integer, integer]),
    tuple([literal('unknown')]),
  ),
);

/**
 * Maximum number of listed runs per user. An erasure finds runs by this list, so the message limit must be reached
 * first.
 */
const RUNS_LISTED = 1_000_000;
/** Number of a user's latest runs that are searched for the latest one of a thread. */
const RUNS_SEARCHED = 100;

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

/**
 * Starts, cancels and reports the agent runs of users. A run starts once per request id. `RunClaims` is the part of the
 * workers.
 */
export class Runs {
  readonly #deps: RunsDeps;
  readonly #lifetimes: RunLifetimes;

  constructor(deps: RunsDeps, { timeoutMs }: RunsOptions) {
    this.#deps = deps;
    this.#lifetimes = new RunLifetimes(deps.agents, timeoutMs);
  }

  /**
   * Accepts a run, or recognises a repetition by its request id.
   *
   * The script that stores the run also checks and counts the limits of the plan; a repetition is not counted again.
   * The message limit, the run and its job are sent together, in this order on one connection: one round trip. The
   * script reads the counter of the limiter and stores no run above the limit. A worker drops a job that has no run. If
   * the job could not be stored, `RetriedRunQueue` or a repetition with the same request id adds it again.
   *
   * A run that would not be executed in time by the estimate of the queue is refused with OVERLOADED and the time of a
   * useful retry. Repetitions of accepted runs are not.
   * @throws TollgateError AGENT_NOT_FOUND, RATE_LIMITED, QUOTA_EXCEEDED, OVERLOADED
   */
  async start(run: RunRequest, limit: MessageLimit): Promise<StartedRun> {
    const { agents, plans, admission, onAccepted } = this.#deps;
    const agent = agents.get(run.agent);
    if (!agent) throw new TollgateError('AGENT_NOT_FOUND', { fields: { agents: agents.all.map(({ name }) => name) } });
    const overloaded = admission?.refusal(this.#lifetimes.timeoutMs(agent.name));
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
      throw runRefusal(plans, run.identity.plan, refusal);
    }
    const [outcome, run_id, thread_id] = reply;
    if (outcome === 'started') {
      admission?.added();
      onAccepted?.({ ...acceptedRun(run, agent.name), threadId: thread_id });
    }
    if (enqueued.status === 'rejected') throw new TollgateError('OVERLOADED', { cause: enqueued.reason });
    return { run_id, thread_id, isRepeated: outcome === 'repeated' };
  }

  async #store(run: RunRequest, agent: string, messageLimit: number) {
    const { redis, plans, clock, tracing } = this.#deps;
    const { userId, plan } = run.identity;
    const keys = this.#deps.keys.user(userId);
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
    return startRun.run(redis, used, [
      messageLimit,
      run.runId,
      run.threadId,
      activeRunMember(userId, run.runId),
      this.#lifetimes.sweepMs(agent),
      this.#lifetimes.keptMs,
      RUNS_LISTED,
      JSON.stringify(threadInfo(run.message, clock.now())),
      JSON.stringify({ role: 'user', text: run.message, run_id: run.runId }),
      THREAD_MESSAGES,
      THREAD_BYTES,
      THREADS_KEPT,
      THREAD_KEPT_MS,
      keys.thread(''),
      runLimits(plans, plan),
      run.isThreadImplied ? 1 : 0,
      ...storedFields(acceptedRun(run, agent)),
      ...traceFields(tracing.traceParent),
    ]);
  }

  /** Returns the run that an earlier request with the same id started. @throws the given error if there is none */
  async #repeated(run: RunRequest, limit: MessageLimit, overloaded: TollgateError): Promise<StartedRun> {
    const { redis, keys } = this.#deps;
    const { userId } = run.identity;
    const first = mapRedisErrors(redis.get(keys.user(userId).request(run.requestId)));
    const [stored] = await Promise.all([first, limit.allowed]);
    const [run_id, thread_id] = stored?.split(' ') ?? [];
    if (run_id === undefined || thread_id === undefined) throw overloaded;
    await this.#enqueue({ user_id: userId, run_id });
    return { run_id, thread_id, isRepeated: true };
  }

  #enqueue(job: AgentRunJob): Promise<void> {
    const { tracing, queue } = this.#deps;
    const attributes = {
      'messaging.system': 'redis',
      'messaging.destination.name': QUEUES.agentRuns,
      'messaging.operation.type': 'send',
      'messaging.message.id': job.run_id,
    };
    return tracing.span(`send ${QUEUES.agentRuns}`, { kind: 'producer', attributes }, () => {
      const { traceParent: traceparent } = tracing;
      return queue.add(traceparent === undefined ? job : { ...job, traceparent });
    });
  }

  /** Requests cancellation. One round trip, together with the message limit. @throws TollgateError RATE_LIMITED */
  async cancel(userId: string, runId: string, limit: MessageLimit): Promise<'asked' | 'missing' | 'finished'> {
    const keys = this.#deps.keys.user(userId);
    const used = [keys.run(runId), keys.messageRate, keys.activeRuns, keys.runsInFlight];
    const args = [keys.runControl, runId, limit.messages, activeRunMember(userId, runId)];
    const [reply] = await Promise.all([cancelRun.run(this.#deps.redis, used, args), limit.allowed]);
    if (reply === 'limited') throw new TollgateError('RATE_LIMITED');
    if (reply !== 'queued') return reply;
    // The run was waiting for input. If the job cannot be stored, the sweep ends the run at its deadline.
    await this.#enqueue({ user_id: userId, run_id: runId });
    return 'asked';
  }

  /** Returns the state of a run of the user; `unknown` for any other, and a day after its acceptance. */
  async status(userId: string, runId: string): Promise<RunStatus> {
    const state = await readRunState(this.#deps, userId, runId);
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
    const keys = this.#deps.keys.user(userId);
    const reply = await locateRun.run(
      this.#deps.redis,
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

  /** Returns the data that tool calls for a run need; undefined for a run that no worker executes. */
  async executing(userId: string, runId: string): Promise<ExecutingRun | undefined> {
    const { redis, keys } = this.#deps;
    const fields = ['status', 'caller', 'thread_id', 'request_id', 'agent', 'cancel'] as const;
    const stored = await mapRedisErrors(redis.hmget(keys.user(userId).run(runId), ...fields));
    const [status, caller, threadId, requestId, agent, cancel] = stored;
    if (status !== 'running' || !caller || !threadId || !requestId || !agent || cancel) return undefined;
    return { ...parseCaller(caller), threadId, requestId, agent };
  }
}

/** The field of a run's hash with the trace in which it was accepted. A restored run has none. */
function traceFields(traceParent: TraceParent | undefined): string[] {
  return traceParent === undefined ? [] : ['trace', traceParent];
}
