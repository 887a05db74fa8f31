import { type AgentCatalogue, type AgentDescription, isRemote } from '../catalogue/agent-catalogue.ts';
import type { UserLogWriter } from '../events/user-log-writer.ts';
import type { Clock } from '../lib/clock.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Span, Tracing } from '../lib/tracing.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { ToolService } from '../tools/tool-service.ts';
import type { Agent } from './agent.ts';
import { callClientTool } from './client-calls.ts';
import { RecentRuns } from './recent-runs.ts';
import { RemoteLog } from './remote-log.ts';
import type { RunClaims } from './run-claims.ts';
import { RunOwnershipLost, RunSuspended } from './run-end.ts';
import { RunLog } from './run-log.ts';
import { StepLog } from './step-log.ts';
import type { ClaimedRun } from './stored-run.ts';

export type RunEnd = 'completed' | 'failed' | 'cancelled' | 'lost';

/**
 * What became of a run that a worker executed. It may also wait for input of its user, or have got that input while it
 * was executed: then it must be claimed again.
 */
export type Execution = RunEnd | 'waiting' | 'answered';

export interface RunExecutorDeps {
  readonly log: UserLogWriter;
  readonly claims: Pick<RunClaims, 'restore' | 'suspend' | 'journal' | 'openCalls'>;
  readonly agents: AgentCatalogue;
  readonly agent: Agent;
  readonly tools: Pick<ToolService, 'callInRun'>;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'runs' | 'runSeconds' | 'firstEventSeconds'>;
  readonly logger: Logger;
  readonly tracing: Tracing;
}

/** Time that a stopped agent has to record the tool call that it is executing. */
const STOP_GRACE_MS = 1_000;
/** Shorter than the silence after which `RunLog` restores nothing, longer than most runs. */
const CONFIRM_EVERY_MS = 60_000;

interface RunTimes {
  /** By `performance.now()`. */
  readonly startedAt: number;
  /** Milliseconds since the epoch. */
  readonly deadlineAt: number;
}

/** Why the executor stops a run. */
type StopReason = 'cancelled' | 'timeout';

export interface RunExecutorOptions {
  /** Milliseconds from acceptance to the terminal event, without the time of waiting for input. */
  readonly timeoutMs: number;
  /** Milliseconds until an input request expires. */
  readonly inputExpiresMs: number;
}

/**
 * Runs an agent and writes exactly one terminal event, also when the agent fails, times out or is cancelled. A run that
 * waits for input is suspended, and gets its terminal event from the worker that continues it.
 */
export class RunExecutor {
  readonly #deps: RunExecutorDeps;
  readonly #timeoutMs: number;
  readonly #inputExpiresMs: number;
  readonly #running = new Map<string, AbortController>();
  readonly #recent: RecentRuns;

  constructor(deps: RunExecutorDeps, options: RunExecutorOptions) {
    this.#deps = deps;
    this.#timeoutMs = options.timeoutMs;
    this.#inputExpiresMs = options.inputExpiresMs;
    this.#recent = new RecentRuns(deps.clock);
  }

  /** Restores the runs of this worker that Redis lost, ended ones included. Call it after a reconnect to Redis. */
  async confirmRuns(): Promise<void> {
    const { logger } = this.#deps;
    await this.#recent.confirmAll((error) => logger.debug({ err: error }, 'a run could not be confirmed'));
  }

  /** Cancels a run if this worker executes it. */
  cancel(runId: string): void {
    this.#running.get(runId)?.abort('cancelled' satisfies StopReason);
  }

