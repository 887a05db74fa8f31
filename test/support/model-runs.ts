import { createModelAgent } from '../../src/agents/model/model-agent.ts';
import { Models } from '../../src/agents/model/models.ts';
import { SchemaWarnings } from '../../src/agents/model/tool-offers.ts';
import { AgentCatalogue } from '../../src/catalogue/agent-catalogue.ts';
import type { Catalogues } from '../../src/catalogue/catalogues.ts';
import type { ModelRow } from '../../src/catalogue/model-settings.ts';
import { composeAgent } from '../../src/compose/agent.ts';
import type { UserLogWriter } from '../../src/events/user-log-writer.ts';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { newId } from '../../src/lib/ids.ts';
import type { Logger } from '../../src/lib/logger.ts';
import type { UsageSummary } from '../../src/limits/quotas.ts';
import type { Identity } from '../../src/protocol/identity.ts';
import type { Refusal, UsageRecord } from '../../src/protocol/usage.ts';
import type { Agent } from '../../src/runs/agent.ts';
import { RunClaims } from '../../src/runs/run-claims.ts';
import { type Execution, RunExecutor } from '../../src/runs/run-executor.ts';
import { Runs } from '../../src/runs/runs.ts';
import type { ClaimedRun } from '../../src/runs/stored-run.ts';
import { Threads } from '../../src/threads/threads.ts';
import type { ToolExecutor } from '../../src/tools/tool.ts';
import { catalogues, toolRow } from './catalogues.ts';
import { type Core, NO_QUEUE, silentLogger, startCore } from './core.ts';
import type { ModelServer } from './model-server.ts';
import { freshUserId } from './tokens.ts';
import { anyCaller, toolNode } from './tools.ts';

export interface LoggedEvent {
  readonly type: string;
  readonly [field: string]: unknown;
}

export interface Accepted {
  readonly userId: string;
  readonly runId: string;
}

/** The tools of the agent in these runs, whatever the catalogues contain. */
const TOOLS = ['count', 'other'];
const PRICE = { '*': { input: 1, output: 1 } };

interface Caller {
  readonly userId: string;
  readonly plan: string;
  readonly degraded: boolean;
}

/** Runs of the model agent in this process, with the components of a worker and limits of the test's own. */
export class ModelRuns {
  readonly core: Core;
  readonly runs: Runs;
  readonly claims: RunClaims;
  #clock: Clock = systemClock;
  readonly #model: ModelServer;
  readonly #agents: AgentCatalogue;
  readonly #catalogues: Catalogues;

