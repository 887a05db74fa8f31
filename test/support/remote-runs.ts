import { RemoteAgents } from '../../src/agents/remote/remote-agents.ts';
import type { ToolAccess } from '../../src/agents/remote/turn.ts';
import { type AgentCatalogue, loadAgentCatalogue } from '../../src/catalogue/agent-catalogue.ts';
import type { UserLogWriter } from '../../src/events/user-log-writer.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { newId } from '../../src/lib/ids.ts';
import type { ClientTool } from '../../src/protocol/client-tools.ts';
import type { Identity } from '../../src/protocol/identity.ts';
import type { InputAnswer } from '../../src/protocol/input.ts';
import type { UsageRecord } from '../../src/protocol/usage.ts';
import { RunClaims } from '../../src/runs/run-claims.ts';
import { type Execution, RunExecutor } from '../../src/runs/run-executor.ts';
import { RunInputs } from '../../src/runs/run-inputs.ts';
import { Runs } from '../../src/runs/runs.ts';
import type { ClaimedRun } from '../../src/runs/stored-run.ts';
import { Threads } from '../../src/threads/threads.ts';
import type { ToolExecutor } from '../../src/tools/tool.ts';
import { catalogueFolder, catalogues, toolRow } from './catalogues.ts';
import { type Core, NO_QUEUE, silentLogger, startCore } from './core.ts';
import type { Accepted, LoggedEvent } from './model-runs.ts';
import { closeAfter } from './open-resources.ts';
import { freshUserId } from './tokens.ts';
import { toolNode } from './tools.ts';

type Row = Readonly<Record<string, unknown>>;
export const AGENT_SECRET = 'a secret for the signature of requests';
const VARIABLES: Readonly<Record<string, string>> = { AGENT_SECRET, AGENT_KEY: 'key-1' };

/** Returns the catalogue with one agent named `remote`, read from a file as a worker does. */
export function remoteCatalogue(row: Row): AgentCatalogue {
  const agent = { name: 'remote', description: 'A remote agent.', ...row };
  return loadAgentCatalogue(catalogueFolder({ 'agents.json': { default: 'remote', agents: [agent] } }));
}

/** Runs of a remote agent in this process, with the components of a worker. */
export class RemoteRuns {
  readonly core: Core;
  readonly #catalogues = catalogues({ tools: [toolRow({ name: 'count' })] }, 'file');
  readonly #agents = new Map<string, AgentCatalogue>();

  private constructor(core: Core) {
    this.core = core;
  }

  static async start(): Promise<RemoteRuns> {
    return new RemoteRuns(await startCore());
  }

  async accept(
    row: Row,
    fields: {
      readonly message?: string;
      readonly userId?: string;
      readonly degraded?: boolean;
      readonly clientTools?: readonly ClientTool[];
    } = {},
  ) {
    const { userId = freshUserId(), message = 'Count.', degraded = false, clientTools = [] } = fields;
    const runId = newId('run');
    const identity = { userId, plan: 'pro', permissions: [], roles: [], featureFlags: {} } as unknown as Identity;
    const request = { connectionId: 'c', requestId: newId('req'), threadId: 'thread_1', agent: undefined };
    const run = { ...request, identity, runId, message, transport: 'websocket', degraded, clientTools };
    await this.runs(row).start(run, { allowed: Promise.resolve(), messages: 30 });
    return { userId, runId };
  }

  async claim(row: Row, { userId, runId }: Accepted): Promise<ClaimedRun> {
    const claimed = await this.#claims(row).claim(userId, runId);
    if (claimed.outcome !== 'claimed') throw new Error(`the run is ${claimed.outcome}`);
    return claimed.run;
  }

  /** Answers the open input requests of a waiting run, by the name of their tool or else their kind. */
  async answer(row: Row, { userId, runId }: Accepted, answers: Readonly<Record<string, InputAnswer>>): Promise<void> {
    const inputs = new RunInputs({ ...this.core, queue: NO_QUEUE, clock: systemClock });
    const { input_requests: open = [] } = await this.runs(row).status(userId, runId);
    for (const { input_id: inputId, kind, tool_name } of open) {
      const answer = answers[tool_name ?? kind];
      if (!answer) throw new Error(`no answer for ${tool_name ?? kind}`);
      await inputs.answer(userId, { runId, inputId, answer });
    }
  }