  /** @throws Error when the terminal event could not be written; another claim or the sweep then ends the run */
  async execute(run: ClaimedRun): Promise<Execution> {
    const startedAt = performance.now() - run.waitedMs;
    const stop = new AbortController();
    const remainingMs = this.#deps.agents.timeoutMs(run.agent, this.#timeoutMs) - run.waitedMs;
    const deadlineAt = this.#deps.clock.now() + remainingMs;
    const cancelTimeout = this.#deps.clock.after(remainingMs, () => stop.abort('timeout' satisfies StopReason));
    this.#running.set(run.runId, stop);
    try {
      const name = `invoke_agent ${run.agent}`;
      const end = await this.#deps.tracing.span(name, {}, async (span) => {
        describe(span, run);
        const result = await this.#run(run, stop, { startedAt, deadlineAt });
        span.set({ 'tollgate.run.status': result });
        return result;
      });
      if (end === 'waiting' || end === 'answered') return end;
      this.#deps.metrics.runs.inc({ status: end });
      this.#deps.metrics.runSeconds.observe({ status: end }, (performance.now() - startedAt) / 1000);
      return end;
    } finally {
      cancelTimeout();
      // This worker may have claimed the same run again in the meantime.
      if (this.#running.get(run.runId) === stop) this.#running.delete(run.runId);
    }
  }

  async #run(run: ClaimedRun, stop: AbortController, { startedAt, deadlineAt }: RunTimes): Promise<Execution> {
    const { clock, logger, claims } = this.#deps;
    const context = { run_id: run.runId, user: userHash(run.userId) };
    const onRestored = () => logger.warn(context, 'redis lost acknowledged writes, the run was restored');
    const log = new RunLog({ log: this.#deps.log, clock, claims, onRestored }, run, () => stop.abort('cancelled'));
    this.#recent.started(log);
    const stopConfirming = this.#confirmRegularly(log);
    try {
      const started = log.started().then(() => {
        if (run.events === 0) this.#deps.metrics.firstEventSeconds.observe((performance.now() - startedAt) / 1000);
      });
      await log.buffered(started);
      if (run.cancelRequested) stop.abort('cancelled');
      const answered = Promise.race([this.#answer(run, log, deadlineAt, stop.signal), log.failure]);
      const answer = await this.#withStopGrace(answered, stop.signal);
      await log.completed(answer);
      return 'completed';
    } catch (thrown) {
      const end =
        thrown instanceof RunSuspended && !stop.signal.aborted
          ? log.suspend(Math.max(0, deadlineAt - clock.now()))
          : this.#end(run, log, stop.signal.aborted ? stop.signal.reason : undefined, thrown);
      return await end.catch(ownershipLostOrThrow);
    } finally {
      stopConfirming();
      this.#recent.ended(log);
    }
  }

  /**
   * Confirms a run that lasts, so that a Redis that loses it is noticed although the agent is silent: a writer restores
   * its run only within a limited time after Redis confirmed it last.
   */
  #confirmRegularly(log: RunLog): () => void {
    let isPending = false;
    return this.#deps.clock.every(CONFIRM_EVERY_MS, async () => {
      if (isPending) return;
      isPending = true;
      await log.confirm().catch((error) => this.#deps.logger.debug({ err: error }, 'a run could not be confirmed'));
      isPending = false;
    });
  }

  /**
   * Gives a stopped agent `STOP_GRACE_MS` to complete its current call, so that an executed call is recorded. An agent
   * that does not stop in this time is abandoned, and the run log rejects its later writes.
   */
  #withStopGrace<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
    return new Promise((resolve, reject) => {
      let cancelGrace = () => {};
      const stopped = () => {
        cancelGrace = this.#deps.clock.after(STOP_GRACE_MS, () => reject(signal.reason));
      };
      signal.addEventListener('abort', stopped, { once: true });
      if (signal.aborted) stopped();
      work.then(resolve, reject).finally(() => {
        cancelGrace();
        signal.removeEventListener('abort', stopped);
      });
    });
  }

  async #answer(run: ClaimedRun, log: RunLog, deadlineAt: number, signal: AbortSignal) {
    let calls = 0;
    let inputs = 0;
    const number = run.runId.slice('run_'.length);
    const { userId, runId, message, threadId, requestId, transport, caller, degraded, acceptedAt } = run;
    const rights = { userId, runId, threadId, caller, degraded };
    const agent = this.#deps.agents.get(run.agent);
    const remote = new RemoteLog({ log, clock: this.#deps.clock }, run);
    const callPrefix = callPrefixOf(run, agent);
    const task = {
      ...rights,
      deadlineAt,
      agent: run.agent,
      message,
      tools: agent?.tools ?? [],
      // The page of a user must not stand in for a tool of the operator.
      clientTools: run.clientTools.filter(({ name }) => !agent?.tools.includes(name)),
      instructions: agent?.instructions ?? agent?.description ?? '',
      model: agent?.model,
    };
    const callIdOf = (name: string | undefined) => {
      if (name !== undefined) return `call_${number}_${name}`;
      calls += 1;
      return `${callPrefix}_${calls}`;
    };
    return this.#deps.agent(task, {
      signal,
      steps: new StepLog({ log, clock: this.#deps.clock }, run),
      remote,
      think: async (thought) => {
        signal.throwIfAborted();
        await log.buffered(log.thinking(thought));
      },
      call: async (tool, args, name) => {
        signal.throwIfAborted();
        const callId = callIdOf(name);
        const request = { ...rights, tool, args, callId, requestId, idempotencyKey: null, transport, signal };
        return this.#deps.tools.callInRun(request, { log, acceptedAt, inputExpiresMs: this.#inputExpiresMs });
      },
      callClientTool: async (tool, args, name) => {
        signal.throwIfAborted();
        return callClientTool(log, { tool, args, callId: callIdOf(name) }, this.#inputExpiresMs);
      },
      requestInput: async (input, name) => {
        signal.throwIfAborted();
        inputs += 1;
        return log.requestInput(`input_${number}_${name ?? `r${inputs}`}`, input, this.#inputExpiresMs);
      },
    });
  }

  async #end(run: ClaimedRun, log: RunLog, reason: StopReason | undefined, thrown: unknown): Promise<RunEnd> {
    if (thrown instanceof RunOwnershipLost) throw thrown;
    if (reason === 'cancelled') {
      await log.cancelled();
      return 'cancelled';
    }
    const timedOut = reason === 'timeout';
    const context = { run_id: run.runId, connection_id: run.connectionId, user: userHash(run.userId) };
    if (!timedOut) this.#deps.logger.error({ ...context, err: thrown }, 'agent failed');
    const publicCause =
      thrown instanceof TollgateError ? thrown : new TollgateError('INTERNAL_ERROR', { cause: thrown });
    const error = timedOut ? new TollgateError('RUN_TIMEOUT') : publicCause;
    this.#deps.tracing.failed(error);
    await log.failed(error);
    return 'failed';
  }
}

/**
 * Returns the prefix of the ids of the run's calls. After a takeover the built-in agents repeat their calls, which have
 * the same ids. A remote agent can make other calls than before, so each claim has ids of its own.
 */
function callPrefixOf({ runId, previousToken, fencingToken }: ClaimedRun, agent: AgentDescription | undefined): string {
  const prefix = `call_${runId.slice('run_'.length)}`;
  return agent && isRemote(agent) && previousToken > 0 ? `${prefix}_${fencingToken.toString(36)}` : prefix;
}

/** Attributes follow the OpenTelemetry semantic conventions for generative AI; a thread is their conversation. */
function describe(span: Span, { agent, threadId, runId, fencingToken, userId, caller }: ClaimedRun): void {
  if (!span.recording) return;
  span.set({
    'gen_ai.operation.name': 'invoke_agent',
    'gen_ai.agent.name': agent,
    'gen_ai.conversation.id': threadId,
    'tollgate.run.id': runId,
    'tollgate.run.epoch': fencingToken,
    'tollgate.plan': caller.plan,
    'user.hash': userHash(userId),
  });
}

function ownershipLostOrThrow(error: unknown): RunEnd {
  if (error instanceof RunOwnershipLost) return 'lost';
  throw error;
}
