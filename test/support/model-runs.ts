import type { Agent } from '../../src/agents/agent.ts';
import { AgentCatalogue } from '../../src/agents/agent-catalogue.ts';
import { ChatModel, MODEL_LIMITS, type ModelLimits } from '../../src/agents/model/chat-model.ts';
import { createModelAgent } from '../../src/agents/model/model-agent.ts';
import { type RunEnd, RunExecutor } from '../../src/agents/run-executor.ts';
import { type ClaimedRun, Runs } from '../../src/agents/runs.ts';
import { Threads } from '../../src/agents/threads.ts';
import { ToolRunner } from '../../src/agents/tool-runner.ts';
import type { ToolExecutor } from '../../src/agents/tools/tool.ts';
import type { EventLog } from '../../src/events/event-log.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { newId } from '../../src/lib/ids.ts';
import { Permissions } from '../../src/policy/permissions.ts';
import { ToolCatalogue } from '../../src/policy/tool-catalogue.ts';
import type { Identity } from '../../src/protocol/identity.ts';
import type { UsageRecord } from '../../src/usage/records.ts';
import { type Core, silentLogger, startCore } from './core.ts';
import type { ModelServer } from './model-server.ts';
import { freshUserId } from './tokens.ts';

export interface LoggedEvent {
  readonly type: string;
  readonly [field: string]: unknown;
}

export interface Accepted {
  readonly userId: string;
  readonly runId: string;
}

const row = { description: 'counts', permission: 'basic', executor: 'builtin', units: 1, arguments: {} } as const;
const tools = ['count', 'other'].map((name) => ({ ...row, name, argumentsProblem: () => undefined }));
const PRICE = { '*': { input: 1, output: 1 } };

/** Runs of the agent on a model, in this process: what a worker has, with bounds of the test's own. */
export class ModelRuns {
  readonly core: Core;
  readonly runs: Runs;
  readonly #model: ModelServer;
  readonly #agents: AgentCatalogue;
  readonly #catalogue = new ToolCatalogue(tools);

  private constructor(core: Core, model: ModelServer) {
    this.core = core;
    this.#model = model;
    const tester = { name: 'tester', description: 'a', tools: tools.map(({ name }) => name) };
    this.#agents = new AgentCatalogue([tester], 'tester', PRICE);
    this.runs = new Runs({ ...core, agents: this.#agents, clock: systemClock }, { timeoutMs: 60_000 });
  }

  static async start(model: ModelServer): Promise<ModelRuns> {
    return new ModelRuns(await startCore(), model);
  }

  async accept(): Promise<Accepted> {
    const userId = freshUserId();
    const runId = newId('run');
    const identity = { userId, plan: 'pro', permissions: [], roles: [], featureFlags: {} } as unknown as Identity;
    const request = { connectionId: 'c', requestId: newId('req'), threadId: 'thread_1', agent: undefined };
    const run = { ...request, identity, runId, message: 'Count.', transport: 'websocket', degraded: false };
    await this.runs.start(run, { allowed: Promise.resolve(), messages: 30 }, async () => undefined);
    return { userId, runId };
  }

  async claim({ userId, runId }: Accepted): Promise<ClaimedRun> {
    const claimed = await this.runs.claim(userId, runId);
    if (claimed.outcome !== 'claimed') throw new Error(`the run is ${claimed.outcome}`);
    return claimed.run;
  }

  executor(
    options: {
      readonly limits?: Partial<ModelLimits>;
      readonly timeoutMs?: number;
      readonly count?: ToolExecutor;
      /** Instead of the log of the core. */
      readonly log?: EventLog;
      readonly agent?: Agent;
    } = {},
  ): RunExecutor {
    const { core } = this;
    const clock = systemClock;
    const logger = silentLogger;
    const limits = { ...MODEL_LIMITS, ...options.limits };
    const model = new ChatModel({ url: this.#model.url, key: undefined, clock }, limits);
    const threads = new Threads({ ...core, clock });
    const deps = { model, agents: this.#agents, catalogue: this.#catalogue, threads, clock, logger };
    const count = options.count ?? (async () => ({ counted: 1 }));
    const runner = new ToolRunner({
      catalogue: this.#catalogue,
      permissions: new Permissions({ plans: core.plans, tools: this.#catalogue }),
      executors: { count, other: count },
      clock,
      logger,
    });
    return new RunExecutor(
      {
        log: options.log ?? core.log,
        agents: this.#agents,
        agent: options.agent ?? createModelAgent({ ...deps, metrics: core.metrics }, 'm'),
        tools: runner,
        clock,
        metrics: core.metrics,
        logger,
      },
      { timeoutMs: options.timeoutMs ?? 60_000 },
    );
  }

  /** Accepts a run and carries it to its end. */
  async run(
    options: Parameters<ModelRuns['executor']>[0] = {},
  ): Promise<{ end: RunEnd; events: LoggedEvent[]; userId: string }> {
    const accepted = await this.accept();
    const end = await this.executor(options).execute(await this.claim(accepted));
    return { end, events: await this.events(accepted), userId: accepted.userId };
  }

  /** The events of a user, in the order of the log. */
  async events({ userId }: { readonly userId: string }): Promise<LoggedEvent[]> {
    const { log } = this.core;
    const { epoch } = await log.read(userId, { epoch: undefined, after: 0, delivered: undefined }, 1);
    const { entries } = await log.read(userId, { epoch, after: 0, delivered: undefined }, 1_000);
    return entries.map(({ json, type }) => ({ ...(JSON.parse(json) as object), type }));
  }

  /** The user's usage records, oldest first. */
  async records({ userId }: { readonly userId: string }): Promise<UsageRecord[]> {
    const stored = await this.core.redis.lrange(this.core.keys.user(userId).recentUsage, 0, -1);
    return stored.map((json) => JSON.parse(json) as UsageRecord).reverse();
  }
}

/** What a client that follows the rule of `replaces_step` has read of the model: the text of each step that stands. */
export function textBySteps(events: readonly LoggedEvent[]): string[] {
  const steps = new Map<unknown, string>();
  for (const { type, step, thought, replaces_step } of events) {
    if (type !== 'agent_thinking') continue;
    if (replaces_step !== undefined) steps.delete(replaces_step);
    steps.set(step, (steps.get(step) ?? '') + String(thought));
  }
  return [...steps.values()];
}