  private constructor(core: Core, model: ModelServer, known: Catalogues) {
    this.core = core;
    this.#model = model;
    this.#catalogues = known;
    const tester = { name: 'tester', description: 'a', tools: TOOLS };
    this.#agents = new AgentCatalogue([tester], 'tester', PRICE);
    this.runs = new Runs({ ...core, queue: NO_QUEUE, agents: this.#agents, clock: systemClock }, { timeoutMs: 60_000 });
    this.claims = new RunClaims({ ...core, agents: this.#agents }, { timeoutMs: 60_000 });
  }

  static async start(model: ModelServer, known?: Catalogues): Promise<ModelRuns> {
    const tools = TOOLS.map((name) => toolRow({ name }));
    return new ModelRuns(await startCore(), model, known ?? catalogues({ tools }, 'file'));
  }

  /** For tests that count events: on a slow machine the timer would otherwise flush text early. */
  stopTime(): void {
    const startedAt = Date.now();
    this.#clock = { ...systemClock, now: () => startedAt };
  }

  letTimeRun(): void {
    this.#clock = systemClock;
  }

  async accept(caller: Partial<Caller> = {}): Promise<Accepted> {
    const { userId = freshUserId(), plan = 'pro', degraded = false } = caller;
    const runId = newId('run');
    const identity = { userId, plan, permissions: [], roles: [], featureFlags: {} } as unknown as Identity;
    const request = { connectionId: 'c', requestId: newId('req'), threadId: 'thread_1', agent: undefined };
    const run = { ...request, identity, runId, message: 'Count.', transport: 'websocket', degraded };
    await this.runs.start(run, { allowed: Promise.resolve(), messages: 30 });
    return { userId, runId };
  }

  async claim({ userId, runId }: Accepted): Promise<ClaimedRun> {
    const claimed = await this.claims.claim(userId, runId);
    if (claimed.outcome !== 'claimed') throw new Error(`the run is ${claimed.outcome}`);
    return claimed.run;
  }

  executor(
    options: {
      /** Settings of the model in agents.json. */
      readonly settings?: ModelRow | undefined;
      readonly logger?: Logger;
      readonly timeoutMs?: number;
      readonly count?: ToolExecutor;
      /** The same as `count` by default. */
      readonly other?: ToolExecutor;
      /** Replaces the log of the core. */
      readonly log?: UserLogWriter;
      readonly agent?: Agent;
    } = {},
  ): RunExecutor {
    const { core } = this;
    const clock = this.#clock;
    const { settings = {}, logger = silentLogger } = options;
    const models = new Models(
      { clock, tracing: core.tracing, logger },
      { model: () => settings },
      { endpoint: { url: this.#model.url, key: undefined }, variable: () => undefined, production: false },
    );
    const threads = new Threads({ ...core, clock });
    const deps = {
      models,
      warnings: new SchemaWarnings(logger),
      agents: this.#agents,
      tools: this.#catalogues.tools,
      threads,
      clock,
      logger,
      tracing: core.tracing,
    };
    const count = options.count ?? (async () => ({ counted: 1 }));
    const other = options.other ?? count;
    const { service } = toolNode(core, { catalogues: this.#catalogues, executors: { count, other } });
    return new RunExecutor(
      {
        log: options.log ?? core.log,
        claims: this.claims,
        agents: this.#agents,
        agent: options.agent ?? createModelAgent({ ...deps, metrics: core.metrics }, 'm'),
        tools: service,
        clock,
        metrics: core.metrics,
        tracing: core.tracing,
        logger,
      },
      { timeoutMs: options.timeoutMs ?? 60_000, inputExpiresMs: 60_000 },
    );
  }

  /**
   * A log whose writer dies in the middle of an append: later calls never resolve. @param after events that are
   * appended before
   */
  dyingLog(after: number): { log: UserLogWriter; dead: () => boolean } {
    const never = new Promise<never>(() => undefined);
    const log = Object.create(this.core.log) as UserLogWriter;
    let written = 0;
    log.append = (append) => (written++ >= after ? never : this.core.log.append(append));
    return { log, dead: () => written > after };
  }

  /** Accepts a run and executes it to its end. */
  async run(
    options: Parameters<ModelRuns['executor']>[0] = {},
    caller: Partial<Caller> = {},
  ): Promise<{ end: Execution; events: LoggedEvent[]; userId: string }> {
    const accepted = await this.accept(caller);
    const end = await this.executor(options).execute(await this.claim(accepted));
    return { end, events: await this.events(accepted), userId: accepted.userId };
  }

  /** Builds the agent from environment variables, as a worker does. */
  assembled(logger = silentLogger): Promise<Agent> {
    const { core } = this;
    const threads = new Threads({ ...core, clock: systemClock });
    const deps = { agents: this.#agents, catalogues: this.#catalogues, threads, clock: systemClock };
    const variables = {
      AGENT_MODEL_URL: this.#model.url,
      AGENT_MODEL_NAME: 'm',
      AGENT_MODEL_KEY: undefined,
      ENVIRONMENT: 'test' as const,
      variable: () => undefined,
    };
    return composeAgent({ ...deps, metrics: core.metrics, tracing: core.tracing, logger }, variables);
  }

  /** Returns the user's summary of limits, calls in flight and charges. */
  summary({ userId }: { readonly userId: string }, plan = 'pro'): Promise<UsageSummary> {
    const { quotas } = toolNode(this.core, { catalogues: this.#catalogues, executors: {} });
    return quotas.summary(userId, anyCaller(plan));
  }

  /** Returns the number of the user's refusals, which the tallies count. */
  async refusals({ userId }: { readonly userId: string }): Promise<number> {
    const entries = await this.core.redis.xrange(this.core.keys.user(userId).outbox, '-', '+');
    const refused = entries.flatMap(([, [field, json = '']]) => (field === 'x' ? [JSON.parse(json) as Refusal] : []));
    return refused.filter((refusal) => refusal.user_id === userId).length;
  }

  /** Returns the events of a user, in the order of the log. */
  async events({ userId }: { readonly userId: string }): Promise<LoggedEvent[]> {
    const { eventLog } = this.core;
    const { epoch } = await eventLog.read(userId, { epoch: undefined, after: 0, delivered: undefined }, 1);
    const { entries } = await eventLog.read(userId, { epoch, after: 0, delivered: undefined }, 1_000);
    return entries.map(({ json, type }) => ({ ...(JSON.parse(json) as object), type }));
  }

  /** Returns the user's usage records, oldest first. */
  async records({ userId }: { readonly userId: string }): Promise<UsageRecord[]> {
    const stored = await this.core.redis.lrange(this.core.keys.user(userId).recentUsage, 0, -1);
    return stored.map((json) => JSON.parse(json) as UsageRecord).reverse();
  }
}

/**
 * Returns the model's text as a client reads it that follows the rule of `replaces_step`: the text of each remaining
 * step.
 */
export function textBySteps(events: readonly LoggedEvent[]): string[] {
  const steps = new Map<unknown, string>();
  for (const { type, step, thought, replaces_step } of events) {
    if (type !== 'agent_thinking') continue;
    if (replaces_step !== undefined) steps.delete(replaces_step);
    steps.set(step, (steps.get(step) ?? '') + String(thought));
  }
  return [...steps.values()];
}