  runs(row: Row): Runs {
    const options = { timeoutMs: 30_000 };
    return new Runs({ ...this.core, queue: NO_QUEUE, agents: this.#catalogue(row), clock: systemClock }, options);
  }

  #claims(row: Row): RunClaims {
    return new RunClaims({ ...this.core, agents: this.#catalogue(row) }, { timeoutMs: 30_000 });
  }

  executor(
    row: Row,
    options: { readonly log?: UserLogWriter; readonly count?: ToolExecutor; readonly toolAccess?: ToolAccess } = {},
  ): RunExecutor {
    const { core } = this;
    const agents = this.#catalogue(row);
    const threads = new Threads({ ...core, clock: systemClock });
    const deps = { ...core, clock: systemClock, logger: silentLogger, agents, threads };
    const references = { variable: (name: string) => VARIABLES[name], production: false };
    const remote = new RemoteAgents(
      { ...deps, tools: this.#catalogues.tools, toolAccess: () => options.toolAccess },
      references,
    );
    closeAfter('test', () => remote.close());
    const agent = remote.get('remote');
    if (!agent) throw new Error('the agent is not remote');
    const count = options.count ?? (async () => ({ counted: 1 }));
    const { service: tools } = toolNode(core, { catalogues: this.#catalogues, executors: { count } });
    const log = options.log ?? core.log;
    return new RunExecutor(
      { ...deps, log, claims: this.#claims(row), agent, tools },
      { timeoutMs: 30_000, inputExpiresMs: 60_000 },
    );
  }

  /** Accepts a run and executes it to its end. */
  async run(
    row: Row,
    options: Parameters<RemoteRuns['executor']>[1] = {},
    fields: Parameters<RemoteRuns['accept']>[1] = {},
  ): Promise<{ readonly end: Execution; readonly events: LoggedEvent[]; readonly userId: string }> {
    const accepted = await this.accept(row, fields);
    const end = await this.executor(row, options).execute(await this.claim(row, accepted));
    return { end, events: await this.events(accepted), userId: accepted.userId };
  }

  /** A log whose writer dies in the middle of an append: later calls never resolve. */
  dyingLog(after: number): { readonly log: UserLogWriter; readonly dead: () => boolean } {
    const never = new Promise<never>(() => undefined);
    const log = Object.create(this.core.log) as UserLogWriter;
    let written = 0;
    log.append = (append) => (written++ >= after ? never : this.core.log.append(append));
    return { log, dead: () => written > after };
  }

  /** Returns the events of a user, in the order of the log. */
  async events({ userId }: { readonly userId: string }): Promise<LoggedEvent[]> {
    const { eventLog } = this.core;
    const { epoch } = await eventLog.read(userId, { epoch: undefined, after: 0, delivered: undefined }, 1);
    const { entries } = await eventLog.read(userId, { epoch, after: 0, delivered: undefined }, 1_000);
    return entries.map(({ json, type }) => ({ ...(JSON.parse(json) as object), type }));
  }

  /** Counts the commands to Redis from now on; not the repetition of a script that another test removed from Redis. */
  countCommands(): { readonly count: number } {
    const redis = this.core.redis as unknown as {
      sendCommand: (command: { readonly name: string }) => unknown;
    };
    const counted = { count: 0 };
    const send = redis.sendCommand.bind(redis);
    redis.sendCommand = (command) => {
      if (command.name !== 'eval') counted.count += 1;
      return send(command);
    };
    return counted;
  }

  /** Returns the number of journal entries that a worker which takes over would find. */
  async claimedSteps({ userId, runId }: Accepted): Promise<number> {
    const fields = await this.core.redis.hkeys(this.core.keys.user(userId).run(runId));
    return fields.filter((field) => field.startsWith('step:')).length;
  }

  /** Returns the user's usage records, oldest first. */
  async records({ userId }: { readonly userId: string }): Promise<UsageRecord[]> {
    const stored = await this.core.redis.lrange(this.core.keys.user(userId).recentUsage, 0, -1);
    return stored.map((json) => JSON.parse(json) as UsageRecord).reverse();
  }

  /** One catalogue per row, read once. */
  #catalogue(row: Row): AgentCatalogue {
    const key = JSON.stringify(row);
    const read = this.#agents.get(key) ?? remoteCatalogue(row);
    this.#agents.set(key, read);
    return read;
  }
}
